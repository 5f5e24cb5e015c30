"""What a phantom subject is like: person, size, tissue, disease, scanner, scans and what goes wrong in them."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from qcord.core.errors import ImplausibleValue
from qcord.models.registry import MODELS
from qcord.phantom.checks import require_factors, require_name, require_range
from qcord.phantom.disease import PLAQUE, Compression, Lesion, compression_signal
from qcord.phantom.effects import Effects
from qcord.phantom.field_strength import FIELDS
from qcord.phantom.scan import Scan
from qcord.phantom.tissue import Value, default_tissues
from qcord.template import tables

__all__ = ["FURTHER", "PRESETS", "SERIES", "Compression", "Lesion", "PhantomSpec", "preset", "stream"]

SERIES = ("T2w", "T2star", "dwi", "MTS")
"""Series of a subject."""

FURTHER = ("multishell", "epi")
"""Series on demand: diffusion at two b-values, and unweighted echo-planar images with reversed phase encoding."""

_SNR = {"T2w": 25.0, "T2star": 20.0, "dwi": 6.0, "MTS": 25.0, "multishell": 10.0, "epi": 6.0}


@dataclass(frozen=True)
class PhantomSpec:
    """All that a phantom subject is made from.

    Parameters
    ----------
    label : str
        BIDS label of the subject.
    seed : int
        Seed of the noise, of the motion, of the fields and of the texture around the cord.
    area_factor : float
        Cross-sections over the mean of healthy adults (`qcord.phantom.body.adult_shape`).
    length_factor : float
        Lengths of the levels over those of the template.
    curvature : float
        Bend of the neck; 1 is a common lordosis, 0 a straight cord.
    rotation : tuple of float
        Rotation [deg] of the subject in the scanner about R, A and S.
    position : tuple of float
        World coordinates [mm] of the cord at the disc C4/C5.
    tissues : mapping
        Values at 3 T by tissue and metric, each with source and trust.
    compression : Compression, optional
    lesions : tuple of Lesion
    snr : mapping of str to float
        For each series the signal of white matter at C3/C4 in its brightest volume over the noise. That of ``dwi``
        is what zoomed 0.9 x 0.9 x 5 mm scans show; the others are assumed.
    gradient_echo : str
        Model of the MT images: ``mtsat`` (rational approximation, on which the metric MTsat is defined) or
        ``mtsat-ernst`` (exact steady state).
    motion_mm : float
        Standard deviation of the in-plane shift of each slice of each volume of echo-planar series and ``MTS``.
    series : tuple of str
        Which series to make: of `SERIES`, of `FURTHER`, names of registered models, and names of ``scans``.
    scans : tuple of Scan
        Contrasts with a protocol, geometry or truth of their own.
    effects : Effects
        Fields, motion, ringing and coils; none by default.
    tesla : float
        Field strength, 1.5, 3 or 7.
    factors : mapping of str to float
        What tissue values of the cord are multiplied by in this person and scanner.
    levels : mapping of str to mapping of str to float
        By metric and vertebral level: what the values at its middle are multiplied by, linear between. No published
        values were found; none by default.
    person : mapping of str to str or float
        ``age`` [years], ``sex``, ``site`` and the like, for tables; nothing follows from them here.
    """

    label: str = "phantom"
    seed: int = 0
    area_factor: float = 1.0
    length_factor: float = 1.0
    curvature: float = 1.0
    rotation: tuple[float, float, float] = (2.0, -1.5, 3.0)
    position: tuple[float, float, float] = (-3.0, 8.0, 12.0)
    tissues: Mapping[str, Mapping[str, Value]] = field(default_factory=default_tissues)
    compression: Compression | None = None
    lesions: tuple[Lesion, ...] = ()
    snr: Mapping[str, float] = field(default_factory=_SNR.copy)
    gradient_echo: str = "mtsat"
    motion_mm: float = 0.0
    series: tuple[str, ...] = SERIES
    scans: tuple[Scan, ...] = ()
    effects: Effects = field(default_factory=Effects)
    tesla: float = 3.0
    factors: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    person: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_range(self.area_factor, 0.4, 2.0, "area_factor")
        require_range(self.length_factor, 0.5, 1.5, "length_factor")
        require_range(self.curvature, -1.5, 2.0, "curvature")
        require_range(self.motion_mm, 0.0, 5.0, "motion_mm")
        require_name(self.gradient_echo, ("mtsat", "mtsat-ernst"), "model of the gradient echo")
        if self.tesla not in FIELDS:
            raise ImplausibleValue(
                f"The field strength is {self.tesla:g}, expected one of {', '.join(map(str, FIELDS))} T."
            )
        require_factors(self.factors)
        for metric, factors in self.levels.items():
            for level, factor in factors.items():
                require_name(level, tables.LEVELS, "level")
                require_factors({metric: factor})
        own = tuple(scan.name for scan in self.scans)
        for name in self.series:
            require_name(name, (*SERIES, *FURTHER, *own, *MODELS), "series")
            require_range(self.snr_of(name), 0.5, 1e6, f"The SNR of {name}")

    def replace(self, **changes: object) -> "PhantomSpec":
        """Return a copy with other values."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def scan(self, name: str) -> Scan | None:
        """Scan of a series; None for those of the standard protocol."""
        for scan in self.scans:
            if scan.name == name:
                return scan
        return None if name in SERIES or name in FURTHER else Scan(name)

    def snr_of(self, name: str) -> float:
        """Signal over noise of a series."""
        scan = self.scan(name)
        return self.snr.get(name, 0.0 if scan is None else scan.snr)


def stream(name: str) -> int:
    """Number of the random stream of a series: the choice of series changes none of them."""
    return SERIES.index(name) if name in SERIES else zlib.crc32(name.encode())


PRESETS = ("healthy", "dcm", "ms", "compression", "lesion")
"""Named kinds of subject."""


def preset(name: str) -> PhantomSpec:
    """Specification of a named kind of subject.

    Parameters
    ----------
    name : str
        ``healthy``; ``dcm``, a compressed cord with the high signal of degenerative myelopathy; ``ms``, four lesions as
        of multiple sclerosis; ``compression`` and ``lesion``, one of either alone.

    Raises
    ------
    UnknownName
        If there is no such preset.
    """
    require_name(name, PRESETS, "preset")
    return _MAKERS[name]().replace(label=name)


def _dcm() -> PhantomSpec:
    compression = Compression(severity=0.45)
    return PhantomSpec(compression=compression, lesions=compression_signal(compression.disc))


def _ms() -> PhantomSpec:
    return PhantomSpec(
        lesions=(
            Lesion("C3", "fasciculus cuneatus", "left", 2.0, 16.0, PLAQUE.copy()),
            Lesion("C4", "lateral corticospinal tract", "right", 1.9, 14.0, PLAQUE.copy()),
            Lesion("C5", "fasciculus gracilis", "right", 1.6, 10.0, PLAQUE.copy()),
            Lesion("C6", "lateral vestibulospinal tract", "left", 1.6, 12.0, PLAQUE.copy()),
        )
    )


_MAKERS: Mapping[str, Callable[[], PhantomSpec]] = {
    "healthy": PhantomSpec,
    "dcm": _dcm,
    "ms": _ms,
    "compression": lambda: PhantomSpec(compression=Compression()),
    "lesion": lambda: PhantomSpec(lesions=(Lesion(),)),
}
