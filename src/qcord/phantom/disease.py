"""Compression of the cord and lesions in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcord.core.labels import DISCS
from qcord.phantom.checks import require_factors, require_name, require_range
from qcord.template import tables

COMPRESSED = {"FA": 0.76, "MD": 1.28, "MTsat": 0.9, "ICVF": 0.8, "ODI": 1.3, "ISOVF": 1.5}
DAMAGED = {
    **{"FA": 0.7, "MD": 1.3, "MTsat": 0.65, "T1": 1.2, "T2": 1.3, "T2star": 1.2},
    **{"ICVF": 0.65, "ODI": 1.5, "ISOVF": 2.0},
}
PLAQUE = {**DAMAGED, "PD": 1.1, "T2": 1.5}
MALACIA = {"FA": 0.8, "MD": 1.25, "MTsat": 0.85, "T1": 1.25, "T2": 1.7, "T2star": 1.5, "ICVF": 0.8, "ISOVF": 3.0}


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
        stenotic to other levels of Nischal 2021 (.501 / .656, 1.197 / .937, abstract); the others are assumed, those
        of the neurites in the direction of Hori 2018 (Sci Rep 8:5213), who found fewer axons.
    """

    disc: str = "C5/C6"
    severity: float = 0.35
    extent: float = 12.0
    factors: Mapping[str, float] = field(default_factory=COMPRESSED.copy)

    def __post_init__(self) -> None:
        require_name(self.disc, DISCS[1 : len(tables.LEVELS)], "disc")
        require_range(self.severity, 0.0, 0.7, "The severity of the compression")
        require_range(self.extent, 2.0, 60.0, "The extent of the compression [mm]")
        require_factors(self.factors)


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
    offset : float
        Distance [mm] of its centre above the middle of the level.
    """

    level: str = "C4"
    tract: str = "lateral corticospinal tract"
    side: str = "left"
    radius: float = 2.0
    length: float = 14.0
    factors: Mapping[str, float] = field(default_factory=DAMAGED.copy)
    offset: float = 0.0

    def __post_init__(self) -> None:
        require_name(self.level, tables.LEVELS, "level")
        require_name(self.tract, tables.HALF_TRACTS, "tract")
        require_name(self.side, ("left", "right"), "side")
        require_range(self.radius, 0.2, 8.0, "The radius of the lesion [mm]")
        require_range(self.length, 1.0, 200.0, "The length of the lesion [mm]")
        require_range(self.offset, -40.0, 40.0, "The offset of the lesion [mm]")
        require_factors(self.factors)


def compression_signal(disc: str) -> tuple[Lesion, Lesion]:
    """High signal of the gray matter on both sides at a compressed disc, as T2-weighted images show it (assumed)."""
    below = disc.split("/")[1]
    row = tables.LEVELS.index(below)
    edges = tables.level_edges()
    half = float(edges[row] - edges[row + 1]) / 2
    return tuple(  # type: ignore[return-value]
        Lesion(below, "intermediate zone", side, 1.3, 9.0, MALACIA.copy(), half) for side in ("left", "right")
    )
