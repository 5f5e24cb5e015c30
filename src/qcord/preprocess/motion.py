"""Slice-wise translation of the cord between the volumes of a series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import EmptyRegion, ImplausibleValue
from qcord.core.grid import Grid, require_same_grid
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.preprocess.along_cord import AVERAGED, SNAPSHOTS, Spread, known, smooth_displacements
from qcord.preprocess.displacement import Frames, Measured, measure
from qcord.preprocess.neighbourhood import bright_cord, middle_of_field
from qcord.preprocess.threads import one_blas_thread
from qcord.preprocess.translate import translate_slices

B0_LIMIT = 50.0
"""b-value [s/mm2] up to which a volume counts as not diffusion-weighted (vendors write 0 to 50)."""

SHELL = 100.0
"""b-values [s/mm2] that follow each other at no more than this have the same contrast."""

LEAST_WEIGHT = 0.05
"""Share of the largest weight below which a voxel is left out."""

MARGIN = 6
"""Voxels around the weighted ones that may move in: twice the displacement of three voxels that is searched."""

COARSE, FINE = 2.0, 0.7
"""Standard deviations [voxel] of the smoothing: the first reaches displacements of three voxels, the second keeps the
edges of the cord while it halves the noise of a voxel."""

NEGLIGIBLE = 0.05
"""Displacement [voxel] below which a slice is left as it is: it changes an edge by a twentieth of its contrast, less
than the noise at a signal-to-noise ratio of 20."""

SIDED = 1.5
"""Standard deviation [voxel] of the smoothing of what directions explain: a third of the cord."""

MIN_DIRECTIONS = 12
"""Twice the six quadratic forms of a direction: fewer predict a volume with more noise than they explain."""

NEARBY = 4
"""Diffusion-weighted volumes next in time that tell where a b = 0 volume lay."""

ORDERS = 4
"""Highest power of the reference that may appear in another contrast: enough for a contrast that rises and falls
twice over the tissues around the cord (muscle, cord, fluid, fat)."""

REFERENCES = (
    "De Leener et al. 2017, doi:10.1016/j.neuroimage.2016.10.009",
    "Rasmussen and Williams 2006, ISBN 026218253X",
)


@dataclass(frozen=True, eq=False)
class MotionCorrected:
    """A series whose slices lie on each other.

    Parameters
    ----------
    series : Series
        Corrected data, float32; NaN where content came from outside the field.
    shifts : DataFrame
        One row per volume and slice: ``volume``, ``slice``, displacement of the content that was taken back ``x``,
        ``y`` [mm] along the first two axes of the grid, standard errors ``x_se``, ``y_se`` [mm].
    quality : mapping of str to float
        ``motion_x``, ``motion_y``: root mean square displacement [mm]; ``motion_max`` [mm]; ``motion_se``: median
        standard error [mm]; ``moved_slices``: share of slices that were interpolated; ``variation_before``,
        ``variation_after``: relative spread over volumes of one kind, in the weighted region [1].
    """

    series: Series
    shifts: pd.DataFrame
    quality: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the steps of the estimation share: data in the window, kinds of volumes, weights, and lengths."""

    slices: FloatArray
    kinds: tuple[IntArray, ...]
    weight: FloatArray
    height: FloatArray
    spacing: FloatArray
    anchor: int | None
    noise: FloatArray
    hat: FloatArray | None


def correct_motion(
    series: Series, *, weight: Image | None = None, sigma: Image | None = None, reference: int | None = None
) -> MotionCorrected:
    """Measure the in-plane displacement of every slice of every volume and take it back.

    Each slice is compared with what the other volumes of its kind (one b-value, one contrast) and a free intensity
    relation predict; kinds are tied to each other through powers of the image of the largest kind, so contrast may
    differ or invert. The displacements of a volume are then combined along the cord by their certainty, and what
    does not exceed its error is left as it is (`smooth_displacements`). Each moved slice is interpolated once, by
    the Fourier shift theorem, which leaves the noise as it was.

    Gradient directions stay valid: a translation does not turn them.

    Parameters
    ----------
    series : Series
        (x, y, z, n), axial slices; best denoised. Kinds follow from the column ``BValue``; without it each volume is
        a contrast of its own.
    weight : Image, optional
        Where the cord and its surroundings are, (x, y, z), from 0 to 1; soft edges are better than hard ones. By
        default a gaussian around the bright cord of the diffusion-weighted mean, else in the middle of the field.
    sigma : Image, optional
        Noise of one voxel before denoising, (x, y, z), unit of the signal: denoised data look more certain than they
        are.
    reference : int, optional
        Volume that stays in place. By default the mean place of the volumes of one kind, or for single contrasts the
        first with an MT pulse (column ``MTState``), else the first.

    Returns
    -------
    MotionCorrected
        Series, table of displacements, quality.

    Raises
    ------
    GridMismatch
        If the weight lies on another grid.
    EmptyRegion
        If the weight or the data leave nothing to compare.
    ImplausibleValue
        If the reference is not a volume of the series.

    Notes
    -----
    Rotation, deformation within a slice and motion through the plane are not corrected. On painted cords the
    displacement of diffusion-weighted slices is right to .05 to .15 voxels at a signal-to-noise ratio of b = 0 from 20
    down to 7, with displacements up to 3 mm. Where the cord moves within a canal that stays, b = 0 volumes, on which
    the canal shows as well, are held back towards it.

    References
    ----------
    De Leener et al. 2017, doi:10.1016/j.neuroimage.2016.10.009 (slice-wise translation regularised along the cord).
    Rasmussen and Williams 2006, ISBN 026218253X (combination along the cord).
    """
    n = series.image.n_volumes
    if reference is not None and not 0 <= reference < n:
        raise ImplausibleValue(f"The reference volume is {reference}, expected 0 to {n - 1}; volumes count from zero.")
    scene = _scene(series, weight, sigma, reference)
    with one_blas_thread():
        shift, variance = _estimate(scene)
    return _apply(series, shift, variance, scene)


def _scene(series: Series, weight: Image | None, sigma: Image | None, reference: int | None) -> _Scene:
    """Cut the window in which the weight counts, and bring the signal to a mean of one."""
    grid, data = series.image.grid, series.data
    kinds, anchor = _kinds(series, reference)
    if weight is None:
        trust = _default_weight(series, kinds[0])
    else:
        require_same_grid(weight.grid, grid, weight.label, series.image.label)
        trust = np.nan_to_num(np.asarray(weight.data, dtype=float).reshape(grid.shape))
    finite = np.asarray(np.isfinite(data).all(axis=-1))
    trust = np.clip(trust, 0, None) * finite * _border(grid.shape)
    used = np.asarray(trust > LEAST_WEIGHT * trust.max(initial=0))
    if not used.any() or not (data[used] != 0).any():
        raise EmptyRegion(
            f"The weight leaves no voxel of {series.image.label} to follow the motion with; give one that covers the "
            "cord and lies within the field."
        )
    trust[~used] = 0
    rows, columns = np.flatnonzero(used.any(axis=(1, 2))), np.flatnonzero(used.any(axis=(0, 2)))
    window = tuple(slice(max(0, int(i[0]) - MARGIN), int(i[-1]) + MARGIN + 1) for i in (rows, columns))
    slices = np.where(finite[..., None], data, 0)[window].astype(np.float32).transpose(3, 2, 0, 1)
    scale = max(float(np.abs(slices).mean()), 1e-30)
    noise = np.zeros(grid.shape[2])
    if sigma is not None:
        require_same_grid(sigma.grid, grid, sigma.label, series.image.label)
        square = np.nan_to_num(np.asarray(sigma.data, dtype=float).reshape(grid.shape) / scale) ** 2
        noise = (square * trust).sum(axis=(0, 1)) / np.maximum(trust.sum(axis=(0, 1)), 1e-30)
    spacing = np.array(grid.spacing[:2])
    cut: FloatArray = trust[window].transpose(2, 0, 1)
    return _Scene(slices / scale, kinds, cut, _heights(grid), spacing, anchor, noise, _hat(series, kinds[0]))


def _heights(grid: Grid) -> FloatArray:
    """Distance [mm] of each slice from the lowest, (z,)."""
    return np.arange(grid.shape[2]) * grid.spacing[2]


def _default_weight(series: Series, largest: IntArray) -> FloatArray:
    """Around the cord where diffusion weighting makes it stand out, else in the middle of the field."""
    grid = series.image.grid
    if series.protocol.has("BValue") and (series.protocol["BValue"][largest] > B0_LIMIT).all():
        return bright_cord(series.data[..., largest].mean(axis=-1), grid)
    return middle_of_field(grid)


def _border(shape: tuple[int, int, int]) -> FloatArray:
    """Zero at the border of a field, rising to one over three voxels: content there comes and goes."""
    ramps = [
        np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / 3, 0, 1) if n > 8 else np.ones(n) for n in shape[:2]
    ]
    return np.asarray(ramps[0][:, None, None] * ramps[1][None, :, None])


def _kinds(series: Series, reference: int | None) -> tuple[tuple[IntArray, ...], int | None]:
    """Volumes of like contrast, the largest kind first; and the volume that stays, None for the mean place."""
    n = series.image.n_volumes
    if series.protocol.has("BValue"):
        b = np.maximum(series.protocol["BValue"], B0_LIMIT)
        ordered = np.sort(b)
        label = np.searchsorted(ordered[1:][np.diff(ordered) > SHELL], b, side="right")
    else:
        label = np.arange(n)
    groups = sorted((np.flatnonzero(label == v) for v in np.unique(label)), key=lambda g: (-len(g), g[0]))
    if reference is None and len(groups[0]) == 1:
        state = series.protocol["MTState"] if series.protocol.has("MTState") else np.zeros(n)
        reference = int(np.argmax(np.asarray(state, dtype=bool)))
    if reference is not None:
        groups.sort(key=lambda g: reference not in g)
    return tuple(groups), reference


def _estimate(scene: _Scene) -> tuple[FloatArray, FloatArray]:
    """Displacement and variance (n, z, 2) [voxel] of all slices."""
    n, z = scene.slices.shape[:2]
    shift, variance = np.zeros((n, z, 2)), np.zeros((n, z, 2))
    base, *others = scene.kinds
    spreads = (Spread(), Spread())
    if len(base) > 1:
        shift[base], variance[base], spreads = _within(scene, base)
    for kind in others:
        if len(base) > 1:
            shift[kind], variance[kind] = _along(scene, kind, shift, spreads)
        else:
            shift[kind], variance[kind] = _between(scene, kind)
    if scene.anchor is not None:
        shift = shift - shift[scene.anchor]
    return shift, variance


def _within(scene: _Scene, kind: IntArray) -> tuple[FloatArray, FloatArray, tuple[Spread, Spread]]:
    """Displacement of the volumes of one kind from their mean place."""
    slices, hat = scene.slices[kind], scene.hat
    shift: FloatArray = np.zeros((*slices.shape[:2], 2))
    variance: FloatArray = np.zeros_like(shift)
    spreads = (Spread(), Spread())
    for width, pooled, rounds in ((COARSE, True, 2), (FINE, False, 3)):
        moving = Frames.of(slices, width)
        for _ in range(rounds):
            found = measure(
                moving,
                _own(moving.at(shift), None if pooled else hat),
                scene.weight,
                shift,
                pooled=pooled,
                noise=scene.noise,
            )
            shift, variance, spreads = _regularised(found, scene, (SNAPSHOTS, SNAPSHOTS), pooled)
            shift = shift - shift.mean(axis=0)
    return shift, variance, spreads


def _along(
    scene: _Scene, kind: IntArray, shift: FloatArray, spreads: tuple[Spread, Spread]
) -> tuple[FloatArray, FloatArray]:
    """Displacement of the volumes of a smaller kind, which move as those of the largest do around the same time.

    Their own images tell less: fluid that pulsates and flows changes the bright surroundings of the cord from one
    volume to the next as motion would.
    """
    base = scene.kinds[0]
    nearest = np.argsort(np.abs(kind[:, None] - base[None]), axis=1, kind="stable")[:, :NEARBY]
    before = shift[base[nearest]].mean(axis=1)
    total, variance = before, np.zeros_like(before)
    candidates = (known(spreads[0]), known(spreads[1]))
    for width, pooled in ((COARSE, True), (FINE, False), (FINE, False)):
        target = Frames.of(scene.slices[base], width).at(shift[base]).mean(axis=0)
        moving = Frames.of(scene.slices[kind], width)
        seen = moving.at(total)
        mean = Frames.of(Frames.of(scene.slices[kind], 0.0).at(total).mean(axis=0, keepdims=True), width)
        noise = scene.noise / len(kind)
        start = np.zeros_like(total[:1])
        apart = measure(mean, _powers(target, scene.weight)[None], scene.weight, start, pooled=pooled, noise=noise)
        own = Measured(total, np.zeros_like(total))
        if len(kind) > 1:
            own = measure(moving, _own(seen, None), scene.weight, total, pooled=pooled, noise=scene.noise)
        found = Measured(own.shift + apart.shift - before, own.variance + apart.variance)
        rest, variance, _ = _regularised(found, scene, candidates, pooled)
        total = before + rest
    return total, variance


def _between(scene: _Scene, kind: IntArray) -> tuple[FloatArray, FloatArray]:
    """Displacement (1, z, 2) of an image of one contrast from one of another, by powers of that other."""
    offset: FloatArray = np.zeros((1, scene.slices.shape[1], 2))
    variance: FloatArray = np.zeros_like(offset)
    for width, pooled in ((COARSE, True), (COARSE, False), (FINE, False), (FINE, False)):
        target = Frames.of(scene.slices[scene.kinds[0]], width).at(np.zeros_like(offset))[0]
        powers = _powers(target, scene.weight)[None]
        moving = Frames.of(scene.slices[kind], width)
        found = measure(moving, powers, scene.weight, offset, pooled=pooled, noise=scene.noise)
        offset, variance, _ = _regularised(found, scene, (AVERAGED, AVERAGED), pooled)
    return offset, variance


def _own(seen: FloatArray, hat: FloatArray | None) -> FloatArray:
    """References for a slice of the same kind: what the other volumes predict, and its square.

    The square lets fluid, brighter than all else, pulsate without the cord changing; (n, z, 2, x, y).

    Parameters
    ----------
    seen : (n, z, x, y) array
        Slices at their present estimate.
    hat : (n, n) array or None
        Projection on what directions of diffusion weighting explain; None for volumes that should be equal.
    """
    others = (seen.sum(axis=0, keepdims=True) - seen) / (len(seen) - 1)
    if hat is not None:
        # Fibres that lie aslant brighten one side of the cord in some directions, which would pass for motion. What
        # directions explain varies smoothly in space, unlike its noise.
        own = np.diagonal(hat)[:, None, None, None]
        left_out = (np.tensordot(hat, seen, axes=1) - own * seen) / (1 - own)
        others = others + ndimage.gaussian_filter(left_out - others, (0, 0, SIDED, SIDED), mode="nearest")
    return np.stack([others, others**2], axis=2)


def _hat(series: Series, kind: IntArray) -> FloatArray | None:
    """Projection (n, n) on the quadratic forms of the gradient directions, constant included.

    None where there are too few directions for the six forms, or none are known.
    """
    if not series.protocol.has("Direction") or len(kind) < MIN_DIRECTIONS:
        return None
    g = series.protocol["Direction"][kind]
    forms = np.stack([g[:, i] * g[:, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=1)
    if np.linalg.matrix_rank(forms, tol=1e-2) < forms.shape[1]:
        return None
    hat = forms @ np.linalg.pinv(forms)
    return hat if np.diagonal(hat).max() < 0.8 else None


def _powers(target: FloatArray, weight: FloatArray) -> FloatArray:
    """Legendre polynomials of the intensities, scaled to -1 .. 1 within the weight, (z, k, x, y)."""
    low, high = np.quantile(target[weight > 0.1 * weight.max()], [0.01, 0.99])
    scaled = np.clip(2 * (target - low) / max(high - low, 1e-30) - 1, -1.2, 1.2)
    basis = np.polynomial.legendre.legvander(scaled, ORDERS)[..., 1:]
    return np.moveaxis(basis, -1, 1)


def _regularised(
    found: Measured, scene: _Scene, candidates: tuple[Sequence[Spread], Sequence[Spread]], pooled: bool = False
) -> tuple[FloatArray, FloatArray, tuple[Spread, Spread]]:
    """Combine the slices of each volume along the cord, one axis after the other; lengths in voxels.

    With ``pooled`` all slices carry one and the same value, which counts once.
    """
    rows = slice(0, 1) if pooled else slice(None)
    x, y = (
        smooth_displacements(
            found.shift[:, rows, a] * scene.spacing[a],
            found.variance[:, rows, a] * scene.spacing[a] ** 2,
            scene.height[rows],
            candidate,
        )
        for a, candidate in enumerate(candidates)
    )
    value = np.stack([x.value, y.value], axis=-1) / scene.spacing
    variance = np.stack([x.variance, y.variance], axis=-1) / scene.spacing**2
    shape = found.shift.shape
    return np.broadcast_to(value, shape), np.broadcast_to(variance, shape), (x.spread, y.spread)


def _apply(series: Series, shift: FloatArray, variance: FloatArray, scene: _Scene) -> MotionCorrected:
    """Take the displacements back and describe them."""
    moved = np.asarray((np.abs(shift) >= np.maximum(NEGLIGIBLE, np.sqrt(variance))).any(axis=-1))
    taken = np.where(moved[..., None], shift, 0.0)
    data = translate_slices(series.data, -taken.transpose(1, 0, 2))
    step = Step("correct_motion", {"moved_slices": float(moved.mean())}, REFERENCES)
    image = series.image.derive(data.reshape(series.image.data.shape), step)
    length, error = taken * scene.spacing, np.sqrt(variance) * scene.spacing
    volume, level = np.indices(moved.shape)
    table = pd.DataFrame(
        {
            "volume": volume.ravel(),
            "slice": level.ravel(),
            "x": length[..., 0].ravel(),
            "y": length[..., 1].ravel(),
            "x_se": error[..., 0].ravel(),
            "y_se": error[..., 1].ravel(),
        }
    )
    quality = {
        "motion_x": float(np.sqrt((length[..., 0] ** 2).mean())),
        "motion_y": float(np.sqrt((length[..., 1] ** 2).mean())),
        "motion_max": float(np.linalg.norm(length, axis=-1).max()),
        "motion_se": float(np.median(error)),
        "moved_slices": float(moved.mean()),
        "variation_before": _variation(scene, np.zeros_like(taken)),
        "variation_after": _variation(scene, taken),
    }
    return MotionCorrected(Series(image, series.protocol), table, quality)


def _variation(scene: _Scene, shift: FloatArray) -> float:
    """Spread over the volumes of a kind relative to their mean, in the weighted region; NaN for single volumes."""
    seen = Frames.of(scene.slices, 0.0).at(shift)
    spread, mean = 0.0, 0.0
    for kind in scene.kinds:
        if len(kind) > 1:
            spread += float((seen[kind].std(axis=0, ddof=1) * scene.weight).sum()) * len(kind)
            mean += float((seen[kind].mean(axis=0) * scene.weight).sum()) * len(kind)
    return spread / mean if mean > 0 else float("nan")
