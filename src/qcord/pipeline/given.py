"""Given parameters of a fit, such as the transmit field, and their standard errors, from files or numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qcord.core.errors import ImplausibleValue
from qcord.core.image import Image
from qcord.core.units import require_plausible
from qcord.ingest.nifti import read_image, read_map
from qcord.pipeline.store import made_by_qcord
from qcord.preprocess.resample import resample
from qcord.preprocess.smoothing import smooth

Value = Path | str | float
"""A file or a number."""


def read_given(
    given: Mapping[str, Value], given_std: Mapping[str, Value], like: Image
) -> tuple[dict[str, Image | float], dict[str, Image | float]]:
    """Given parameters and their standard errors on the grid of an image.

    Parameters
    ----------
    given : mapping of str to path or float
        Maps, on any grid, or values.
    given_std : mapping of str to path or float
        Their standard errors. Where one is missing and the map is one that qcord wrote, the standard error beside it
        is taken; 0 stands for none.
    like : Image
        Image on whose grid they are wanted.
    """
    errors = {name: find_std(value) for name, value in given.items()} | dict(given_std)
    known = {name: read_value(value, like) for name, value in given.items()}
    return known, {name: read_value(std, like) for name, std in errors.items() if std is not None and number(std) != 0}


def read_value(value: Value, like: Image) -> Image | float:
    """A number, or a map brought to the grid of an image."""
    single = number(value)
    return resample(read_map(Path(str(value))), like.grid, order=1) if single is None else single


def read_transmit_field(
    path: Path, std: Value | None, like: Image, width: float = 0.0
) -> tuple[Image, Image | float | None]:
    """Transmit field on the grid of an image, as a factor, and its standard error; percent are told by their size.

    Parameters
    ----------
    path : path
        Map, as a factor or in percent, on any grid.
    std : path, float or None
        Its standard error in the same unit: a map on the same grid, by which voxels count in smoothing, or one value,
        that of the smoothed field. Without it that which qcord wrote beside the map; 0 stands for none.
    like : Image
        Image on whose grid they are wanted.
    width : float
        Full width at half maximum [mm] of the Gaussian that smooths it; 0 leaves it as it is.

    Raises
    ------
    ImplausibleValue
        If it has no value on that grid, or its median is no factor or percentage of a flip angle.
    """
    field = read_map(path)
    data = np.asarray(field.data, dtype=float)
    field = field.derive(np.where(data > 0, data, np.nan)) if width > 0 else field
    found = find_std(path) if std is None else std
    error: Image | float | None = None
    if found is not None:
        single = number(found)
        error = read_map(Path(str(found))) if single is None else single
    if width > 0:
        smoothed = smooth(field, width, std=error if isinstance(error, Image) else None)
        field, error = smoothed.image, smoothed.std if isinstance(error, Image) else error
    field = resample(field, like.grid, order=1)
    values = np.asarray(field.data, dtype=float)
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        raise ImplausibleValue(
            f"{path.name} has no value above 0 where {like.label} lies, expected a transmit field there; check the "
            "file and its position."
        )
    factor = 0.01 if np.median(known) > 10 else 1.0
    require_plausible("B1", factor * np.median(known), path.name)
    field = field.derive(np.where(values > 0, values * factor, np.nan), unit="1")
    if isinstance(error, Image):
        error = resample(error, like.grid, order=1)
        return field, error.derive(np.asarray(error.data, dtype=float) * factor, unit="1")
    return field, error * factor if error else None


def find_std(value: Value) -> Path | None:
    """Standard error that qcord wrote beside a map; None where there is none."""
    if number(value) is not None:
        return None
    path = Path(str(value))
    beside = path.with_name(read_image(path).entities.replace(desc="se").name)
    return beside if beside != path and beside.is_file() and made_by_qcord(beside) else None


def number(value: Value) -> float | None:
    """The number that a value is; None for a file."""
    try:
        return float(str(value))
    except ValueError:
        return None
