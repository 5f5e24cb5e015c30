"""Fit one model to files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qcord.core.entities import Entities
from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.ingest.nifti import read_image
from qcord.ingest.series import Group, load_diffusion, load_transfer
from qcord.maps.fit import fit as fit_model
from qcord.pipeline.outputs import map_name
from qcord.pipeline.prepare import join_volumes, transfer_noise
from qcord.pipeline.single import group_of
from qcord.pipeline.store import staged, write_image
from qcord.preprocess.resample import resample


def fit(
    model: str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    mask: Path | str | None = None,
    b1: Path | str | None = None,
    method: str | None = None,
    n_threads: int | None = None,
) -> dict[str, Path]:
    """Fit one model to files.

    Parameters
    ----------
    model : str
        ``tensor``, ``mtr``, ``mtsat`` or another name of `qcord.models.registry`.
    images : sequence of path
        One 4-D diffusion image with ``.bval`` and ``.bvec`` beside it, or the 3-D volumes of a transfer series, each
        with its own JSON sidecar.
    out : path
        Folder for the maps.
    mask : path, optional
        Voxels to fit.
    b1 : path, optional
        Transmit field, as a factor or in percent, on any grid.
    method : str, optional
        Estimator of the model.
    n_threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    dict of str to path
        Metric to the file of its map; its standard error lies beside it as ``desc-se``.

    Raises
    ------
    MissingMetadata
        If a sidecar field that the model needs is absent.
    """
    group = group_of(images)
    if group.kind == "dwi":
        series, sigma = load_diffusion(group), None
    else:
        volumes, protocol = load_transfer(group)
        series = join_volumes(volumes, protocol, group.entities)
        sigma = resample(transfer_noise(volumes)[0], series.image.grid, order=1)
    given = {"B1": _transmit_field(Path(b1), series.image)} if b1 is not None else None
    inside = read_image(mask) if mask is not None else None
    result = fit_model(model, series, inside, noise=sigma, given=given, method=method, n_jobs=n_threads)
    return _write_maps(result, series.image, group, Path(out))


def _transmit_field(path: Path, like: Image) -> Image:
    """Transmit field on the grid of an image, as a factor; percent are told by their size."""
    field = resample(read_image(path), like.grid, order=1)
    values = np.asarray(field.data, dtype=float)
    known = values[np.isfinite(values) & (values > 0)]
    factor = 0.01 if known.size and np.median(known) > 10 else 1.0
    return field.derive(np.where(values > 0, values * factor, np.nan), unit="1")


def _write_maps(result: Fit, source: Image, group: Group, out: Path) -> dict[str, Path]:
    entities = group.entities if group.entities.get("sub") else Entities((), source.entities.suffix)
    paths = {}
    with staged(out.absolute()) as folder:
        for metric, image in result.maps.items():
            name = map_name(entities, result.model, metric)
            if name is None:
                continue
            sidecar = {"Sources": [s.path.name for s in group.scans]}
            write_image(folder / name.name, image, sidecar)
            if metric in result.std:
                write_image(folder / name.replace(desc="se").name, result.std[metric], sidecar)
            paths[metric] = out / name.name
    return paths
