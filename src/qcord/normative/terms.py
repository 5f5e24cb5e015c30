"""The covariates of a norm as columns of a design: sex, a smooth function of age, body height."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, MissingMetadata

CENTRE, UNIT = 50.0, 20.0
"""Age [years] that the design is centred on, and the number of years that count one."""

HEIGHT, HEIGHT_UNIT = 1.70, 0.10
"""Height [m] that the design is centred on, and the one that counts one."""

OLDEST = 120.0
_TALLEST = 2.6


@dataclass(frozen=True)
class Terms:
    """Which columns a design has; equal wherever statistics are to be merged.

    Parameters
    ----------
    knots : tuple of float
        Ages [years] between which the effect of age is cubic; it is straight beyond the outer ones. Fewer than three
        leave a straight line.
    sex, height : bool
        Whether sex and body height [m] have an effect.
    """

    knots: tuple[float, ...] = (20.0, 35.0, 50.0, 65.0, 80.0)
    sex: bool = True
    height: bool = False

    @property
    def bends(self) -> int:
        """Columns of the smooth part."""
        return max(0, len(self.knots) - 2)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the design."""
        sex = ("male",) if self.sex else ()
        height = ("height",) if self.height else ()
        return ("one", *sex, "age", *(f"age {k + 1}" for k in range(self.bends)), *height)

    def design(self, age: FloatArray, male: FloatArray, height: FloatArray | None = None) -> FloatArray:
        """Columns (n, p).

        Parameters
        ----------
        age : (n,) array
            Age [years].
        male : (n,) array
            1 for men, 0 for women; it enters as -.5 or .5, so that the rest is the mean of both.
        height : (n,) array, optional
            Height [m].

        Raises
        ------
        MissingMetadata
            If height is a term and there is none.
        """
        columns = [np.ones_like(age)]
        if self.sex:
            columns.append(male - 0.5)
        columns.append((age - CENTRE) / UNIT)
        if self.bends:
            columns.extend(smooth(age, self.knots).T)
        if self.height:
            if height is None:
                raise MissingMetadata("The norm takes body height, and none is given; add the column height in m.")
            columns.append((height - HEIGHT) / HEIGHT_UNIT)
        return np.stack(columns, axis=1)

    def of(self, people: pd.DataFrame) -> FloatArray:
        """Design (n, p) of a table with age [years], sex (M or F) and, if it is a term, height [m].

        Raises
        ------
        MissingMetadata, ImplausibleValue
            If a column is absent, empty or beyond what people can be.
        """
        age = covariate(people, "age", 0.0, OLDEST, "years")
        male = np.full(len(people), 0.5)
        if self.sex:
            sex = require(people, "sex")
            if not sex.isin(["M", "F"]).all():
                found = next(str(s) for s in sex if s not in ("M", "F"))
                raise ImplausibleValue(f"Sex is {found!r}, expected M or F; correct the column sex.")
            male = (sex == "M").to_numpy(dtype=float)
        height = covariate(people, "height", 0.4, _TALLEST, "m") if self.height else None
        return self.design(age, male, height)


def require(people: pd.DataFrame, name: str) -> "pd.Series[str]":
    """A column that must be there.

    Raises
    ------
    MissingMetadata
        If it is not.
    """
    if name not in people:
        raise MissingMetadata(f"The table has no column {name}, which norms need; add it.")
    return people[name]


def covariate(people: pd.DataFrame, name: str, low: float, high: float, unit: str) -> FloatArray:
    """Numbers of a column, within what is possible.

    Raises
    ------
    MissingMetadata, ImplausibleValue
        If the column or a value is absent, or a value impossible.
    """
    values = np.asarray(pd.to_numeric(require(people, name), errors="coerce"), dtype=float)
    if not np.isfinite(values).all():
        missing = int((~np.isfinite(values)).sum())
        raise MissingMetadata(f"{missing} of {len(values)} rows have no {name}; norms need it in {unit}.")
    if values.size and (values.min() < low or values.max() > high):
        worst = values.max() if values.max() > high else values.min()
        raise ImplausibleValue(f"The {name} {worst:g} {unit} is outside {low:g} to {high:g}; correct it.")
    return values


def smooth(age: FloatArray, knots: tuple[float, ...]) -> FloatArray:
    """Columns (n, k - 2) by which a natural cubic spline departs from a straight line.

    With independent coefficients of equal variance the departures are those of a smoothing spline: probable in
    proportion to how little they bend. Their variance between the outer knots is one, on average.

    References
    ----------
    Green and Silverman 1994, ISBN 978-0412300400, chapter 2 (values, second derivatives and roughness of a natural
    cubic spline).
    """
    at, transform = _basis(knots)
    return _natural(age, at) @ transform


@lru_cache(maxsize=16)
def _basis(knots: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    at = np.asarray(knots, dtype=float)
    _, roughness = _curvature(at)
    values, vectors = np.linalg.eigh(roughness)
    vectors = vectors * np.sign(vectors[0] + 1e-12)
    transform = vectors[:, 2:] / np.sqrt(values[2:])
    inner = _natural(np.linspace(at[0], at[-1], 201), at) @ transform
    return at, transform / np.sqrt((inner**2).sum(axis=1).mean())


def _curvature(at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From values at the knots to second derivatives at the inner ones, and the roughness of the values."""
    h = np.diff(at)
    n = len(at)
    q = np.zeros((n, n - 2))
    r = np.zeros((n - 2, n - 2))
    for j in range(n - 2):
        q[j, j], q[j + 1, j], q[j + 2, j] = 1 / h[j], -1 / h[j] - 1 / h[j + 1], 1 / h[j + 1]
        r[j, j] = (h[j] + h[j + 1]) / 3
        if j:
            r[j, j - 1] = r[j - 1, j] = h[j] / 6
    bend = np.linalg.solve(r, q.T)
    return bend, q @ bend


def _natural(x: FloatArray, at: FloatArray) -> FloatArray:
    """Natural cubic spline (n, k) at x for unit values at each knot; straight beyond the outer ones."""
    bend = np.zeros((len(at), len(at)))
    bend[1:-1] = _curvature(at)[0]
    unit = np.eye(len(at))
    inside = np.clip(x, at[0], at[-1])
    j = np.clip(np.searchsorted(at, inside, side="right") - 1, 0, len(at) - 2)
    h = (at[j + 1] - at[j])[:, None]
    right = (inside - at[j])[:, None] / h
    left = 1 - right
    result = left * unit[j] + right * unit[j + 1]
    result += h**2 / 6 * ((left**3 - left) * bend[j] + (right**3 - right) * bend[j + 1])
    first = (unit[1] - unit[0]) / (at[1] - at[0]) - (at[1] - at[0]) / 6 * bend[1]
    last = (unit[-1] - unit[-2]) / (at[-1] - at[-2]) + (at[-1] - at[-2]) / 6 * bend[-2]
    below, above = np.minimum(x - at[0], 0)[:, None], np.maximum(x - at[-1], 0)[:, None]
    return np.asarray(result + below * first + above * last)
