"""Names of tracts, combined regions, vertebral levels and discs.

Numbers of other tools collide (a 4 may be a disc, a vertebra or a tract); inside qcord only these names are
used, and numbers are translated where files are read and written.
"""

from dataclasses import dataclass
from itertools import pairwise

from qcord.core.errors import UnknownName

_PAIRED_WHITE = (
    "fasciculus gracilis",
    "fasciculus cuneatus",
    "lateral corticospinal tract",
    "ventral spinocerebellar tract",
    "rubrospinal tract",
    "lateral reticulospinal tract",
    "spinal lemniscus (spinothalamic and spinoreticular tracts)",
    "spino-olivary tract",
    "ventrolateral reticulospinal tract",
    "lateral vestibulospinal tract",
    "ventral reticulospinal tract",
    "ventral corticospinal tract",
    "tectospinal tract",
    "medial reticulospinal tract",
    "medial longitudinal fasciculus",
)
_PAIRED_GRAY = ("ventral horn", "intermediate zone", "dorsal horn")

TRACTS: tuple[str, ...] = (
    *(f"WM {side} {name}" for name in _PAIRED_WHITE for side in ("left", "right")),
    *(f"GM {side} {name}" for name in _PAIRED_GRAY for side in ("left", "right")),
)
"""The 36 regions of the cord, in the order of the PAM50 atlas (index = PAM50 number)."""

CSF = "CSF contour"
"""Name of the ring of fluid around the cord that takes part in the unmixing."""

COMBINED: dict[str, tuple[str, ...]] = {
    "spinal cord": TRACTS,
    "white matter": TRACTS[:30],
    "gray matter": TRACTS[30:36],
    "dorsal columns": TRACTS[0:4],
    "lateral funiculi": TRACTS[4:14],
    "ventral funiculi": TRACTS[14:30],
}
"""Unions of regions; PAM50 numbers 50 to 55 in this order."""

COMBINED_NUMBERS = dict(zip(COMBINED, range(50, 56), strict=True))

CLUSTERS: dict[str, tuple[str, ...]] = {
    "white matter": TRACTS[:30],
    "gray matter": TRACTS[30:36],
    "CSF": (CSF,),
}
"""Groups whose common value is the prior mean of the maximum a posteriori estimate."""

VERTEBRAE: tuple[str, ...] = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 13)),
    *(f"L{i}" for i in range(1, 6)),
)
"""Vertebral levels from the head down; number in files = position + 1 (C1 = 1, T1 = 8, L1 = 20)."""

DISCS: tuple[str, ...] = (
    "C1 top",
    *(f"{a}/{b}" for a, b in pairwise(VERTEBRAE)),
)
"""Boundaries from the head down; number in files = position + 1 (C2/C3 = 3). Disc i tops vertebra i."""


@dataclass(frozen=True)
class Region:
    """One field of an atlas.

    Parameters
    ----------
    name : str
        As in `TRACTS`, or `CSF`.
    number : int
        Its number in the files of its template.
    """

    name: str
    number: int


def vertebra_number(name: str) -> int:
    """Number of a vertebral level in files (C1 = 1).

    Raises
    ------
    UnknownName
        If there is no such level.
    """
    if name not in VERTEBRAE:
        raise UnknownName(f"'{name}' is not a vertebral level; expected one of {VERTEBRAE[0]} ... {VERTEBRAE[-1]}.")
    return VERTEBRAE.index(name) + 1


def vertebra_name(number: int) -> str:
    """Name of a vertebral level from its number in files.

    Raises
    ------
    UnknownName
        If the number is not 1 to 24.
    """
    if not 1 <= number <= len(VERTEBRAE):
        raise UnknownName(f"Vertebral level number {number} is not known; expected 1 (C1) to {len(VERTEBRAE)} (L5).")
    return VERTEBRAE[number - 1]


def disc_name(number: int) -> str:
    """Name of a disc from its number in files (3 = C2/C3).

    Raises
    ------
    UnknownName
        If the number is not 1 to 24.
    """
    if not 1 <= number <= len(DISCS):
        raise UnknownName(f"Disc number {number} is not known; expected 1 (top of C1) to {len(DISCS)}.")
    return DISCS[number - 1]


def regions_of(name: str) -> tuple[str, ...]:
    """Regions that make up a region or a combined region; accepts any case.

    Raises
    ------
    UnknownName
        If no region has the name.
    """
    wanted = name.strip().lower()
    for combined, members in COMBINED.items():
        if combined == wanted:
            return members
    for region in (*TRACTS, CSF):
        if region.lower() == wanted:
            return (region,)
    raise UnknownName(
        f"'{name}' is not a region; expected a tract such as '{TRACTS[4]}' or one of {', '.join(COMBINED)}."
    )
