"""Protocols: one row per measurement, one column per acquisition setting."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike, BoolArray, FloatArray
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.units import require_plausible


@dataclass(frozen=True, eq=False)
class Protocol:
    """Acquisition settings of a series.

    Parameters
    ----------
    columns : mapping of str to array_like
        BIDS name to one value a measurement: ``FlipAngle`` [deg], ``RepetitionTimeExcitation`` [s],
        ``EchoTime`` [s], ``InversionTime`` [s], ``RefocusingFlipAngle`` [deg]; of transfer pulses ``MTState`` [bool],
        ``MTFrequencies`` (0 none, 1 single, 2 dual offset), ``MTFlipAngle`` [deg], ``MTOffsetFrequency`` [Hz],
        ``MTPulseDuration`` [s], ``MTPulseBandwidth`` [Hz]; and for diffusion ``BValue`` [s/mm2] and
        ``Direction`` (n, 3), unit vectors in world coordinates (zero where b is 0); where encoding is not linear
        also ``BDelta`` and ``SecondDirection`` (n, 3), see `qcord.models.encoding`.
    source : str
        File or files that the values come from, named in messages.

    Raises
    ------
    ImplausibleValue
        If columns differ in length or a value lies outside its plausible range.
    """

    columns: Mapping[str, AnyArray]
    source: str = ""

    def __post_init__(self) -> None:
        arrays: dict[str, AnyArray] = {}
        for name, values in self.columns.items():
            array = np.array(values)
            if array.dtype.kind in "iuf":
                array = array.astype(float)
                require_plausible(name, array[np.isfinite(array)], self.source)
            array.flags.writeable = False
            arrays[name] = array
        lengths = {name: len(a) for name, a in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ImplausibleValue(
                f"Protocol columns differ in length {lengths} ({self.source}), expected one value a measurement."
            )
        object.__setattr__(self, "columns", arrays)

    def __len__(self) -> int:
        return max((len(c) for c in self.columns.values()), default=0)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> FloatArray:
        """Return a column.

        Raises
        ------
        MissingMetadata
            If the column is absent or holds NaN; names the file and the remedy.
        """
        column = self.columns.get(name)
        if column is None or (column.dtype.kind == "f" and np.isnan(column).any()):
            where = f" from {self.source}" if self.source else ""
            raise MissingMetadata(
                f"{name} is absent{where}; add it to the JSON sidecar, or pass protocol.replace({name}=...)."
            )
        return column

    def has(self, *names: str) -> bool:
        """Whether all columns are present without gaps."""
        for name in names:
            column = self.columns.get(name)
            if column is None or (column.dtype.kind == "f" and np.isnan(column).any()):
                return False
        return True

    def replace(self, **columns: ArrayLike) -> "Protocol":
        """Return a copy with columns set; a scalar is repeated for each measurement."""
        n = len(self)
        new = {k: np.full(n, v) if np.ndim(v) == 0 else np.asarray(v) for k, v in columns.items()}
        return Protocol({**self.columns, **new}, self.source)

    def take(self, rows: BoolArray | ArrayLike) -> "Protocol":
        """Return a protocol of the selected measurements."""
        return Protocol({k: v[np.asarray(rows)] for k, v in self.columns.items()}, self.source)
