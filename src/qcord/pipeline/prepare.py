"""From files to clean series, and the image of each on which the cord is sought."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt

from qcord.anatomy.contrast import contrast_of
from qcord.anatomy.segment import segment_cord
from qcord.core.arrays import BoolArray
from qcord.core.errors import EmptyRegion, MissingMetadata
from qcord.core.grid import Grid
from qcord.core.image import Image, Step, mask_of
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.ingest.derivatives import Derivatives, find_cord_mask
from qcord.ingest.gradients import B0_LIMIT
from qcord.ingest.series import Group, load_diffusion, load_image
from qcord.pipeline.collect import Collected, collect
from qcord.pipeline.settings import Settings
from qcord.preprocess.denoise import MIN_VOLUMES, denoise
from qcord.preprocess.motion import apply_shifts, correct_motion
from qcord.preprocess.noise_correlation import NoiseCorrelation

SURROUNDINGS = 4.0
"""Distance [mm] from the cord over which the weight of motion correction falls: the fluid around it, not the muscle."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A series that is ready for fits and for the search of the cord.

    Parameters
    ----------
    group : Group
        Its files.
    image : Image
        3-D image on which the cord is sought.
    contrast : str or None
        Kind of contrast of ``image``.
    series : Series or None
        Measurements for fits; None for anatomical images.
    sigma : Image or None
        Standard deviation of the noise of one measurement.
    correlation : NoiseCorrelation or None
        How the noise of neighbouring voxels goes together.
    extra : mapping of str to Image or Series
        Further images and cleaned series worth keeping, by the name they get in ``desc``.
    quality : mapping of (str, str) to float
        Metric and unit to value.
    notes : tuple of str
        What was assumed or left out.
    mask : Image or None
        Cord mask that others made for the series.
    """

    group: Group
    image: Image
    contrast: str | None
    series: Series | None = None
    sigma: Image | None = None
    correlation: NoiseCorrelation | None = None
    extra: Mapping[str, Image | Series] = field(default_factory=dict)
    quality: Mapping[tuple[str, str], float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mask: Image | None = None


NONE = Derivatives(())


def prepare(group: Group, settings: Settings, derivatives: Derivatives = NONE) -> Prepared:
    """Load and clean one series.

    Parameters
    ----------
    group : Group
        Its files.
    settings : Settings
        Which steps to take.
    derivatives : Derivatives
        Files of others, among which a cord mask is looked for.

    Raises
    ------
    GridMismatch
        If a cord mask is named after the series but lies on another grid.
    EmptyRegion
        If it holds no voxel.
    """
    if group.kind == "dwi":
        return _diffusion(group, settings, derivatives)
    if group.kind == "mt":
        return _transfer(group, settings, derivatives)
    if group.kind == "qmri":
        return _quantitative(group, settings, derivatives)
    image = load_image(group)
    return Prepared(group, image, contrast_of(image), mask=_given_mask(derivatives, group, image.grid))


def _diffusion(group: Group, settings: Settings, derivatives: Derivatives) -> Prepared:
    raw = load_diffusion(group)
    weighted = raw.protocol["BValue"] > B0_LIMIT
    if not weighted.any():
        raise MissingMetadata(f"{group.scans[0].name} holds no diffusion-weighted volume; check its bval file.")
    mask = _given_mask(derivatives, group, raw.image.grid)
    notes: list[str] = []
    extra: dict[str, Image | Series] = {}
    sigma: Image | None = None
    clean = raw
    if settings.denoise and raw.image.n_volumes >= MIN_VOLUMES:
        done = denoise(raw)
        clean, sigma = done.series, done.sigma
        extra["sigma"] = done.sigma
    elif settings.denoise:
        notes.append(f"{group.token} has {raw.image.n_volumes} volumes, fewer than {MIN_VOLUMES}: not denoised.")
    series = raw
    quality: dict[tuple[str, str], float] = {}
    if settings.motion:
        # Measured on the raw values, since denoising hides part of the motion at low signal.
        corrected = correct_motion(raw, weight=_surroundings(_mean(clean, weighted), "dwi", mask))
        series, clean = corrected.series, apply_shifts(clean, corrected.shifts)
        quality |= _motion_quality(corrected.quality)
    extra["preproc"] = series
    if clean is not series and sigma is not None:
        extra["denoised"] = clean
    return Prepared(
        group, _mean(clean, weighted), "dwi", series, sigma, extra=extra, quality=quality, notes=tuple(notes), mask=mask
    )


def _transfer(group: Group, settings: Settings, derivatives: Derivatives) -> Prepared:
    found = collect(group)
    series, image = found.series, found.images[found.reference]
    mask = _given_mask(derivatives, group, image.grid)
    contrast = "MTon" if series.protocol["MTState"][found.reference] else contrast_of(image)
    quality: dict[tuple[str, str], float] = {}
    if settings.motion and len(found.images) > 1:
        weight = _surroundings(image, contrast, mask)
        corrected = correct_motion(series, weight=weight, reference=found.reference)
        series = corrected.series
        quality |= _motion_quality(corrected.quality)
    return Prepared(
        *(group, image, contrast, series, found.sigma),
        correlation=found.correlation,
        quality=quality,
        notes=found.notes,
        mask=mask,
    )


def _quantitative(group: Group, settings: Settings, derivatives: Derivatives) -> Prepared:
    notes: list[str] = []
    known, signed = True, True
    try:
        found = collect(group)
    except (EmptyRegion, MissingMetadata) as error:
        known, signed = not isinstance(error, EmptyRegion), not isinstance(error, MissingMetadata)
        notes.append(f"{group.token} could not be used in full: {error}")
        found = collect(group, noise=known, signs=signed)
    series, image = found.series, _picture(found, group)
    mask = _given_mask(derivatives, group, image.grid)
    contrast = contrast_of(image)
    quality: dict[tuple[str, str], float] = {}
    if settings.motion and _taken_apart(series.protocol):
        corrected = correct_motion(series, weight=_surroundings(image, contrast, mask), reference=found.reference)
        series = corrected.series
        quality |= _motion_quality(corrected.quality)
    return Prepared(
        *(group, image, contrast, series if signed else None, found.sigma),
        correlation=found.correlation,
        quality=quality,
        notes=(*notes, *found.notes),
        mask=mask,
    )


def _picture(found: Collected, group: Group) -> Image:
    """Image on which the cord is sought: the ratio image of MP2RAGE, else the mean of the volumes."""
    if found.ratio is not None:
        return found.ratio
    mean = np.mean(np.abs(np.asarray(found.series.data, dtype=np.float32)), axis=-1)
    return found.series.image.derive(mean, Step("average", {"volumes": "all"}), entities=group.entities)


def _taken_apart(protocol: Protocol) -> bool:
    """Whether each volume was acquired on its own: no two are echoes of one excitation or trains of one inversion."""
    same = {"EchoTime", "SliceThickness"}
    settings = [np.asarray(v, dtype=float) for k, v in protocol.columns.items() if k not in same]
    apart = np.unique(np.column_stack(settings), axis=0) if settings else np.zeros((1, 1))
    return "NumberShots" not in protocol and 1 < len(apart) == len(protocol)


def _given_mask(derivatives: Derivatives, group: Group, grid: Grid) -> Image | None:
    """Cord mask that others made for a series; an empty one is refused before any work is done."""
    given = find_cord_mask(derivatives, group, grid)
    if given is not None:
        mask_of(given, grid, "cord mask")
    return given


def _surroundings(image: Image, contrast: str | None, mask: Image | None) -> Image | None:
    """Soft weight around the cord: 1 at its axis, falling over the canal and the vertebra; None if none is found."""
    if mask is None:
        try:
            mask = segment_cord(image, contrast).mask
        except EmptyRegion:
            return None
    inside = np.nan_to_num(np.asarray(mask.data, dtype=float)) >= 0.5
    distance = np.full(inside.shape, np.inf)
    for k in np.flatnonzero(inside.any(axis=(0, 1))):
        distance[:, :, k] = distance_transform_edt(~inside[:, :, k], sampling=image.grid.spacing[:2])
    return image.derive(np.exp(-0.5 * (distance / SURROUNDINGS) ** 2).astype(np.float32), unit="1")


def _mean(series: Series, rows: BoolArray) -> Image:
    """Mean over the diffusion-weighted volumes, ignoring what lies outside the field in some."""
    data = np.asarray(series.data[..., rows], dtype=np.float32)
    known = np.isfinite(data)
    count = known.sum(axis=-1)
    mean = np.where(count > 0, np.where(known, data, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)
    return series.image.derive(mean.astype(np.float32), Step("average", {"volumes": "diffusion-weighted"}))


def _motion_quality(found: Mapping[str, float]) -> dict[tuple[str, str], float]:
    units = {"motion_x": "mm", "motion_y": "mm", "motion_max": "mm", "motion_se": "mm"}
    return {(name, unit): float(found[name]) for name, unit in units.items()}
