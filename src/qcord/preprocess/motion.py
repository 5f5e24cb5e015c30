"""Slice-wise translation of the cord between the volumes of a series."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import GridMismatch, ImplausibleValue
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.preprocess.displacement import Frames
from qcord.preprocess.estimate_motion import estimate_displacements
from qcord.preprocess.scene import Scene, make_scene
from qcord.preprocess.threads import one_blas_thread
from qcord.preprocess.translate import translate_slices

NEGLIGIBLE = 0.05
"""Displacement [voxel] below which a slice is left as it is: it changes an edge by a twentieth of its contrast, less
than the noise at a signal-to-noise ratio of 20."""

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
        (x, y, z, n), axial slices, best not denoised: at a signal-to-noise ratio of 10 and less denoising pulls the
        volumes towards each other and hides a part of the motion. Kinds follow from the column ``BValue``; without it
        each volume is a contrast of its own.
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
        If the reference is not a volume of the series, or a volume holds no finite value.

    Notes
    -----
    Rotation, deformation within a slice and motion through the plane are not corrected. On painted cords the
    displacement of diffusion-weighted slices is right to .1 to .15 voxels at a signal-to-noise ratio of b = 0 from 20
    down to 7, with displacements up to 3 mm; to .2 voxels where each slice moves by .3 mm on its own. Where the cord
    moves within a canal that stays, b = 0 volumes, on which the canal shows as well, are held back towards it.

    References
    ----------
    De Leener et al. 2017, doi:10.1016/j.neuroimage.2016.10.009 (slice-wise translation regularised along the cord).
    Rasmussen and Williams 2006, ISBN 026218253X (combination along the cord).
    """
    n = series.image.n_volumes
    if reference is not None and not 0 <= reference < n:
        raise ImplausibleValue(f"The reference volume is {reference}, expected 0 to {n - 1}; volumes count from zero.")
    scene = make_scene(series, weight, sigma, reference)
    with one_blas_thread():
        shift, variance = estimate_displacements(scene)
    return _apply(series, shift, variance, scene)


def apply_shifts(series: Series, shifts: pd.DataFrame) -> Series:
    """Take displacements back that were measured on other data of the same volumes.

    Parameters
    ----------
    series : Series
        (x, y, z, n), such as the data before denoising.
    shifts : DataFrame
        `MotionCorrected.shifts`.

    Returns
    -------
    Series
        float32; NaN where content came from outside the field.

    Raises
    ------
    GridMismatch
        If the table does not hold one row per volume and slice.
    """
    n, z = series.image.n_volumes, series.data.shape[2]
    if len(shifts) != n * z:
        raise GridMismatch(
            f"The table of displacements has {len(shifts)} rows, expected {n * z} for the {n} volumes of {z} slices of "
            f"{series.image.label}; take the table of this very series."
        )
    ordered = shifts.sort_values(["volume", "slice"])[["x", "y"]].to_numpy().reshape(n, z, 2)
    taken = ordered / np.array(series.image.grid.spacing[:2])
    data = translate_slices(series.data, -taken.transpose(1, 0, 2)).reshape(series.image.data.shape)
    step = Step("correct_motion", {"moved_slices": float((taken != 0).any(axis=-1).mean())}, REFERENCES)
    return Series(series.image.derive(data, step), series.protocol)


def _apply(series: Series, shift: FloatArray, variance: FloatArray, scene: Scene) -> MotionCorrected:
    """Take the displacements back and describe them."""
    moved = np.asarray((np.abs(shift) >= np.maximum(NEGLIGIBLE, np.sqrt(variance))).any(axis=-1))
    taken = np.where(moved[..., None], shift, 0.0)
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
    return MotionCorrected(apply_shifts(series, table), table, quality)


def _variation(scene: Scene, shift: FloatArray) -> float:
    """Spread over the volumes of a kind relative to their mean, in the weighted region; NaN for single volumes."""
    seen = Frames.of(scene.slices, 0.0).at(shift)
    spread, mean = 0.0, 0.0
    for kind in scene.kinds:
        if len(kind) > 1:
            spread += float((seen[kind].std(axis=0, ddof=1) * scene.weight).sum()) * len(kind)
            mean += float((seen[kind].mean(axis=0) * scene.weight).sum()) * len(kind)
    return spread / mean if mean > 0 else float("nan")
