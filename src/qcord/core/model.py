"""Signal models: one formula, from which simulation, bound, fit and errors follow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import UnknownName
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol

Signal = Callable[[AnyArray, Protocol, AnyArray], AnyArray]
Start = Callable[[FloatArray, Protocol, FloatArray], FloatArray]
Slope = Callable[[FloatArray, Protocol, FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Derived:
    """A value computed from the parameters of a model.

    Parameters
    ----------
    name : str
        Metric name in tables, such as ``FA``.
    unit : str
        Key of `qcord.core.units.UNITS`.
    formula : callable
        From parameters (..., p) to value (...). Analytic, so that the complex step gives its gradient,
        unless ``gradient`` is given.
    gradient : callable, optional
        From parameters (..., p) to (..., p).
    square : callable, optional
        From parameters (..., p) to the square (...) of a value that is a root, which noise may carry below zero: errors
        then follow from those of the square, whose differences have no end there. Analytic.
    """

    name: str
    unit: str
    formula: Callable[[AnyArray], AnyArray]
    gradient: Callable[[AnyArray], AnyArray] | None = None
    square: Callable[[AnyArray], AnyArray] | None = None


@dataclass(frozen=True)
class Typical:
    """What a model's parameters are in a tissue.

    Parameters
    ----------
    tissue : str
        Tissue and field strength, such as ``white matter, 3 T``.
    values : mapping of str to float
        Free parameter to value, in its unit; every free parameter of the model.
    source : str
        Where the values come from.
    trust : str
        ``verified`` (read in the source), ``computed`` (from public data) or ``assumed`` (plausible, not checked).
    """

    tissue: str
    values: Mapping[str, float]
    source: str
    trust: str


@dataclass(frozen=True)
class SignalModel:
    """A contrast.

    Parameters
    ----------
    name : str
        Name in commands and file names.
    free : tuple of Parameter
        What is estimated, in the order of the last axis of ``theta``.
    needs : tuple of str
        Protocol columns that `signal` reads.
    signal : callable
        ``signal(theta, protocol, given)``: theta (..., p), given (..., g), result (..., n). Analytic in
        theta: no absolute value, maximum or comparison on a parameter.
    references : tuple of str
        Authors, year, DOI.
    given : tuple of Parameter
        What must be known from elsewhere, such as the transmit field; ``start`` is its default.
    derived : tuple of Derived
        Values computed from the free parameters.
    start : callable, optional
        ``start(measured, protocol, given)``: first guess of theta (..., p) from measured signals (..., n);
        without it fits begin at the ``start`` of each parameter.
    title : str
        What the contrast is, in one line.
    example : callable, optional
        Makes a protocol of the kind in use for the cord that determines the model.
    typical : tuple of Typical
        Values in the cord; the first belongs to healthy white matter.
    coupled : bool
        Whether a measurement depends on other rows of the protocol (as echoes of one train do), so that rows
        cannot be computed one by one.
    slope : callable, optional
        ``slope(theta, protocol, given)``: signals (n, v) and their derivatives (p, n, v) for theta (v, p) and given
        (v, g), where that is much faster than a complex step for each parameter; `qcord.testing.check_model` compares.
    """

    name: str
    free: tuple[Parameter, ...]
    needs: tuple[str, ...]
    signal: Signal
    references: tuple[str, ...]
    given: tuple[Parameter, ...] = ()
    derived: tuple[Derived, ...] = ()
    start: Start | None = None
    title: str = ""
    example: Callable[[], Protocol] | None = None
    typical: tuple[Typical, ...] = ()
    coupled: bool = False
    slope: Slope | None = None

    @property
    def units(self) -> dict[str, str]:
        """Unit of each free and derived value, by name, in their order."""
        units = {parameter.name: parameter.unit for parameter in self.free}
        return units | {derived.name: derived.unit for derived in self.derived}

    def index(self, name: str) -> int:
        """Position of a free parameter.

        Raises
        ------
        UnknownName
            If the model has no such parameter.
        """
        names = [p.name for p in self.free]
        if name not in names:
            raise UnknownName(f"Model {self.name} has no parameter '{name}'; it has {', '.join(names)}.")
        return names.index(name)

    def given_index(self, name: str) -> int:
        """Position of a given parameter.

        Raises
        ------
        UnknownName
            If the model has no such given parameter.
        """
        names = [p.name for p in self.given]
        if name not in names:
            known = ", ".join(names) or "none"
            raise UnknownName(f"Model {self.name} has no given parameter '{name}'; it has {known}.")
        return names.index(name)

    def theta(self, values: Mapping[str, float]) -> FloatArray:
        """Array (p,) from values by name; a free parameter that is not named has its start.

        Raises
        ------
        UnknownName
            If the model has no such free parameter.
        """
        import numpy as np

        theta = np.array([p.start for p in self.free], dtype=float)
        for name, value in values.items():
            theta[self.index(name)] = value
        return theta

    def given_defaults(self) -> FloatArray:
        """Array (g,) of the default values of the given parameters."""
        import numpy as np

        return np.array([p.start for p in self.given], dtype=float)
