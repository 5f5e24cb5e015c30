"""Spread within groups that outlying values hardly move: the median difference between two values of a group."""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import FloatArray, IntArray

NORMAL = float(np.sqrt(2) * 0.6744897501960817)
"""Median difference between two normal values, in standard deviations."""
DRAWS = 4000
LARGEST = 4_000_000
"""Numbers held at once while simulating."""


def median_difference(value: FloatArray, group: IntArray) -> float:
    """Standard deviation within groups from the weighted median of all differences of two values of a group.

    A group of n values has the weight n - 1, as in a pooled variance. Differences need no estimate of the middle of a
    group, so groups of two serve as well as groups of twenty. Up to 29 % of outlying values cannot carry it away.

    Parameters
    ----------
    value : (n,) array
    group : (n,) int array
        Group of each value, from 0.

    Returns
    -------
    float
        0 where half of the differences are 0; NaN where no group has two values.
    """
    counts = np.bincount(group)
    first, second, weight = _pairs(tuple(counts.tolist()))
    if not first.size:
        return np.nan
    ordered = value[np.argsort(group, kind="stable")]
    return float(_weighted_median(np.abs(ordered[first] - ordered[second])[np.newaxis], weight)[0]) / NORMAL


@lru_cache(maxsize=64)
def sampling_of_median_difference(counts: tuple[int, ...]) -> FloatArray:
    """Simulated values of `median_difference` for normal data of standard deviation 1 in groups of these sizes.

    Returns
    -------
    (d,) array
        Sorted; always the same for the same sizes.
    """
    first, second, weight = _pairs(counts)
    generator = np.random.default_rng(20)
    block = max(1, min(DRAWS, LARGEST // max(len(first), 1)))
    draws = []
    for _ in range(0, min(DRAWS, 40 * block), block):
        values = generator.standard_normal((block, sum(counts)))
        draws.append(_weighted_median(np.abs(values[:, first] - values[:, second]), weight))
    sampling = np.sort(np.concatenate(draws)) / NORMAL
    sampling.flags.writeable = False
    return sampling


def _pairs(counts: tuple[int, ...]) -> tuple[IntArray, IntArray, FloatArray]:
    """Places of the two values of each pair among values sorted by group, and the weight of the pair."""
    firsts, seconds, weights = [], [], []
    start = 0
    for n in counts:
        first, second = np.triu_indices(n, 1)
        firsts.append(first + start)
        seconds.append(second + start)
        weights.append(np.full(len(first), 2 / max(n, 1)))
        start += n
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def _weighted_median(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Median of each row, the middle of the two neighbours where the weights halve exactly."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(weight[order], axis=1)
    half = weight.sum() / 2
    tolerance = 1e-9 * half
    low = np.take_along_axis(order, np.argmax(reached >= half - tolerance, axis=1)[:, np.newaxis], 1)
    high = np.take_along_axis(order, np.argmax(reached > half + tolerance, axis=1)[:, np.newaxis], 1)
    pair = np.take_along_axis(values, np.hstack([low, high]), 1)
    return np.asarray(pair.mean(axis=1))
