"""Parameters of a signal model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """A quantity that a model estimates or is given.

    Parameters
    ----------
    name : str
        Physical symbol, such as ``R1``.
    unit : str
        Key of `qcord.core.units.UNITS`.
    bounds : tuple of float
        Range that the estimate may take.
    start : float
        Where a fit begins if the data give no better start; for a given parameter, its default.
    description : str
        What it is, in a few words.
    """

    name: str
    unit: str
    bounds: tuple[float, float]
    start: float
    description: str = ""
