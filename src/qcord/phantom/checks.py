"""Checks of what a phantom is asked to be."""

from collections.abc import Iterable, Mapping

from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.models.registry import MODELS
from qcord.phantom.tissue import METRICS


def require_name(name: str, known: Iterable[str], what: str) -> None:
    """Raise `UnknownName` unless a name is one of those known."""
    names = tuple(known)
    if name not in names:
        article = "an" if what[0] in "aeiou" else "a"
        raise UnknownName(f"'{name}' is not {article} {what} of the phantom; expected one of {', '.join(names)}.")


def require_range(value: float, low: float, high: float, what: str) -> None:
    """Raise `ImplausibleValue` unless a value lies within limits."""
    if not low <= value <= high:
        raise ImplausibleValue(f"{what} is {value:g}, expected {low:g} to {high:g}.")


def require_factors(factors: Mapping[str, float]) -> None:
    """Check factors of metrics: those of the tissue table, and parameters of registered models."""
    known = (*METRICS, *dict.fromkeys(p.name for m in MODELS.values() for p in m.free))
    for metric, factor in factors.items():
        require_name(metric, known, "metric")
        require_range(factor, 0.0, 10.0, f"The factor of {metric}")
