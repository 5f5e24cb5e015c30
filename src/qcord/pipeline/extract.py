"""Read one map file out per region, level and slice."""

from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from qcord.atlas.extract import ESTIMATORS
from qcord.atlas.extract import extract as extract_table
from qcord.atlas.project import Atlas, native_atlas
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnreadableFile
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.labels import Region
from qcord.core.units import require_plausible
from qcord.ingest.nifti import read_image, read_map, read_sidecar
from qcord.ingest.pam50 import read_warped_atlas
from qcord.pipeline.outputs import describe_columns
from qcord.pipeline.store import made_by_qcord, write_bytes, write_json, write_table
from qcord.pipeline.zeros import without_false_zeros


def extract(
    image: Path | str,
    atlas: Path | str,
    out: Path | str | None = None,
    *,
    std: Path | str | None = None,
    shift: Sequence[Path | str] | None = None,
    metric: str = "",
    by: Sequence[str] = ("level", "slice", "all"),
    estimator: Sequence[str] = ESTIMATORS,
    region: Sequence[str] | None = None,
    map_ratio: float = 1.0,
) -> pd.DataFrame:
    """Read one map out per region, level and slice.

    Parameters
    ----------
    image : path
        Map, NaN where it has no value. In maps of other software 0 is no value either, where the metric cannot be 0 in
        tissue (`qcord.pipeline.zeros`).
    atlas : path
        Folder with ``atlas/info_label.txt`` and its fields on the grid of the map, or the atlas file that
        `register` wrote.
    out : path, optional
        Table to write (tab-separated, or comma-separated if it ends in ``.csv``).
    std : path, optional
        Standard error of each voxel.
    shift : sequence of path, optional
        Change of the map by one standard error of each thing that it was given, such as the transmit field; ``std``
        holds these. By default the ``desc-shift`` files beside a ``desc-se`` file.
    metric : str
        Name for the table; by default that of the file.
    by : sequence of str
        ``level``, ``slice``, ``all``.
    estimator : sequence of str
        ``wa``, ``ml``, ``map``.
    region : sequence of str, optional
        Regions to report.
    map_ratio : float
        See `qcord.atlas.extract.extract`.

    Returns
    -------
    DataFrame
        See `qcord.atlas.extract.extract`.

    Raises
    ------
    ImplausibleValue
        If the median of the map in the cord is impossible in its unit, such as a T1 of 900 s, a standard error is
        negative, or the ratio is not positive.

    Warns
    -----
    SetApartWarning, ApproximationWarning
        If a map of other software is 0 where the atlas lies; the sentence, which the file beside the table has too,
        says whether those voxels count.
    """
    if not 0 < map_ratio < np.inf:
        raise ImplausibleValue(f"The map ratio is {map_ratio:g}, expected a number above 0; correct it.")
    value = read_map(image)
    fields = _read_atlas(Path(atlas))
    shifts = [read_map(s) for s in (_shifts_beside(std) if shift is None else shift)]
    errors = _without(_read_std(Path(std)), shifts) if std is not None else None
    name = metric or metric_of(value)
    require_same_grid(value.grid, fields.grid, value.label, "the atlas")
    note = ""
    if not made_by_qcord(Path(image)):
        value, note = without_false_zeros(value, name, fields)
    inside = np.asarray(value.data, dtype=float)[tuple(fields.index.T)]
    if np.isfinite(inside).any():
        require_plausible(name, [float(np.nanmedian(inside))], value.label)
    table = extract_table(
        {name: value},
        fields,
        std=None if errors is None else {name: errors},
        shifts={name: shifts},
        by=by,
        estimators=estimator,
        regions=region,
        map_ratio=map_ratio,
    )
    if out is not None:
        path = Path(out)
        if path.suffix == ".csv":
            write_bytes(path, table.to_csv(index=False).encode())
        else:
            write_table(path, table)
        write_json(path.with_suffix(".json"), describe_columns(table, {"Notes": [note]} if note else None))
    return table


def _read_std(path: Path) -> Image:
    """Standard errors of voxels; 0 stands for none, as in a map that was filled with it, and becomes NaN."""
    std = read_map(path)
    data = np.asarray(std.data, dtype=float)
    if (data < 0).any():
        raise ImplausibleValue(
            f"{std.label} holds {np.nanmin(data):g}, expected standard errors, which are not negative; check the file."
        )
    return std.derive(np.where((data > 0) & np.isfinite(data), data, np.nan))


def _shifts_beside(std: Path | str | None) -> list[Path]:
    """Shifts that qcord wrote beside a standard error."""
    path = Path(std or "")
    before, sign, after = path.name.partition("desc-se_")
    return sorted(path.parent.glob(f"{escape(before)}desc-shift*_{escape(after)}")) if sign else []


def _without(std: Image, shifts: Sequence[Image]) -> Image:
    """Part of a standard error by noise."""
    if not shifts:
        return std
    square = np.square(np.asarray(std.data, dtype=float))
    for one in shifts:
        require_same_grid(one.grid, std.grid, one.label, std.label)
        square = square - np.square(np.asarray(one.data, dtype=float))
    return std.derive(np.sqrt(np.maximum(square, 0)))


def metric_of(image: Image) -> str:
    """Name of the quantity of a map, by its BIDS name: FA of ``param-fa``, T1 of ``T1map``."""
    if "param" in image.entities:
        return image.entities["param"].upper()
    return image.entities.suffix.removesuffix("map")


def _read_atlas(path: Path) -> Atlas:
    if path.is_dir():
        return native_atlas(*read_warped_atlas(path))
    image = read_image(path)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    table_path = path.with_name(stem + ".tsv")
    if not table_path.is_file():
        raise MissingMetadata(f"{path.name} has no table of names beside it ({table_path.name}); keep both together.")
    regions = _read_regions(table_path)
    if image.n_volumes != len(regions):
        raise MissingMetadata(
            f"{path.name} holds {image.n_volumes} fields, its table {len(regions)} names; keep both together."
        )
    flat = np.asarray(image.data, dtype=np.float32).reshape(-1, image.n_volumes)
    atlas = native_atlas(image.grid, regions, sparse.csr_array(flat))
    sidecar = path.with_name(stem + ".json")
    if sidecar.is_file():
        levels = read_sidecar(sidecar).get("Levels", atlas.levels)
        if len(levels) != image.grid.shape[2]:
            raise ImplausibleValue(
                f"{sidecar.name} gives Levels of {len(levels)} slices, {path.name} has {image.grid.shape[2]}; keep "
                "both together."
            )
        return replace(atlas, levels=tuple(str(v) for v in levels))
    return atlas


def _read_regions(path: Path) -> list[Region]:
    """Names and numbers of the fields of an atlas file."""
    try:
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        regions = [Region(str(n), int(m)) for n, m in zip(table["name"], table["mapping"], strict=True)]
    except (OSError, UnicodeDecodeError, ValueError, KeyError) as error:
        raise UnreadableFile(
            f"{path.name} is not a table of the columns name and mapping, a number ({' '.join(str(error).split())}); "
            "register the image again."
        ) from error
    if not all(r.name.strip() for r in regions):
        raise UnreadableFile(f"{path.name} has a row without a name; register the image again.")
    return regions
