"""Which groups of people are large and mixed enough that their sums say nothing about one of them.

A group leaves the hospital as sums over its people: of products of the columns of the design (age, sex, ...), of
columns and values, of squared values. For a person whose age and sex are known, all that these sums leave of the value
is an interval (`spread`): the values that fit the sums form a sphere of dimension n - p - 1 about the fitted ones, of
radius root RSS. The rules are that this interval is as wide as the norm itself, that no group that the sums contain
(men, women) is small, and that exact sums of rounded numbers cannot be solved for whole numbers.
"""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.errors import QcordError
from qcord.normative.statistics import Rows
from qcord.normative.terms import Terms

CELL_SIZE = 10
"""Fewest people of a group, unless asked for otherwise."""

FLOOR = 5
"""Fewest people of a group that can be asked for, and fewest men or women within one."""

MARGIN = 1.25
"""Unknown numbers, or their bits, over those that are exported."""

SPREAD = 2.0
"""Half-width of what the sums leave open of the value of each person, in standard deviations about the norm."""

DOMINANCE = 2 / 3
"""Largest part of the squared residuals that one person may hold."""

_DOUBLE_BITS = 50.0  # of the 53 of a number, what remains after the errors of adding up
_WHOLE = 1e-6


class TooRevealing(QcordError):
    """A group, or the difference of two, would show values of single people."""


@dataclass(frozen=True)
class Limits:
    """Rules of one export.

    Parameters
    ----------
    cell_size : int
        Fewest people of a group.
    small : bool
        Whether fewer than 10, down to 5, were asked for in so many words.

    Raises
    ------
    TooRevealing
        If the size is below what is allowed.
    """

    cell_size: int = CELL_SIZE
    small: bool = False

    def __post_init__(self) -> None:
        if self.cell_size < FLOOR:
            raise TooRevealing(f"A smallest group of {self.cell_size} people shows single ones; {FLOOR} is the least.")
        if self.cell_size < CELL_SIZE and not self.small:
            raise TooRevealing(
                f"A smallest group of {self.cell_size} people is below {CELL_SIZE}; allow it with small=True (--small) "
                "if those who answer for the data agree."
            )


def reason_to_withhold(group: Rows, terms: Terms, limits: Limits) -> str:
    """Why the exact sums of a group must not leave; empty if they may.

    Parameters
    ----------
    group : Rows
        People of one site, a row each.
    terms : Terms
        Design.
    limits : Limits
        Rules.

    Returns
    -------
    str
        Names counts and rules, never a value.
    """
    return (
        too_few(len(group.value), limits)
        or _few_of_one_sex(group.design, terms)
        or _too_fine(group.design, terms)
        or _determined(group.design, group.value)
        or _rounded(group, terms)
    )


def too_few(n: int, limits: Limits) -> str:
    """Why a group of n people must not leave by its size alone; empty if it may."""
    return f"{n} people, fewer than {limits.cell_size}" if n < limits.cell_size else ""


def spread(design: FloatArray, value: FloatArray) -> FloatArray:
    """Half-width (n,) of all values that each person can have, given the exact sums and everybody's age and sex.

    The fitted value of person i is known; the residuals are any vector of length root RSS that is orthogonal to the
    design, whose i-th component is at most root (RSS (1 - h_i)), with h the leverage. That bound is attained if at
    least two more people than columns are left.

    Parameters
    ----------
    design : (n, p) array
        Columns.
    value : (n,) array
        Values.
    """
    basis = _basis(design)
    leverage = (basis**2).sum(axis=1)
    residual = value - basis @ (basis.T @ value)
    if len(value) - basis.shape[1] < 2:
        return np.zeros_like(value)
    return np.asarray(np.sqrt((residual @ residual) * np.clip(1 - leverage, 0, 1)))


def alone(design: FloatArray, value: FloatArray) -> BoolArray:
    """Whose value (n,) the sums leave open by less than `SPREAD` (see `spread`): no other is of that age, say."""
    basis = _basis(design)
    left = max(len(value) - basis.shape[1], 0)
    return np.asarray(left * (1 - (basis**2).sum(axis=1)) < SPREAD**2)


def design_numbers(terms: Terms) -> int:
    """Different numbers among the sums of products of columns, less the number of people."""
    p = len(terms.names)
    return p * (p + 1) // 2 - 1 - int(terms.sex)  # the square of the column male is 1/4 for all


def _few_of_one_sex(design: FloatArray, terms: Terms) -> str:
    """Men and women are groups of their own: sums over them follow from those of the columns one and male."""
    if not terms.sex:
        return ""
    men = int((design[:, terms.names.index("male")] > 0).sum())
    fewer, least = min(men, len(design) - men), max(FLOOR, len(terms.names))
    return f"{fewer} of one sex, fewer than {least}" if 0 < fewer < least else ""


def _too_fine(design: FloatArray, terms: Terms) -> str:
    """Ages finer than a year (dates of birth) need more people than numbers; ages in years are as in any paper."""
    fine = [
        name for name, whole in (("age", _years(design, terms)), ("height", _centimetres(design, terms))) if not whole
    ]
    n, exported = len(design), design_numbers(terms)
    if not fine or n * len(fine) >= MARGIN * exported:
        return ""
    return (
        f"{n} people, but {exported} exported sums of their {' and '.join(fine)}, finer than years or centimetres; "
        "round them, or take fewer knots of age"
    )


def _determined(design: FloatArray, value: FloatArray) -> str:
    """Sums that leave too narrow an interval for the value of someone, or one person who holds most of a sum."""
    basis = _basis(design)
    residual = value - basis @ (basis.T @ value)
    total = float(residual @ residual)
    if total <= len(value) * (1e-9 * float(np.abs(value).max(initial=0))) ** 2:
        return "all values follow from age and sex"
    if alone(design, value).any():
        return (
            f"{len(value)} people for {basis.shape[1]} columns leave someone's value open by less than {SPREAD:g} "
            "standard deviations; take fewer knots of age, or leave those out who are alone at their age"
        )
    if float((residual**2).max()) > DOMINANCE * total:
        return "one person holds more than two thirds of the squared residuals"
    return ""


def _rounded(group: Rows, terms: Terms) -> str:
    """Exact sums of rounded values are a system for whole numbers, which lattice reduction may solve."""
    value, n = group.value, len(group.value)
    grid = step(value)
    deviation = float(value.std())
    bits = max(0.0, float(np.log2(max(4 * deviation / grid, 1))))
    exported = sum(_bits_of_sums(group.design, terms, deviation, grid))
    if n * bits >= MARGIN * exported:
        return ""
    return (
        f"values in steps of {grid:.2g} hold {bits:.1f} bits for each of {n} people, less than the {exported:.0f} bits "
        "of their exact sums; give values with all digits, more people, or add noise (epsilon)"
    )


def step(value: FloatArray) -> float:
    """Grid that all values lie on: their last decimal, a common difference, or the precision of the numbers."""
    top = float(np.abs(value).max(initial=0))
    if top == 0:
        return 1.0
    first = int(np.floor(np.log10(top)))
    grids = [10.0 ** (first - k) for k in range(12)]
    differences = np.diff(np.unique(value))
    if len(differences):
        grids.append(float(differences.min()))
    fits = [g for g in grids if g > 1e-12 * top and _on_grid(value - value.min() if g == grids[-1] else value, g)]
    if fits:
        return max(fits)
    single = bool((value.astype(np.float32) == value).all())
    return top * 2.0 ** (-24 if single else -52)


def _on_grid(value: FloatArray, grid: float) -> bool:
    number = value / grid
    return bool((np.abs(number - np.rint(number)) < 1e-3).all())


def _bits_of_sums(design: FloatArray, terms: Terms, deviation: float, grid: float) -> list[float]:
    """Bits that each exported sum of values tells."""
    grids = {"one": 1.0, "male": 0.5}
    grids |= {"age": 0.05} if _years(design, terms) else {}
    grids |= {"height": 0.1} if _centimetres(design, terms) else {}
    bits = []
    for name, column in zip(terms.names, design.T, strict=True):
        reach = 4 * deviation * float(np.sqrt((column**2).sum()))
        bits.append(np.log2(1 + reach / (grid * grids[name])) if name in grids else np.inf)
    bits.append(np.log2(1 + 4 * deviation**2 * np.sqrt(len(design)) / grid**2))
    return [min(_DOUBLE_BITS, float(b)) for b in bits]


def _years(design: FloatArray, terms: Terms) -> bool:
    return _whole(design[:, terms.names.index("age")] * 20)


def _centimetres(design: FloatArray, terms: Terms) -> bool:
    return not terms.height or _whole(design[:, terms.names.index("height")] * 10)


def _whole(number: FloatArray) -> bool:
    flags: BoolArray = np.abs(number - np.rint(number)) < _WHOLE
    return bool(flags.all())


def _basis(design: FloatArray) -> FloatArray:
    """Orthonormal columns that span the design."""
    left, values, _ = np.linalg.svd(design, full_matrices=False)
    return np.asarray(left[:, values > 1e-10 * values[0]])
