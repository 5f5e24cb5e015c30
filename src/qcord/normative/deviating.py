"""Sites that deviate: a share of sites whose shift comes from a wider distribution than that of the others.

    u ~ (1 - share) N(0, tau^2) + share N(0, tau^2 + width^2)

A slip of protocol, another pulse or other software moves all values of a site, however alike the others are. A normal
distribution of shifts then either takes such sites for a wide spread of all, or has none to spare for the next one. All
that is needed is the mean residual of each site and its variance, so that sums over people suffice.

References
----------
Tukey 1960, in Contributions to Probability and Statistics, Stanford University Press, pages 448-485 (contaminated
normal distribution); Lange et al. 1989, doi:10.2307/2290063 (heavy tails in regression by expected precisions).
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from qcord.core.arrays import BoolArray, FloatArray, IntArray

FEWEST = 10
"""Sites from which on a share is looked for: of fewer, one that deviates is not told from a wide spread."""

GAIN = 2.0
"""Twice the logarithm of the Bayes factor from which on there is a share: evidence from there on is positive (Kass and
Raftery 1995, doi:10.1080/01621459.1995.10476572)."""

FAR = 3.0
"""Spreads from the median site of a manufacturer that one site must lie for a share to be looked for."""

_OTHERS = 8.0
"""Sites that do not deviate, beside those measured: the share has a beta(1, 9) prior, a tenth on average. Assumed."""

_WIDTH = (float(np.log(3.0)), 1.0)
"""Mean and standard deviation of the logarithm of the width over the spread of people. Assumed."""

_STARTS = ((-2.0, 1.0, -0.7), (-3.0, 2.0, -0.3))
_REACH = 6.0
_SMALLEST = 1e-4


@dataclass(frozen=True)
class Deviating:
    """How many sites deviate and how far.

    Parameters
    ----------
    share : float
        Part of all sites.
    width : float
        Standard deviation of what their shift has beyond that of others, over the spread of people.
    doubt : float
        Variance of the logarithm of the width.
    """

    share: float = 0.0
    width: float = 0.0
    doubt: float = 0.0

    @property
    def none(self) -> bool:
        """Whether shifts of sites are normal."""
        return self.share == 0.0


NONE = Deviating()
"""No site does."""


def from_median(residual: FloatArray, maker: IntArray) -> tuple[FloatArray, BoolArray, float]:
    """Residuals from the median site of each manufacturer, which a site that deviates does not move.

    Parameters
    ----------
    residual : (s,) array
        Mean residual of each site, over the spread of people.
    maker : (s,) array of int
        Number of its manufacturer.

    Returns
    -------
    residual : (s,) array
        From the median.
    enough : (s,) array of bool
        Whether the manufacturer has the three sites that make a median.
    tau2 : float
        Variance of most of these.
    """
    result, enough = residual.copy(), np.zeros(len(residual), dtype=bool)
    for k in range(int(maker.max()) + 1):
        mine = maker == k
        result[mine] -= np.median(residual[mine])
        enough[mine] = mine.sum() > 2
    middle = float(np.median(np.abs(result[enough]))) / 0.6745 if enough.any() else 0.0
    return result, enough, max(middle**2, _SMALLEST)


def fit_deviating(
    residual: FloatArray, variance: FloatArray, tau2: FloatArray | float, near: Deviating = NONE
) -> Deviating:
    """Share and width from mean residuals of sites.

    Parameters
    ----------
    residual : (s,) array
        Mean of the people of each site less what is expected of its manufacturer, over the spread of people.
    variance : (s,) array
        Its variance by the number of people.
    tau2 : (s,) array or float
        Variance of shifts of sites that do not deviate; a common factor of it is estimated beside the share.
    near : Deviating
        Where to start from.
    """
    square = residual**2

    def core(log_scale: float) -> FloatArray:
        return np.asarray(tau2 * np.exp(2 * np.clip(log_scale, -_REACH, _REACH)) + variance)

    def cost(x: FloatArray) -> float:
        logit, log_width, log_scale = np.clip(x, -_REACH, _REACH)
        share, narrow = float(special.expit(logit)), core(log_scale)
        wide = narrow + np.exp(2 * log_width)
        likelihood = np.logaddexp(
            np.log1p(-share) + log_density(square, narrow), np.log(share) + log_density(square, wide)
        )
        return prior_cost(share, log_width) + float(log_scale**2 / 2 - likelihood.sum())

    starts = _STARTS if near.none else ((float(special.logit(near.share)), float(np.log(near.width)), 0.0),)
    fits = [optimize.minimize(cost, np.array(start), method="BFGS", options={"gtol": 1e-4}) for start in starts]
    best = min(fits, key=lambda fit: float(fit.fun))
    logit, log_width = (float(v) for v in np.clip(best.x[:2], -_REACH, _REACH))
    return Deviating(float(special.expit(logit)), float(np.exp(log_width)))


def predictive(deviating: Deviating, chance: FloatArray) -> Deviating:
    """Share and width for a site that is not known yet, from the probabilities (s,) that the known ones deviate.

    The share is the mean of its posterior distribution; the logarithm of the width is known by its prior and by two
    for each site that deviates, as the logarithm of any standard deviation is.
    """
    count = float(chance.sum())
    share = (count + 1.0) / (len(chance) + 2.0 + _OTHERS)
    return Deviating(share, deviating.width, 1 / (1 / _WIDTH[1] ** 2 + 2 * count))


def assumed(count: int) -> Deviating:
    """Share and width of which so many sites tell nothing, as none of them deviates: the prior, less the share."""
    return predictive(Deviating(width=float(np.exp(_WIDTH[0]))), np.zeros(count))


def prior_cost(share: float, log_width: float) -> float:
    """Negative log of the prior of share and width."""
    return float(-_OTHERS * np.log1p(-share) + ((log_width - _WIDTH[0]) / _WIDTH[1]) ** 2 / 2)


def choice_cost(deviating: Deviating, chosen: BoolArray) -> float:
    """Negative log of the probability that these sites deviate and the others do not, and of the prior."""
    k, n = int(chosen.sum()), len(chosen)
    cost = -k * np.log(deviating.share) - (n - k) * np.log1p(-deviating.share)
    return float(cost) + prior_cost(deviating.share, float(np.log(deviating.width)))


def membership(deviating: Deviating, residual: FloatArray, variance: FloatArray, *, within: float) -> FloatArray:
    """Probability (s,) that each site deviates.

    Parameters
    ----------
    deviating : Deviating
        Share and width.
    residual, variance : (s,) array
        Mean residual of each site, and its variance if it does not deviate.
    within : float
        Spread of people, in the unit of the residuals.
    """
    if deviating.none:
        return np.zeros(len(residual))
    wide = variance + (deviating.width * within) ** 2
    odds = special.logit(deviating.share) + log_density(residual**2, wide) - log_density(residual**2, variance)
    return np.asarray(special.expit(odds))


def log_density(square: FloatArray, variance: FloatArray) -> FloatArray:
    """Logarithm of the normal density of numbers whose squares are given."""
    return np.asarray(-(square / variance + np.log(2 * np.pi * variance)) / 2)
