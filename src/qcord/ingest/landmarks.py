"""Landmarks of the spine: tables of points, or label images with one voxel a disc."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.core.errors import ImplausibleValue, MissingMetadata, UnknownName, UnreadableFile
from qcord.core.image import Image
from qcord.core.labels import DISCS, VERTEBRAE, disc_name

MOST_LABELS = 64
"""Values of a label image of the spine: discs, the junctions above and below, and what tools add to them."""


@dataclass(frozen=True)
class Landmark:
    """A named point.

    Parameters
    ----------
    name : str
        A disc such as ``C2/C3``, or a vertebra such as ``C3`` for the height of its middle.
    world : tuple of float
        RAS+ world coordinates [mm].
    """

    name: str
    world: tuple[float, float, float]


def canonical_name(name: str) -> str:
    """Spell a disc or vertebra as in `DISCS` and `VERTEBRAE`; accepts ``C2-C3``, ``C2C3``, ``c3``.

    Raises
    ------
    UnknownName
        If it is neither.
    """
    plain = name.strip().upper().replace("-", "/").replace("_", "/").replace(" ", "")
    spellings = {d.upper().replace(" ", ""): d for d in DISCS}
    spellings |= {d.upper().replace("/", "").replace(" ", ""): d for d in DISCS}
    spellings |= {v: v for v in VERTEBRAE}
    if plain not in spellings:
        raise UnknownName(f"'{name}' is not a disc or vertebra, expected a name such as C2/C3 or C3; correct it.")
    return spellings[plain]


def read_landmarks(path: Path) -> tuple[Landmark, ...]:
    """Read a table of landmarks.

    Parameters
    ----------
    path : path
        Tab-separated (comma-separated if it ends in .csv), columns ``name x y z`` with world coordinates in RAS+ mm;
        other columns are ignored.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    ImplausibleValue
        If a coordinate is not a number.
    """
    try:
        table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", dtype={"name": str})
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path.name} cannot be read as a table ({error}); repair it.") from error
    missing = [c for c in ("name", "x", "y", "z") if c not in table.columns]
    if missing:
        raise MissingMetadata(
            f"{path.name} has no column {', '.join(missing)}; expected name, x, y, z (world coordinates in mm)."
        )
    points = table[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(points).all():
        raise ImplausibleValue(f"{path.name} holds a coordinate that is not a number; correct the table.")
    return tuple(
        Landmark(canonical_name(str(n)), (float(p[0]), float(p[1]), float(p[2])))
        for n, p in zip(table["name"], points, strict=True)
    )


def landmarks_of_label_image(image: Image) -> tuple[Landmark, ...]:
    """Discs of a label image (disc number at its point, 3 = C2/C3, as other tools write it)."""
    found = []
    numbers = np.unique(image.data[image.data > 0])
    if len(numbers) > MOST_LABELS or (numbers != np.rint(numbers)).any():
        raise ImplausibleValue(
            f"{image.label} holds {len(numbers)} values such as {numbers[-1]:g}, expected the whole numbers of discs; "
            "give a label image, or a table of landmarks."
        )
    for number in numbers:
        if not 1 <= number <= len(DISCS):
            continue
        centre = image.grid.world(np.argwhere(image.data == number).mean(axis=0))
        found.append(Landmark(disc_name(int(number)), (float(centre[0]), float(centre[1]), float(centre[2]))))
    return tuple(found)


def parse_disc(text: str) -> Landmark:
    """Read ``C2/C3=x,y,z`` as given on a command line.

    Raises
    ------
    ImplausibleValue
        If it has another form.
    """
    name, _, numbers = text.partition("=")
    try:
        x, y, z = (float(v) for v in numbers.split(","))
        if not np.isfinite([x, y, z]).all():
            raise ValueError(numbers)
    except ValueError:
        raise ImplausibleValue(
            f"'{text}' does not give a disc, expected C2/C3=x,y,z with world coordinates in mm."
        ) from None
    return Landmark(canonical_name(name), (x, y, z))
