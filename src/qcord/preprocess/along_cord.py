"""What a displacement measured in each slice most probably was, given that the cord moves as a whole and bends."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from qcord.core.arrays import FloatArray

LENGTH = 30.0
"""Distance [mm] over which bending displacements resemble each other: about two vertebrae, the shortest arc that the
neck can bend in while it breathes and swallows."""

WHOLE = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
BEND = (0.0, 0.03, 0.1, 0.3, 1.0)
SINGLE = (0.0, 0.03, 0.1, 0.3)
"""Standard deviations [mm] to choose from: of the displacement of the whole cord, of its bending, and of single
slices, each a snapshot at another moment of the breathing cycle."""

MISFIT = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Standard deviations [mm] to choose from of an error that differs by slice and is no noise: pulsating fluid, or a
contrast that its references do not explain."""

NOTHING = 1e6
"""Variance [mm2] of a value that was not measured."""

OUTLYING = 4.0
"""Distance in standard deviations beyond which a measured displacement is taken for a failure."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations [mm] of the parts of a displacement: whole cord, bending, single slices; and of misfit."""

    whole: float = 0.0
    bend: float = 0.0
    single: float = 0.0
    misfit: float = 0.0


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Most probable displacements along one axis.

    Parameters
    ----------
    value : (n, z) array
        Posterior mean [mm].
    variance : (n, z) array
        Posterior variance [mm2].
    spread : Spread
        What the data made most probable.
    """

    value: FloatArray
    variance: FloatArray
    spread: Spread


def smooth_displacements(
    value: FloatArray, variance: FloatArray, height: FloatArray, candidates: Sequence[Spread]
) -> Smoothed:
    """Combine measured displacements with each other and with rest, each by its certainty.

    The displacements of a volume are a sum of one for the whole cord, one that bends smoothly and one of each slice,
    all normal around zero; how large each of them is, is taken from all volumes together (maximum of the marginal
    likelihood). Where the measured values do not exceed their own error, the result is rest.

    Parameters
    ----------
    value : (n, z) array
        Measured displacements [mm].
    variance : (n, z) array
        Their variances [mm2]; infinite where nothing was measured.
    height : (z,) array
        Place of the slices along the cord [mm].
    candidates : sequence of Spread
        To choose from, in order of preference: `SNAPSHOTS`, `AVERAGED`, or `known`.

    Returns
    -------
    Smoothed
        Of the same shape.

    References
    ----------
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, ISBN 026218253X (chapters 2 and 5).
    """
    measured = np.isfinite(variance) & np.isfinite(value)
    y = np.where(measured, value, 0.0)
    noise = np.where(measured, np.clip(variance, 1e-10, NOTHING), NOTHING)
    bend = np.exp(-((height[:, None] - height[None]) ** 2) / (2 * LENGTH**2))
    best = _most_probable(y, noise, bend, candidates)
    # A failure is far from what the other slices say; what is of its own in a slice must not hide it.
    shared = Spread(best.whole, best.bend, 0.0, float(np.hypot(best.single, best.misfit)))
    mean, _, expected = _posterior(y, noise, bend, shared)
    outlying = (np.abs(y - mean) > OUTLYING * np.sqrt(expected)) & measured
    if outlying.any():
        noise = np.where(outlying, NOTHING, noise)
        best = _most_probable(y, noise, bend, candidates)
    mean, posterior, _ = _posterior(y, noise, bend, best)
    return Smoothed(mean, posterior, best)


def known(spread: Spread) -> tuple[Spread, ...]:
    """Candidates for volumes that move like others, but are measured worse by an unknown amount."""
    return tuple(Spread(spread.whole, spread.bend, spread.single, m) for m in MISFIT)


SNAPSHOTS = tuple(Spread(w, b, s) for w, b, s in product(WHOLE, BEND, SINGLE))
"""Single-shot slices: each at its own moment."""

AVERAGED = tuple(Spread(w, b, 0.0, m) for w, b, m in product(WHOLE, BEND, MISFIT))
"""Slices that were measured together over many breaths: what differs by slice is error."""


def _full(noise: FloatArray, bend: FloatArray, spread: Spread) -> tuple[FloatArray, FloatArray]:
    """Covariance of the displacement (z, z), and of its measured values (n, z, z)."""
    one = np.eye(len(bend))
    covariance = spread.whole**2 + spread.bend**2 * bend + spread.single**2 * one
    return covariance, covariance + (noise + spread.misfit**2)[:, :, None] * one


def _most_probable(y: FloatArray, noise: FloatArray, bend: FloatArray, candidates: Sequence[Spread]) -> Spread:
    """Candidate of the highest marginal likelihood; the first among equals."""
    best, chosen = np.inf, candidates[0]
    for spread in candidates:
        full = _full(noise, bend, spread)[1]
        logarithm = np.linalg.slogdet(full)[1]
        loss = float((y * np.linalg.solve(full, y[..., None])[..., 0]).sum() + logarithm.sum())
        if loss < best - 1e-9:
            best, chosen = loss, spread
    return chosen


def _posterior(
    y: FloatArray, noise: FloatArray, bend: FloatArray, spread: Spread
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and variance of the displacement, and variance of measured values around what is shared."""
    covariance, full = _full(noise, bend, spread)
    gain = np.linalg.solve(full, np.broadcast_to(covariance, full.shape)).swapaxes(1, 2)
    mean = (gain @ y[..., None])[..., 0]
    left = np.diagonal(covariance) - np.einsum("nij,ji->ni", gain, covariance)
    left = np.maximum(left, 0)
    return mean, left, left + noise + spread.misfit**2
