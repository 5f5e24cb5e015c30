"""Fit one model to files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue, MissingMetadata, NotIdentifiable
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, mask_of
from qcord.core.intervals import Intervals
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.ingest.nifti import read_map
from qcord.ingest.series import Group, load_diffusion
from qcord.maps.fit import fit as fit_model
from qcord.maps.frequency_spread import frequency_spread
from qcord.maps.intervals import intervals as intervals_of
from qcord.maps.intervals import with_given_errors
from qcord.models import registry
from qcord.pipeline.collect import collect
from qcord.pipeline.given import Value, number, read_given, read_transmit_field, read_value
from qcord.pipeline.map_names import as_written, beside_map, flag_name, flag_sidecar, map_name, range_of
from qcord.pipeline.single import group_of
from qcord.pipeline.store import staged, write_image


def fit(  # noqa: PLR0913
    model: str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    mask: Path | str | None = None,
    b1: Path | str | None = None,
    b1_std: Value | None = None,
    b1_width: float = 0.0,
    field_map: Path | str | None = None,
    given: Mapping[str, Value] | None = None,
    given_std: Mapping[str, Value] | None = None,
    fixed: Mapping[str, Value] | None = None,
    noise: float | str | None = None,
    method: str | None = None,
    intervals: bool = False,
    n_threads: int | None = None,
) -> dict[str, Path]:
    """Fit one model to files.

    Parameters
    ----------
    model : str
        ``tensor``, ``mtr``, ``mtsat`` or another name of `qcord.models.registry`.
    images : sequence of path
        One 4-D diffusion image with ``.bval`` and ``.bvec`` beside it, or the volumes of a collection (transfer, flip
        angles, echoes, inversions), each file with its own JSON sidecar; for MP2RAGE with phase images or ``UNIT1``.
    out : path
        Folder for the maps.
    mask : path, optional
        Voxels to fit.
    b1 : path, optional
        Transmit field, as a factor or in percent, on any grid.
    b1_std : path or float, optional
        Its standard error, in the same unit: a map on the same grid, by which voxels then count in smoothing, or one
        value, that of the smoothed field. By default that which qcord wrote beside the map, if it did; 0 for none. The
        standard errors of the maps hold it.
    b1_width : float
        Full width at half maximum [mm] of the Gaussian that smooths it; 0 leaves it as it is.
    field_map : path, optional
        Map of the proton frequency [Hz] on any grid, from which the dephasing across slices of gradient echoes follows.
    given : mapping of str to path or float, optional
        Maps, on any grid, or values of other given parameters of the model.
    given_std : mapping of str to path or float, optional
        Their standard errors, or those of defaults; by default those which qcord wrote beside the maps.
    fixed : mapping of str to path or float, optional
        Maps or values at which free parameters are held.
    noise : float or str, optional
        Standard deviation of the noise, or ``residuals`` to take it from those of the fit; by default that of
        diffusion images, and for all others an estimate from the images.
    method : str, optional
        Estimator of the model.
    intervals : bool
        Find 95 % intervals by the likelihood as well, which hold also where an estimate is at a bound or lopsided; each
        map takes as long as some ten fits. See `qcord.maps.intervals.intervals`.
    n_threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    dict of str to path
        Metric to the file of its map. Its standard error lies beside it as ``desc-se``, and as ``desc-shiftX`` its
        change by one standard error of each given parameter X that has one; the ends of its interval as
        ``desc-lower`` and ``desc-upper``.

    Raises
    ------
    MissingMetadata
        If a sidecar field that the model needs is absent, or the files are not of the kind that it takes.
    ImplausibleValue
        If the noise is no positive number.
    NotIdentifiable
        If no voxel gets a value.
    """
    group = group_of(images)
    series, sigma = _load(model, group, noise)
    alone = {"B1": b1_std} if b1 is None and b1_std is not None else {}
    known, errors = read_given(given or {}, {**(given_std or {}), **alone}, series.image)
    if b1 is not None:
        known["B1"], error = read_transmit_field(Path(b1), b1_std, series.image, b1_width)
        errors |= {} if error is None else {"B1": error}
    if field_map is not None:
        thickness = float(series.protocol["SliceThickness"][0]) if series.protocol.has("SliceThickness") else None
        known["FrequencySpread"] = frequency_spread(read_map(field_map), series.image.grid, thickness)
    inside = read_map(mask) if mask is not None else None
    held = {name: read_value(v, series.image) for name, v in (fixed or {}).items()}
    result = fit_model(
        model,
        series,
        inside,
        noise=sigma,
        given=known,
        given_std=errors,
        fixed=held,
        method=method,
        n_jobs=n_threads,
    )
    _require_values(result, series, inside)
    ranges = None
    if intervals:
        names = [n for n in registry.get(model).units if n in result.maps and n not in held]
        written = [n for n in names if map_name(Entities((), ""), model, n) is not None]
        exact = intervals_of(
            model, series, inside, metrics=written, noise=sigma, given=known, fixed=held, n_jobs=n_threads
        )
        ranges = with_given_errors(exact, result)
    return _write_maps(result, ranges, series, group, Path(out))


def _load(model: str, group: Group, noise: float | str | None) -> tuple[Series, Image | float | None]:
    """Series and its noise; None where the residuals are to give it."""
    needs = registry.get(model).needs
    level = _noise_level(noise)
    name = group.scans[0].name
    if "BValue" in needs and group.kind != "dwi":
        raise MissingMetadata(
            f"Model {model} takes a diffusion series, {name} has no .bval file of its name beside it; put it there."
        )
    if group.kind == "dwi":
        if "BValue" not in needs:
            raise MissingMetadata(
                f"Model {model} takes volumes with {' and '.join(needs)} in their sidecars, {name} is a diffusion "
                "series; choose another model or other files."
            )
        return load_diffusion(group), level
    found = collect(group, needs, noise=noise is None)
    return found.series, found.sigma if noise is None else level


def _noise_level(noise: float | str | None) -> float | None:
    if noise is None or noise == "residuals":
        return None
    level = number(noise)
    if level is None or not 0 < level < np.inf:
        raise ImplausibleValue(
            f"The noise is given as {noise}, expected a standard deviation above 0 in the unit of the signal, or "
            "'residuals'; correct it."
        )
    return level


def _require_values(result: Fit, series: Series, mask: Image | None) -> None:
    """Raise unless some voxel of some map carries a value: maps of nothing hide what is wrong with their series."""
    if any(np.isfinite(image.data).any() for image in result.maps.values()):
        return
    inside = mask_of(mask, series.image.grid)
    numbers, counts = np.unique(result.flag.data[inside], return_counts=True)
    why = Flag(int(numbers[np.argmax(counts)])).sentence
    raise NotIdentifiable(
        f"No voxel of {series.image.label} carries a value of model {result.model}, most for this reason: "
        f"{why.rstrip('.')}; check the images and the units of their sidecars."
    )


def _write_maps(result: Fit, ranges: Intervals | None, series: Series, group: Group, out: Path) -> dict[str, Path]:
    entities = group.entities if group.entities.get("sub") else Entities((), series.image.entities.suffix)
    paths = {}
    sidecar = {**_settings(result.model, series.protocol), "Sources": [s.path.name for s in group.scans]}
    with staged(out.absolute()) as folder:
        for metric, image in result.maps.items():
            name = map_name(entities, result.model, metric)
            if name is None:
                continue
            write_image(folder / name.name, as_written(metric, image), sidecar)
            for kind, (other, meaning) in {**beside_map(result, metric), **range_of(ranges, metric)}.items():
                if kind != "bias":
                    further = {**sidecar, "Description": meaning}
                    write_image(folder / name.replace(desc=kind).name, as_written(metric, other), further)
            paths[metric] = out / name.name
        flag = flag_name(entities, result)
        if flag is not None:
            write_image(folder / flag.name, result.flag, flag_sidecar(sidecar["Sources"]))
    return paths


def _settings(model: str, protocol: Protocol) -> dict[str, Any]:
    """Protocol columns that went into a map, as BIDS has them in its sidecar: one value if all are equal."""
    if "BValue" in protocol:
        return {}
    columns = {name: protocol[name].tolist() for name in registry.get(model).needs}
    return {k: v[0] if all(x == v[0] for x in v) else v for k, v in columns.items()}
