"""Signals and their derivatives for a block of voxels; the voxel axis comes last."""

from dataclasses import dataclass, field

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.model import SignalModel
from qcord.core.protocol import Protocol
from qcord.estimate.jacobian import STEP

_FEW_ROWS = 24
"""Measurements up to which they are computed one by one: each operation then runs over all voxels, where one over
few measurements would start anew at each voxel."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A model under a protocol.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    protocol : Protocol
        n measurements.
    """

    model: SignalModel
    protocol: Protocol
    rows: tuple[Protocol, ...] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.protocol)
        few = n <= _FEW_ROWS and not self.model.coupled
        rows = tuple(self.protocol.take([k]) for k in range(n)) if few and self.model.needs else ()
        object.__setattr__(self, "rows", rows)

    def signal(self, theta: AnyArray, given: FloatArray) -> AnyArray:
        """Signals (n, v) of parameters (p, v) and given parameters (g, v)."""
        values, known = theta.T, given.T
        if not self.rows:
            return np.ascontiguousarray(np.asarray(self.model.signal(values, self.protocol, known)).T)
        result = np.empty((len(self.rows), theta.shape[1]), dtype=theta.dtype)
        for k, row in enumerate(self.rows):
            result[k] = self.model.signal(values, row, known)[..., 0]
        return result

    def slope(self, theta: FloatArray, given: FloatArray, free: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Signals (n, v) and their derivatives (p, n, v): the model's own or by the complex step; 0 if not free."""
        if self.model.slope is not None:
            signals, slopes = self.model.slope(theta.T, self.protocol, given.T)
            slopes[~free] = 0
            return signals, slopes
        slope = np.zeros((len(theta), len(self.protocol), theta.shape[1]))
        signal: FloatArray | None = None
        for k in np.flatnonzero(free):
            moved = theta.astype(complex)
            moved[k] += 1j * STEP
            value = self.signal(moved, given)
            np.multiply(value.imag, 1 / STEP, out=slope[k])
            signal = np.ascontiguousarray(value.real) if signal is None else signal
        if signal is None:
            signal = np.asarray(self.signal(theta, given), dtype=float)
        return signal, slope
