"""What a phantom subject is like: sizes, tissue, disease, noise and motion."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.core.labels import DISCS
from qcord.phantom.tissue import METRICS, Value, default_tissues
from qcord.template import tables

SERIES = ("T2w", "T2star", "dwi", "MTS")
"""Series of a subject."""

_COMPRESSED = {"FA": 0.76, "MD": 1.28, "MTsat": 0.9}
_DAMAGED = {"FA": 0.7, "MD": 1.3, "MTsat": 0.65, "T1": 1.2, "T2": 1.3, "T2star": 1.2}
_SNR = {"T2w": 25.0, "T2star": 20.0, "dwi": 6.0, "MTS": 25.0}


@dataclass(frozen=True)
class Compression:
    """A disc that bulges into the canal and flattens the cord.

    Parameters
    ----------
    disc : str
        Where, such as ``C5/C6``.
    severity : float
        Part of the anterior-posterior diameter that is lost at the worst place, 0 to 0.7.
    extent : float
        Full width at half maximum along the cord [mm].
    factors : mapping of str to float
        What the tissue values are multiplied by at the worst place. The defaults for FA and MD are the ratio of
        stenotic to other levels of Nischal 2021 (.501 / .656, 1.197 / .937, abstract); MTsat is assumed.
    """

    disc: str = "C5/C6"
    severity: float = 0.35
    extent: float = 12.0
    factors: Mapping[str, float] = field(default_factory=_COMPRESSED.copy)

    def __post_init__(self) -> None:
        _require_name(self.disc, DISCS[1 : len(tables.LEVELS)], "disc")
        _require_range(self.severity, 0.0, 0.7, "The severity of the compression")
        _require_range(self.extent, 2.0, 60.0, "The extent of the compression [mm]")
        _require_metrics(self.factors)


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid of damaged tissue.

    Parameters
    ----------
    level : str
        Vertebral level of its centre.
    tract : str
        Name of the tract without side, as in `qcord.template.tables.HALF_TRACTS`; the lesion is centred on it.
    side : str
        ``left`` or ``right``.
    radius, length : float
        Radius across the cord and length along it [mm].
    factors : mapping of str to float
        What the tissue values are multiplied by. No published values were found; the defaults are assumed.
    """

    level: str = "C4"
    tract: str = "lateral corticospinal tract"
    side: str = "left"
    radius: float = 2.0
    length: float = 14.0
    factors: Mapping[str, float] = field(default_factory=_DAMAGED.copy)

    def __post_init__(self) -> None:
        _require_name(self.level, tables.LEVELS, "level")
        _require_name(self.tract, tables.HALF_TRACTS, "tract")
        _require_name(self.side, ("left", "right"), "side")
        _require_range(self.radius, 0.2, 8.0, "The radius of the lesion [mm]")
        _require_range(self.length, 1.0, 200.0, "The length of the lesion [mm]")
        _require_metrics(self.factors)


@dataclass(frozen=True)
class PhantomSpec:
    """All that a phantom subject is made from.

    Parameters
    ----------
    label : str
        BIDS label of the subject.
    seed : int
        Seed of the noise, of the motion and of the texture around the cord.
    area_factor : float
        Cross-sections over those of healthy adults (spine-generic T2w, n = 203).
    length_factor : float
        Lengths of the levels over those of the template.
    curvature : float
        Bend of the neck; 1 is a common lordosis, 0 a straight cord.
    rotation : tuple of float
        Rotation [deg] of the subject in the scanner about R, A and S.
    position : tuple of float
        World coordinates [mm] of the cord at the disc C4/C5.
    tissues : mapping
        Values by tissue and metric, each with source and trust.
    compression : Compression, optional
    lesion : Lesion, optional
    snr : mapping of str to float
        For each series the signal of white matter at C3/C4 in its brightest volume over the noise. That of ``dwi``
        is what zoomed 0.9 x 0.9 x 5 mm scans show; the others are assumed.
    gradient_echo : str
        Model of the MT images: ``mtsat`` (rational approximation, on which the metric MTsat is defined) or
        ``mtsat-ernst`` (exact steady state).
    motion_mm : float
        Standard deviation of the in-plane shift of each slice of each volume of ``dwi`` and ``MTS``.
    series : tuple of str
        Which series to make.
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
    lesion: Lesion | None = None
    snr: Mapping[str, float] = field(default_factory=_SNR.copy)
    gradient_echo: str = "mtsat"
    motion_mm: float = 0.0
    series: tuple[str, ...] = SERIES

    def __post_init__(self) -> None:
        _require_range(self.area_factor, 0.4, 2.0, "area_factor")
        _require_range(self.length_factor, 0.5, 1.5, "length_factor")
        _require_range(self.curvature, -1.5, 2.0, "curvature")
        _require_range(self.motion_mm, 0.0, 5.0, "motion_mm")
        _require_name(self.gradient_echo, ("mtsat", "mtsat-ernst"), "model of the gradient echo")
        for name in self.series:
            _require_name(name, SERIES, "series")
            _require_range(self.snr.get(name, 0.0), 0.5, 1e6, f"The SNR of {name}")

    def replace(self, **changes: object) -> "PhantomSpec":
        """Return a copy with other values."""
        return replace(self, **changes)  # type: ignore[arg-type]


def preset(name: str) -> PhantomSpec:
    """Specification of a named kind of subject: ``healthy``, ``compression`` or ``lesion``.

    Raises
    ------
    UnknownName
        If there is no such preset.
    """
    specs = {
        "healthy": PhantomSpec(label="healthy"),
        "compression": PhantomSpec(label="compression", compression=Compression()),
        "lesion": PhantomSpec(label="lesion", lesion=Lesion()),
    }
    _require_name(name, tuple(specs), "preset")
    return specs[name]


def _require_name(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise UnknownName(f"'{name}' is not a {what} of the phantom; expected one of {', '.join(known)}.")


def _require_range(value: float, low: float, high: float, what: str) -> None:
    if not low <= value <= high:
        raise ImplausibleValue(f"{what} is {value:g}, expected {low:g} to {high:g}.")


def _require_metrics(factors: Mapping[str, float]) -> None:
    for metric, factor in factors.items():
        _require_name(metric, METRICS, "metric")
        _require_range(factor, 0.0, 10.0, f"The factor of {metric}")
