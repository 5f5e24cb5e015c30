"""Skew and heavy tails of healthy values: the sinh-arcsinh distribution.

References
----------
Jones and Pewsey 2009, doi:10.1093/biomet/asp053.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from qcord.core.arrays import FloatArray

FEWEST = 60
"""People from which on a shape is looked for; fewer cannot show one."""

GAIN = 6.0
"""Gain in twice the log-likelihood, beyond two for each parameter more, from which on the data ask for a shape."""

_FARTHEST = 6.0
"""Spreads from the median beyond which a departure counts as one there: what is farther is a failure, not a person."""

_MANY = 2_000
_LOG_TWO_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Shape:
    """Distribution of departures in units of the spread of people.

    Parameters
    ----------
    middle, width : float
        Place and scale.
    skew, tail : float
        0 and 1 for a normal distribution; a positive skew has a long right tail, a tail below 1 is heavy.
    """

    middle: float = 0.0
    width: float = 1.0
    skew: float = 0.0
    tail: float = 1.0

    @property
    def normal(self) -> bool:
        """Whether it is the normal distribution."""
        return self == NORMAL

    @property
    def half_width(self) -> float:
        """Half the range of the middle 68 %."""
        low, high = self.departure(np.array([-1.0, 1.0]))
        return float(high - low) / 2

    def score(self, departure: FloatArray) -> FloatArray:
        """Standard normal number of the same rank."""
        return np.asarray(np.sinh(self.tail * np.arcsinh((departure - self.middle) / self.width) - self.skew))

    def departure(self, score: FloatArray) -> FloatArray:
        """Inverse of `score`."""
        return np.asarray(self.middle + self.width * np.sinh((np.arcsinh(score) + self.skew) / self.tail))

    def log_density(self, departure: FloatArray) -> FloatArray:
        """Logarithm of the density."""
        x = (departure - self.middle) / self.width
        s = self.score(departure)
        slope = self.tail * np.sqrt((1 + s * s) / (1 + x * x)) / self.width
        return np.asarray(np.log(slope) - (s * s + _LOG_TWO_PI) / 2)


NORMAL = Shape()
"""The normal distribution."""


def fit_shape(departures: FloatArray) -> Shape:
    """Shape of departures, normal unless they ask for another one.

    Parameters
    ----------
    departures : (n,) array
        Values less expected ones, in units of the spread of people.
    """
    x = departures[np.isfinite(departures)]
    if len(x) < FEWEST:
        return NORMAL
    middle = np.median(x)
    reach = _FARTHEST * np.median(np.abs(x - middle)) / 0.6745
    x = np.clip(x, middle - reach, middle + reach)

    # many departures are stood for by as many of their quantiles as tell a shape
    share = max(1.0, len(x) / _MANY)
    if share > 1:
        x = np.quantile(x, (np.arange(_MANY) + 0.5) / _MANY)

    def cost(p: FloatArray) -> float:
        return float(-share * _of(p).log_density(x).sum() + (p[2] / 0.5) ** 2 / 2 + (p[3] / 0.5) ** 2 / 2)

    def plain_cost(p: FloatArray) -> float:
        return cost(np.array([p[0], p[1], 0.0, 0.0]))

    plain = optimize.minimize(plain_cost, np.zeros(2), method="BFGS")
    full = optimize.minimize(cost, np.array([*plain.x, 0.0, 0.0]), method="BFGS")
    return _of(full.x) if 2 * (plain.fun - full.fun) > GAIN + 4 else NORMAL


def _of(p: FloatArray) -> Shape:
    middle, log_width, skew, log_tail = (float(v) for v in np.clip(p, [-3, -3, -2, -1.2], [3, 3, 2, 0.7]))
    return Shape(middle, float(np.exp(log_width)), skew, float(np.exp(log_tail)))


def weights(shape: Shape, departures: FloatArray) -> FloatArray:
    """What each departure counts in a least-squares fit that stands for the likelihood of a heavy-tailed shape.

    The slope of the log density over that of the normal one, at most 1.
    """
    if shape.tail >= 1:
        return np.ones_like(departures)
    h = 1e-4
    x = departures - shape.middle
    far = np.where(np.abs(x) < 1e-3, 1e-3, x) + shape.middle
    slope = (shape.log_density(far + h) - shape.log_density(far - h)) / (2 * h)
    centre = (shape.log_density(np.array([shape.middle + 1e-2])) - shape.log_density(np.array([shape.middle])))[0]
    bend = max(-2 * centre / 1e-4, 1e-6)
    return np.asarray(np.clip(np.asarray(-slope / (far - shape.middle)) / bend, 1e-4, 1.0))


_NODES, _PARTS = special.roots_hermitenorm(21)
_PARTS = _PARTS / _PARTS.sum()


def blurred_score(shape: Shape, departure: FloatArray, blur: FloatArray) -> FloatArray:
    """Standard normal number of the rank of a departure that also holds normal noise.

    Parameters
    ----------
    shape : Shape
        Of the departure itself.
    departure : (n,) array
        In units of the spread of people.
    blur : (n,) array
        Standard deviation of the noise, same unit.
    """
    if shape.normal:
        return np.asarray(departure / np.sqrt(1 + blur * blur))
    inner = shape.score(departure[:, None] - blur[:, None] * _NODES)
    below, above = special.ndtr(inner) @ _PARTS, special.ndtr(-inner) @ _PARTS
    tiny = 1e-300
    lower = np.asarray(special.ndtri(np.maximum(below, tiny)))
    return np.asarray(np.where(below < above, lower, -special.ndtri(np.maximum(above, tiny))))
