"""Slices of a series that lost signal or do not resemble their like."""

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.image import Image
from qcord.core.series import Series
from qcord.preprocess.estimate_motion import predicted
from qcord.preprocess.scene import make_scene
from qcord.preprocess.threads import one_blas_thread

LIMIT = 4.0
"""Robust standard deviations beyond which a slice is an outlier: chance alone reaches it in one slice of 16,000."""

LEAST_GAIN_LOST = 0.1
"""Share of the signal that must be missing as well: less cannot be told from contrast that a prediction misses."""


def volume_outliers(series: Series, *, weight: Image | None = None) -> pd.DataFrame:
    """Compare every slice with what the other volumes of its kind predict, and flag those that differ.

    Nothing is removed: the table is for quality control, and for fits that weigh measurements.

    Parameters
    ----------
    series : Series
        (x, y, z, n), best after motion correction. Kinds of volumes as in `qcord.preprocess.motion.correct_motion`.
    weight : Image, optional
        Where to compare, (x, y, z), from 0 to 1; by default the neighbourhood of the cord.

    Returns
    -------
    DataFrame
        One row per volume and slice: ``volume``, ``slice``; ``gain``, signal over its prediction [1]; ``gain_z``, how
        far the gain is from that of the same slice in the other volumes, in robust standard deviations; ``residual``,
        root mean square difference from prediction times gain, relative to the median prediction of that slice [1];
        ``residual_z``; ``outlier``, whether the signal is too low or the difference too large. NaN and False where a
        kind has fewer than four volumes.
    """
    scene = make_scene(series, weight, None, None)
    n, z = scene.slices.shape[:2]
    gain, residual = np.full((n, z), np.nan), np.full((n, z), np.nan)
    gain_z, residual_z = np.full((n, z), np.nan), np.full((n, z), np.nan)
    with one_blas_thread():
        for index, kind in enumerate(scene.kinds):
            if len(kind) < 4:
                continue
            seen = scene.slices[kind]
            expected = predicted(seen, scene.hat if index == 0 else None)
            power = np.maximum((scene.weight * expected**2).sum(axis=(-1, -2)), 1e-30)
            gain[kind] = (scene.weight * expected * seen).sum(axis=(-1, -2)) / power
            rest = seen - gain[kind][..., None, None] * expected
            residual[kind] = np.sqrt((scene.weight * rest**2).sum(axis=(-1, -2)) / np.median(power, axis=0))
            gain_z[kind], residual_z[kind] = _robust(gain[kind]), _robust(residual[kind])
    with np.errstate(invalid="ignore"):
        outlier = ((gain_z < -LIMIT) & (gain < 1 - LEAST_GAIN_LOST)) | (residual_z > LIMIT)
    volume, level = np.indices((n, z))
    columns = {"volume": volume, "slice": level, "gain": gain, "gain_z": gain_z}
    columns |= {"residual": residual, "residual_z": residual_z, "outlier": outlier}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def _robust(values: FloatArray) -> FloatArray:
    """Distance from the median over volumes, in robust standard deviations of all slices together."""
    apart = values - np.median(values, axis=0)
    spread = 1.4826 * float(np.median(np.abs(apart)))
    return apart / max(spread, 1e-30)
