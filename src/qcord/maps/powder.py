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

REFERENCES = (
    "Lasic et al. 2014, doi:10.3389/fphy.2014.00011",
    "Szczepankiewicz et al. 2016, doi:10.1016/j.neuroimage.2016.07.038",
)

SAME_B = 0.05
"""Largest relative difference of b-values that are averaged together (or `UNWEIGHTED`, if that is more)."""

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
    """

    series: Series
    weights: FloatArray

    @property
    def gain(self) -> FloatArray:
        """Standard deviation (m,) of the averages for noise of standard deviation 1 in the volumes."""
        return np.asarray(np.sqrt((self.weights**2).sum(axis=1)))

    def noise(self, sigma: Image | float | Sequence[float]) -> Image:
        """Standard deviation of the averages, an image (x, y, z, m).

        Parameters
        ----------
        sigma : Image, float or sequence of float
            Standard deviation of the noise of the scan; one map or value, or one a volume.

        Raises
        ------
        GridMismatch
            If the map lies on another grid.
        ImplausibleValue
            If the number of values is neither 1 nor that of the volumes.
        """
        image = self.series.image
        level = noise_map(sigma, image.grid, self.weights.shape[1])
        assert level is not None
        if level.shape[3] == 1:
            return image.derive(np.asarray(level * self.gain))
        return image.derive(np.sqrt(np.einsum("xyzn,mn->xyzm", level.astype(float) ** 2, self.weights**2)))


def powder_average(series: Series) -> PowderAverages:
    """Average a diffusion series over directions.

    Parameters
    ----------
    series : Series
        Measurements with BValue [s/mm2] and, where the shape needs it, Direction; BDelta or SecondDirection where
        encoding is not linear.

    Returns
    -------
    PowderAverages
        One volume for each b-value, shape and other setting, b = 0 first. A voxel that is NaN in a volume is NaN in
        its average.

    Raises
    ------
    MissingMetadata
        If there are no b-values, or no directions where the shape needs them.

    Notes
    -----
    Directions are seldom even. The weights of a group are the smallest (in square) that make the average exact for
    signals of fourth order in the b-tensor's orientation, else of second order, as long as they raise the variance
    by less than half; otherwise they are equal.
    """
    labels = groups(series.protocol)
    count = int(labels.max()) + 1
    weights = np.zeros((count, len(series.protocol)))
    tensors = b_tensors(series.protocol)
    for k in range(count):
        rows = np.flatnonzero(labels == k)
        weights[k, rows] = orientation_weights(tensors[rows])
    data = np.empty((*series.data.shape[:3], count))
    for k in range(count):
        rows = np.flatnonzero(weights[k])
        # einsum, not @: sums in one order, whatever the number of threads
        data[..., k] = np.einsum("xyzn,n->xyz", series.data[..., rows].astype(float), weights[k, rows])
    step = Step("powder_average", {"averages": count}, REFERENCES)
    return PowderAverages(Series(series.image.derive(data, step), _averaged(series.protocol, labels)), weights)


def groups(protocol: Protocol) -> IntArray:
    """Number (n,) of the average that each measurement belongs to; ordered by other settings, b-value, shape."""
    b = protocol["BValue"]
    keys = [_cluster(column, 1e-6 * np.ptp(column)) for column in _settings(protocol).values()]
    step = np.maximum(UNWEIGHTED, SAME_B * np.sort(b)[1:])
    keys.append(np.where(b <= UNWEIGHTED, -1, _cluster(b, step)))
    keys.append(_cluster(np.where(b <= UNWEIGHTED, SPHERICAL, shape(protocol)), SAME_SHAPE))
    return np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def orientation_weights(tensors: FloatArray) -> FloatArray:
    """Weights (k,) of measurements with b-tensors (k, 6) of one shape and size; see `powder_average`."""
    count = len(tensors)
    equal = np.full(count, 1 / count)
    xx, yy, zz, xy, xz, yz = tensors.T
    apart = np.stack([(xx - yy) / np.sqrt(2), (2 * zz - xx - yy) / np.sqrt(6)])
    apart = np.concatenate([apart, np.sqrt(2) * np.stack([xy, xz, yz])])
    size = np.sqrt((apart**2).sum(axis=0).mean())
    if size <= 1e-6 * tensors.sum():
        return equal
    apart = apart / size
    first, second = np.triu_indices(5)
    squares = apart[first] * apart[second] - (first == second)[:, None] * (apart**2).sum(axis=0) / 5
    for moments in (np.concatenate([apart, squares]), apart):
        # a sum of 1 and vanishing moments; the deviation from equal weights is the smallest that brings them
        design = np.concatenate([np.ones((1, count)), moments])
        weights = equal - np.linalg.pinv(design, rcond=1e-6) @ np.append(0.0, moments.mean(axis=1))
        if np.abs(moments @ weights).max() < 1e-6 and count * (weights**2).sum() < _DEAREST:
            return np.asarray(weights)
    return equal


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


def _averaged(protocol: Protocol, labels: IntArray) -> Protocol:
    count = np.bincount(labels)

    def mean(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(labels, values) / count)

    b = mean(protocol["BValue"])
    columns: dict[str, AnyArray] = {"BValue": b, "BDelta": np.where(b <= UNWEIGHTED, SPHERICAL, mean(shape(protocol)))}
    first = np.unique(labels, return_index=True)[1]
    columns |= {name: column[first] for name, column in _settings(protocol).items()}
    return Protocol({**columns, "Volumes": count}, f"powder averages of {protocol.source or 'the series'}")
