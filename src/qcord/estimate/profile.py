"""Likelihood of a value with all other parameters at their best: its profile."""

from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.model import Derived, SignalModel
from qcord.estimate.jacobian import gradient
from qcord.estimate.levenberg_marquardt import Line, Problem, limits, minimise

PRECISE = 1e-3
"""Decrease of the deviance, relative to that of a measurement, that is left: of a root of 1.96 some .0003."""


ROUNDS = 40
"""Steps after which what is left of the deviance is below .01 in nearly all fits of echo trains, the slowest."""


@dataclass(frozen=True, eq=False)
class Point:
    """Points of profiles: parameters (p, v), value and deviance (v,)."""

    theta: FloatArray
    value: FloatArray
    deviance: FloatArray

    def take(self, columns: IntArray) -> "Point":
        """Some of the voxels."""
        return Point(self.theta[:, columns], self.value[columns], self.deviance[columns])

    @staticmethod
    def where(condition: BoolArray, one: "Point", other: "Point") -> "Point":
        """One where a condition (v,) holds, the other elsewhere."""
        return Point(
            np.where(condition, one.theta, other.theta),
            np.where(condition, one.value, other.value),
            np.where(condition, one.deviance, other.deviance),
        )

    def put(self, columns: IntArray, other: "Point", chosen: BoolArray) -> "Point":
        """With the chosen of another's voxels at columns."""
        result = Point(self.theta.copy(), self.value.copy(), self.deviance.copy())
        result.theta[:, columns[chosen]] = other.theta[:, chosen]
        result.value[columns[chosen]] = other.value[chosen]
        result.deviance[columns[chosen]] = other.deviance[chosen]
        return result

    def without(self, chosen: BoolArray) -> "Point":
        """Without value or deviance where chosen (v,)."""
        return Point(self.theta, np.where(chosen, np.nan, self.value), np.where(chosen, np.nan, self.deviance))


@dataclass(frozen=True, eq=False)
class Pinned(Problem):
    """A problem with one measurement more: a value, said to be ``target`` (v,) within ``width`` (v,)."""

    metric: Derived
    target: FloatArray
    width: FloatArray

    def take(self, columns: IntArray) -> "Pinned":
        """Some of the voxels."""
        part = super().take(columns)
        assert isinstance(part, Pinned)
        return replace(part, target=self.target[columns], width=self.width[columns])

    def size(self, line: Line) -> FloatArray:
        """Never so exact that the pull would not count."""
        return np.zeros_like(line.cost)

    def linearise(self, theta: FloatArray) -> Line:
        """Cost and its quadratic form about theta (p, v), with that of the value."""
        line = super().linearise(theta)
        slope = np.where(self.free[:, None], gradient(self.metric, theta.T).T, 0.0)
        left = self.target - np.asarray(self.metric.formula(theta.T), dtype=float)
        weight = 1 / self.width**2
        return Line(
            np.concatenate([line.residual, left[None]]),
            np.concatenate([line.weights, weight[None]]),
            line.cost + weight * left**2,
            np.concatenate([line.slope, slope[:, None]], axis=1),
            line.pull + weight * left * slope,
            line.normal + weight * slope[:, None] * slope[None, :],
        )


def as_metric(model: SignalModel, name: str) -> Derived:
    """A free or derived value of a model as a function of its parameters; of a root, the square."""
    for derived in model.derived:
        if derived.name == name:
            return derived if derived.square is None else Derived(name, derived.unit, derived.square)
    k, size = model.index(name), len(model.free)

    def along(theta: FloatArray) -> FloatArray:
        return np.broadcast_to(np.eye(size)[k], theta.shape)

    return Derived(name, model.free[k].unit, lambda theta: theta[..., k], along)


def point(problem: Problem, metric: Derived, theta: FloatArray) -> Point:
    """Value and deviance at parameters (p, v)."""
    return Point(theta, np.asarray(metric.formula(theta.T), dtype=float), problem.deviance(theta))


def profile(problem: Problem, metric: Derived, start: Point, target: FloatArray, width: FloatArray) -> Point:
    """Best parameters where a value is near a target (v,).

    A pull of a width (v,) instead of a constraint: what it reaches is the best for the value that is reached, so that
    the pair of value and deviance lies on the profile; near the target, unless that is out of range. Where parameters
    end at a bound they are tried from their default as well.
    """
    pinned = Pinned(**problem.__dict__, metric=metric, target=target, width=width)
    theta, _ = minimise(pinned, start.theta, PRECISE, ROUNDS)
    model = problem.evaluator.model
    low, high = limits(model)
    edge = ((theta <= low) | (theta >= high)) & problem.free[:, None]
    again = np.flatnonzero(edge.any(axis=0))
    if again.size:
        part, here = pinned.take(again), theta[:, again]
        default = np.repeat(np.array([p.start for p in model.free])[:, None], again.size, axis=1)
        usual = default.copy()
        usual[0] = here[0]
        for other_start in (np.where(edge[:, again], default, here), usual):
            other, _ = minimise(part, other_start, PRECISE, ROUNDS)
            better = part.linearise(other).cost < part.linearise(here).cost
            here = np.where(better, other, here)
        theta[:, again] = here
    return point(problem, metric, theta)
