"""Powder averages: the mean over directions of the signals of each b-value and b-tensor shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.image import Image, Step
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import noise_map
from qcord.models.encoding import SPHERICAL, UNWEIGHTED, b_tensors, shape
from qcord.preprocess.floor_of_means import without_floor

REFERENCES = (
    "Lasic et al. 2014, doi:10.3389/fphy.2014.00011",
    "Szczepankiewicz et al. 2016, doi:10.1016/j.neuroimage.2016.07.038",
)

SAME_B = (5.0, 0.02)
"""b-values that follow each other at no more than this [s/mm2], plus this part of them, are averaged together."""

SAME_SHAPE = 0.05
"""Largest difference of shapes that are averaged together."""

_DEAREST = 1.5
"""Factor that balancing the directions may put on the variance of an average."""


@dataclass(frozen=True, eq=False)
class PowderAverages:
    """Averages over directions.

    Parameters
    ----------
    series : Series
        One volume an average, (x, y, z, m). Columns: ``BValue`` (mean of the group), ``BDelta`` (0 at b = 0),
        ``Volumes`` (how many were averaged), and those of the scan that have one value a measurement.
    weights : (m, n) array
        What each volume of the scan counts in each average; rows add up to 1.
    sigma : Image or None
        Standard deviation of the averages, (x, y, z, m); None where the noise of the scan was not given.
    """

    series: Series
    weights: FloatArray
    sigma: Image | None

    @property
    def gain(self) -> FloatArray:
        """Standard deviation (m,) of the averages for noise of standard deviation 1 in the volumes."""
        return np.asarray(np.sqrt((self.weights**2).sum(axis=1)))


def powder_average(
    series: Series, *, sigma: Image | float | Sequence[float] | AnyArray | None = None, rician: bool = True
) -> PowderAverages:
    """Average a diffusion series over directions.

    Parameters
    ----------
    series : Series
        Measurements with BValue [s/mm2] and, where the shape needs it, Direction; BDelta or SecondDirection where
        encoding is not linear.
    sigma : Image, array, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a volume.
    rician : bool
        Whether the measurements are magnitudes, whose floor is to be taken off; it needs ``sigma``. Along fibres the
        signal is soon below the noise, and a plain average too high: by 9 % in white matter at 2000 s/mm2 and a
        signal-to-noise ratio of 15.

    Returns
    -------
    PowderAverages
        One volume for each b-value, shape and other setting, b = 0 first. A voxel that is NaN in a volume is NaN in
        its average.

    Raises
    ------
    MissingMetadata
        If there are no b-values, or no directions where the shape needs them.
    GridMismatch
        If a noise map lies on another grid.
    ImplausibleValue
        If the number of noise levels is neither 1 nor that of the volumes.

    Notes
    -----
    Directions are seldom even. The weights of a group are the smallest (in square) that make the average exact for
    signals of fourth order in the b-tensor's orientation, else of second order, as long as they raise the variance
    by less than half; otherwise they are equal.
    """
    weights = powder_weights(series.protocol)
    level = noise_map(sigma, series.image.grid, len(series.protocol))
    size = (*series.data.shape[:3], len(weights))
    data, variance = np.zeros(size), np.zeros(size)
    for k, row in enumerate(weights):
        for n in np.flatnonzero(row):
            volume = series.data[..., n].astype(float)
            if level is not None:
                here = level[..., n if level.shape[3] > 1 else 0].astype(float)
                known = here > 0  # where the noise is not known, the average stays as measured, without an error
                square = np.where(known, here**2, np.nan)
                if rician:
                    lowered, square = without_floor(volume, np.where(known, here, np.nan))
                    volume = np.where(known, lowered, volume)
                variance[..., k] += row[n] ** 2 * square
            data[..., k] += row[n] * volume
    step = Step("powder_average", {"averages": len(weights), "rician": rician and level is not None}, REFERENCES)
    averages = Series(series.image.derive(data, step), averaged_protocol(series.protocol))
    return PowderAverages(averages, weights, None if level is None else series.image.derive(np.sqrt(variance), step))


def powder_weights(protocol: Protocol) -> FloatArray:
    """What each measurement counts in each average, (m, n); see `powder_average`."""
    labels, tensors = groups(protocol), b_tensors(protocol)
    weights = np.zeros((int(labels.max()) + 1, len(protocol)))
    for k, row in enumerate(weights):
        row[labels == k] = orientation_weights(tensors[labels == k])
    return weights


def scatter(series: Series) -> Image:
    """Standard deviation of the noise (x, y, z) from what a smooth function of orientation leaves of each average.

    Repeats, and directions beyond the 15 of a function of fourth order, carry it; NaN where there are none. What
    coherent white matter has beyond fourth order counts as noise: .005 of the signal without weighting at 1000 s/mm2,
    .015 at 2000 s/mm2.
    """
    labels, tensors = groups(series.protocol), b_tensors(series.protocol)
    total, freedom = np.zeros(series.data.shape[:3]), 0
    for k in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == k)
        design = np.concatenate([np.ones((1, len(rows))), _moments(tensors[rows])]).T
        left, strength, _ = np.linalg.svd(design)
        rank = int((strength > 1e-3 * strength[0]).sum())
        signals = np.ascontiguousarray(series.data[..., rows], dtype=float)
        for column in left[:, rank:].T:
            total += np.einsum("xyzn,n->xyz", signals, column) ** 2
        freedom += len(rows) - rank
    return series.image.derive(np.sqrt(total / freedom) if freedom else np.full_like(total, np.nan))


def groups(protocol: Protocol) -> IntArray:
    """Number (n,) of the average that each measurement belongs to; ordered by other settings, b-value, shape."""
    b = protocol["BValue"]
    keys = [_cluster(column, 1e-6 * np.ptp(column)) for column in _settings(protocol).values()]
    step = SAME_B[0] + SAME_B[1] * np.sort(b)[1:]
    keys.append(np.where(b <= UNWEIGHTED, -1, _cluster(b, step)))
    keys.append(_cluster(np.where(b <= UNWEIGHTED, SPHERICAL, shape(protocol)), SAME_SHAPE))
    return np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def orientation_weights(tensors: FloatArray) -> FloatArray:
    """Weights (k,) of measurements with b-tensors (k, 6) of one shape and size; see `powder_average`."""
    count = len(tensors)
    equal = np.full(count, 1 / count)
    every = _moments(tensors)
    for moments in (every, every[:5]):
        # a sum of 1 and vanishing moments; the deviation from equal weights is the smallest that brings them
        design = np.concatenate([np.ones((1, count)), moments])
        weights = equal - np.linalg.pinv(design, rcond=1e-6) @ np.append(0.0, moments.mean(axis=1))
        if np.abs(moments @ weights).max() < 1e-6 and count * (weights**2).sum() < _DEAREST:
            return np.asarray(weights)
    return equal


def _moments(tensors: FloatArray) -> FloatArray:
    """Functions of orientation (20, k) with no mean over the sphere: 5 of second order, 15 (rank 14) up to fourth."""
    xx, yy, zz, xy, xz, yz = tensors.T
    apart = np.stack([(xx - yy) / np.sqrt(2), (2 * zz - xx - yy) / np.sqrt(6)])
    apart = np.concatenate([apart, np.sqrt(2) * np.stack([xy, xz, yz])])
    size = np.sqrt((apart**2).sum(axis=0).mean())
    if size <= 1e-6 * tensors.sum():
        return np.zeros((20, len(tensors)))
    apart = apart / size
    first, second = np.triu_indices(5)
    squares = apart[first] * apart[second] - (first == second)[:, None] * (apart**2).sum(axis=0) / 5
    return np.concatenate([apart, squares])


def _cluster(values: AnyArray, step: float | FloatArray) -> IntArray:
    """Number (n,) of the cluster of each value: neighbours in size are apart by more than ``step``."""
    order = np.argsort(values, kind="stable")
    label = np.empty(len(values), dtype=int)
    label[order] = np.concatenate([[0], np.cumsum(np.diff(np.asarray(values, dtype=float)[order]) > step)])
    return label


def _settings(protocol: Protocol) -> dict[str, AnyArray]:
    """Columns that must be equal within an average: all with one finite value a measurement but the encoding."""
    encoding = {"BValue", "BDelta", "Direction", "SecondDirection", "Volumes"}
    return {
        name: column
        for name, column in protocol.columns.items()
        if name not in encoding and column.ndim == 1 and column.dtype.kind in "biuf" and protocol.has(name)
    }


def averaged_protocol(protocol: Protocol) -> Protocol:
    """Protocol of the averages; see `PowderAverages`."""
    labels = groups(protocol)
    count = np.bincount(labels)

    def mean(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(labels, values) / count)

    b = mean(protocol["BValue"])
    columns: dict[str, AnyArray] = {"BValue": b, "BDelta": np.where(b <= UNWEIGHTED, SPHERICAL, mean(shape(protocol)))}
    first = np.unique(labels, return_index=True)[1]
    columns |= {name: column[first] for name, column in _settings(protocol).items()}
    return Protocol({**columns, "Volumes": count}, f"powder averages of {protocol.source or 'the series'}")
