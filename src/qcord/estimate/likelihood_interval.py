"""Intervals of a value by the profile of its likelihood, for many voxels at once."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.model import Derived
from qcord.estimate.levenberg_marquardt import Problem
from qcord.estimate.near_bounds import NEAR, Truth, bound_distances, is_near, simulated_ratio
from qcord.estimate.profile import Point, point, profile

_ROUNDS = 12
_FARTHEST = 4.0
"""Times the distance that is known that a step goes at most."""

_CLOSE = 0.3
"""Standard normal deviates between two points from which the profile's root is straight."""

_SETTLED = 0.02
"""The same within which an end is found, or a threshold known."""

_PASSES = 2
"""How often the threshold is found anew where an end lies near a bound."""

_MOVED = 0.1
"""Change of the threshold, in standard normal deviates, after which it is found anew at the end that has moved."""

_FAR_AHEAD = 0.2
"""Mean of the signed root from which estimates are so far from normal that the threshold is simulated."""

_LEAST = 0.25
"""Part of the threshold that is left near bounds: a value that is about as likely as the best is never ruled out, as it
would be where there is nothing but noise."""

_REACHED = 0.5
"""Part of a step that is reached where the value can go on."""

_WIDE, _TIGHT = 0.1, 1e-4
"""Width of the pull towards a value, relative to the step: first, and where it is the value that ends."""

_THERE = 0.02
"""Part of the way from the estimate to the end of the range that may be left where the end is taken for reached."""

_BETTER = 0.01
"""Decrease of the deviance that makes another point the best."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked for v voxels.

    Parameters
    ----------
    problem : Problem
        The measurements.
    metric : Derived
        The value.
    value_range : pair of float
        Its range.
    std : (v,) array
        Its standard error, from which the search sets out; any positive number will do.
    ahead : (v,) array
        Mean of the signed root: by how many standard errors estimates run ahead of the truth. It counts far from
        bounds; where it is large, the threshold is simulated instead.
    threshold : (v,) array
        Root of the ratio that is exceeded with a chance of ``tail`` far from bounds.
    scale : (v,) array
        Variance that the deviance is in units of: 1 where the noise is known.
    tail : float
        Chance of missing the truth.
    """

    problem: Problem
    metric: Derived
    value_range: tuple[float, float]
    std: FloatArray
    ahead: FloatArray
    threshold: FloatArray
    scale: FloatArray
    tail: float

    def take(self, columns: IntArray) -> "Question":
        """Some of the voxels."""
        return Question(
            self.problem.take(columns),
            self.metric,
            self.value_range,
            self.std[columns],
            self.ahead[columns],
            self.threshold[columns],
            self.scale[columns],
            self.tail,
        )


def likelihood_interval(question: Question, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end (v,) of the values that the likelihood does not rule out.

    Parameters
    ----------
    question : Question
        Measurements, value and level.
    theta : (p, v) array
        Estimates, within the bounds.

    Returns
    -------
    lower, upper : (v,) array
        The end of the range, or the last value that the parameters allow, where nothing on that side is ruled out; NaN
        where the likelihood has no number.

    References
    ----------
    Venzon and Moolgavkar 1988, doi:10.2307/2347496 (profile likelihood);
    Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873 (near bounds);
    Barndorff-Nielsen 1986, doi:10.1093/biomet/73.2.307 (mean of the signed root).
    """
    best = point(question.problem, question.metric, theta)
    ends, found = _ends(question, best)
    again = np.flatnonzero(found.deviance < best.deviance - _BETTER * question.scale)
    if again.size:
        mended, _ = _ends(question.take(again), found.take(again))
        for end, part in zip(ends, mended, strict=True):
            end[again] = part
    return ends[0], ends[1]


def _ends(question: Question, best: Point) -> tuple[list[FloatArray], Point]:
    """Both ends (v,), and the best points, some of which may have been found on the way."""
    searches = [_Search(question, side, limit, best) for side, limit in zip((-1, 1), question.value_range, strict=True)]
    wanted: list[FloatArray] = [question.threshold, question.threshold]
    ratios: list[FloatArray] = [np.ones(best.value.shape), np.ones(best.value.shape)]
    asked = [np.ones(best.value.shape, dtype=bool)] * 2
    ahead, bent = question.ahead, np.abs(question.ahead) > _FAR_AHEAD
    for turn in range(_PASSES + 1):
        for search, root in zip(searches, wanted, strict=True):
            search.cross(root)
        if turn == _PASSES:
            break
        nearest = [search.nearest(root) for search, root in zip(searches, wanted, strict=True)]
        bounds = [_distances(question, at) for at in nearest]
        if turn == 0:
            ahead = np.where(is_near(bounds[0]) | is_near(bounds[1]) | bent, 0.0, question.ahead)
        for ratio, again, at, distances in zip(ratios, asked, nearest, bounds, strict=True):
            part = np.flatnonzero(again & (is_near(distances) | bent))
            ratio[again] = 1.0
            if part.size:
                ratio[part] = _ratio(question.take(part), at.take(part), best.take(part), distances[:, part])
        sides = zip(ratios, (-1, 1), strict=True)
        sought: list[FloatArray] = [question.threshold * ratio - side * ahead for ratio, side in sides]
        asked = [np.abs(a - b) > _MOVED for a, b in zip(sought, wanted, strict=True)]
        wanted = sought
    ends = [search.crossing(root) for search, root in zip(searches, wanted, strict=True)]
    return ends, Point.where(searches[1].best.deviance < searches[0].best.deviance, searches[1].best, searches[0].best)


class _Search:
    """Points inside and outside of one end of the interval, drawn together."""

    def __init__(self, question: Question, side: int, limit: float, best: Point) -> None:
        self.question, self.side, self.limit = question, side, limit
        self.start, self.best, self.inside = best, best, best
        nothing = np.full(best.value.shape, np.nan)
        self.outside = Point(np.broadcast_to(nothing, best.theta.shape).copy(), nothing, nothing.copy())
        self.at_limit = best.value == limit
        self.width = np.full(best.value.shape, _WIDE)
        self.closed = ~np.isfinite(best.deviance) | ~np.isfinite(best.value) | (best.value == limit)

    def root(self, at: Point) -> FloatArray:
        """Root of the ratio to the best."""
        return np.sqrt(np.maximum(at.deviance - self.best.deviance, 0.0) / self.question.scale)

    def cross(self, wanted: FloatArray) -> None:
        """Draw the points together about a root of the ratio (v,)."""
        self._arrange(wanted)
        for _ in range(_ROUNDS):
            active = np.flatnonzero(~self._settled(wanted))
            if not active.size:
                return
            target = self._target(wanted)[active]
            before = self.inside.take(active)
            part = self.question.take(active)
            width = self.width[active] * np.abs(target - before.value)
            found = profile(part.problem, part.metric, before, target, width)
            self._put(active, found, target, wanted)

    def nearest(self, wanted: FloatArray) -> Point:
        """Of both points the one nearer to the end."""
        inner, outer = wanted - self.root(self.inside), self.root(self.outside) - wanted
        return Point.where(outer < inner, self.outside, self.inside)

    def crossing(self, wanted: FloatArray) -> FloatArray:
        """The end (v,)."""
        inner, outer = self.root(self.inside), self.root(self.outside)
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.clip((wanted - inner) / (outer - inner), 0.0, 1.0)
            between = self.inside.value + part * (self.outside.value - self.inside.value)
        return np.where(np.isfinite(between), between, np.where(self.at_limit, self.limit, self.inside.value))

    def _arrange(self, wanted: FloatArray) -> None:
        """Move points to the side on which another threshold puts them."""
        far = self.root(self.inside) > wanted
        self.outside = Point.where(far, self.inside, self.outside)
        self.inside = Point.where(far, self.start, self.inside)
        near = self.root(self.outside) <= wanted
        self.inside = Point.where(near, self.outside, self.inside)
        self.outside = self.outside.without(near)
        self.closed &= ~far
        self.at_limit &= ~far
        self.width = np.full(far.shape, _WIDE)

    def _settled(self, wanted: FloatArray) -> BoolArray:
        inner, outer = self.root(self.inside), self.root(self.outside)
        with np.errstate(invalid="ignore"):
            narrow = (outer - inner < _CLOSE) | (outer - wanted < _SETTLED)
            there = (wanted - inner < _SETTLED) & np.isfinite(outer)
        return np.asarray(self.closed | narrow | there | ~np.isfinite(wanted))

    def _target(self, wanted: FloatArray) -> FloatArray:
        inner, outer = self.root(self.inside), self.root(self.outside)
        gone = np.abs(self.inside.value - self.start.value)
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.clip((wanted - inner) / (outer - inner), 0.1, 0.9)
            between = self.inside.value + part * (self.outside.value - self.inside.value)
            usual = self.question.std * wanted
            flat = np.where(gone > 0, np.inf, usual)
            straight = np.where(inner > _SETTLED, gone * (wanted + _SETTLED - inner) / inner, flat)
            onward = self.inside.value + self.side * np.minimum(straight, _FARTHEST * np.maximum(gone, usual))
        target = np.where(np.isfinite(between), between, onward)
        return np.minimum(target, self.limit) if self.side > 0 else np.maximum(target, self.limit)

    def _put(self, active: IntArray, found: Point, target: FloatArray, wanted: FloatArray) -> None:
        """Sort what was found in."""
        scale, before = self.question.scale[active], self.inside.value[active]
        usable = np.isfinite(found.deviance) & np.isfinite(found.value)
        lower = usable & (found.deviance < self.best.deviance[active] - _BETTER * scale)
        self.best = self.best.put(active, found, lower)
        moved = self.side * (found.value - before)
        ahead = usable & (moved > 0)
        root = np.sqrt(np.maximum(found.deviance - self.best.deviance[active], 0.0) / scale)
        outside = ahead & (root > wanted[active])
        self.outside = self.outside.put(active, found, outside)
        self.inside = self.inside.put(active, found, ahead & ~outside)
        stopped = ~outside & np.isnan(self.outside.value[active])
        stopped &= ~usable | (moved < _REACHED * np.abs(target - before))
        left, whole = np.abs(found.value - self.limit), np.abs(self.start.value[active] - self.limit)
        ended = ahead & ~outside & np.isfinite(self.limit) & (left <= _THERE * whole)
        self.closed[active] |= (stopped & (self.width[active] <= _TIGHT)) | ended
        self.at_limit[active] |= ended
        self.width[active] = np.where(stopped, self.width[active] * 0.1, self.width[active])


def _distances(question: Question, at: Point) -> FloatArray:
    """Distances (2 f, v) of bounds from points; far where a point has no value."""
    result = np.full((2 * int(question.problem.free.sum()), at.value.size), NEAR)
    usable = np.flatnonzero(np.isfinite(at.value) & np.isfinite(at.deviance))
    if usable.size:
        part = question.take(usable)
        result[:, usable] = bound_distances(part.problem, part.metric, at.theta[:, usable], part.scale)
    return result


def _ratio(question: Question, at: Point, best: Point, distances: FloatArray) -> FloatArray:
    """What the threshold (v,) is multiplied with: less than 1 near bounds, as a rule."""
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(at.value - best.value) / np.sqrt((at.deviance - best.deviance) / question.scale)
    error = np.where(np.isfinite(error) & (error > 0), error, question.std)
    truth = Truth(question.problem, question.metric, at, error)
    alike = np.concatenate([distances, np.where(is_near(distances), 0.0, question.ahead / _FAR_AHEAD)[None]])
    ratio = simulated_ratio(truth, best.theta, question.scale, alike, question.tail)
    return np.sqrt(np.maximum(ratio, _LEAST))
