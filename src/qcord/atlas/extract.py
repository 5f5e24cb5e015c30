"""Read a map out per region, level and slice, with errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from qcord.atlas.estimators import (
    LinearEstimate,
    Scatter,
    maximum_a_posteriori,
    maximum_likelihood,
    merge,
    weighted_mean,
)
from qcord.atlas.project import Atlas
from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.labels import CLUSTERS, COMBINED, VERTEBRAE, regions_of

DESCRIBED = 0.9
"""Least share of a voxel that the atlas must account for; the rest of a voxel below it has an unknown value, which
would be blamed on the regions that it touches."""

ROUNDING = 1e-20
"""Squared residual, relative to the squared values, below which a fit is exact up to rounding."""

ESTIMATORS = ("wa", "ml", "map")
COLUMNS = ("region", "level", "slice", "estimator", "value", "se", "ci_low", "ci_high", "n_eff", "n_vox", "flag")
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxel values that a table is computed from.

    Parameters
    ----------
    value, variance : (n,) arrays
        Value and its variance; variance NaN where no error is known.
    weights : (n, r) array
        Fractions of the regions.
    slices : (n,) int array
        Slice number.
    """

    value: FloatArray
    variance: FloatArray
    weights: FloatArray
    slices: IntArray

    def take(self, chosen: BoolArray) -> "Voxels":
        """Subset of voxels."""
        return Voxels(self.value[chosen], self.variance[chosen], self.weights[chosen], self.slices[chosen])


def extract(
    value: Image,
    atlas: Atlas,
    *,
    std: Image | None = None,
    by: Sequence[str] = ("level", "slice", "all"),
    estimators: Sequence[str] = ESTIMATORS,
    regions: Iterable[str] | None = None,
    correlation: float = 1.0,
    map_ratio: float = 1.0,
) -> pd.DataFrame:
    """Values of tracts and combined regions.

    Parameters
    ----------
    value : Image
        Map, NaN where there is no value; such voxels take no part, nor do those of which the atlas describes
        less than `DESCRIBED`.
    atlas : Atlas
        Fractions on the same grid.
    std : Image, optional
        Standard error of each voxel. Without it the scatter about the unmixed regions stands in.
    by : sequence of str
        ``level`` (each vertebral level), ``slice`` (each slice), ``all`` (everything; level and slice empty).
    estimators : sequence of str
        ``wa`` weighted mean, ``ml`` maximum likelihood, ``map`` maximum a posteriori.
    regions : iterable of str, optional
        Names to report; all fields of the atlas and the combined regions by default.
    correlation : float
        Variance of a mean over neighbouring voxels relative to independent ones; 1 for white noise.
    map_ratio : float
        Noise over spread of the regions in the maximum a posteriori estimate; 1 is the customary choice. Its
        error is computed from the scatter that the data show, whatever the ratio.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; one row a region, place and estimator. ``n_eff`` is the sum of the region's fractions
        in voxels that carry a value, ``n_vox`` the number of such voxels that it touches. Rows without data have
        NaN and a flag.

    Raises
    ------
    GridMismatch
        If map, errors and atlas do not share a grid.
    UnknownName
        If a region or an estimator is not known.

    References
    ----------
    Levy 2015, doi:10.1016/j.neuroimage.2015.06.040.
    """
    require_same_grid(value.grid, atlas.grid, value.label, "the atlas")
    if std is not None:
        require_same_grid(std.grid, value.grid, std.label, value.label)
    unknown = [e for e in estimators if e not in ESTIMATORS]
    if unknown:
        raise UnknownName(f"'{unknown[0]}' is not an estimator, expected one of {', '.join(ESTIMATORS)}.")
    wanted = region_groups(atlas.regions, regions)
    voxels = _voxels(value, std, atlas, correlation)
    cluster = cluster_of(atlas.regions)
    scatter = estimate_scatter(voxels, cluster, atlas.levels)
    rows: list[tuple[object, ...]] = []
    for level, slice_name, chosen in places(atlas.levels, by):
        part = voxels.take(np.isin(voxels.slices, chosen))
        for name, members in wanted.items():
            for estimator in estimators:
                numbers = _row(part, members, cluster, (estimator, map_ratio), scatter)
                rows.append((name, level, slice_name, estimator, *numbers))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if atlas.assumed_level:
        table.loc[table["flag"] == Flag.OK.word, "flag"] = Flag.ASSUMED_LEVEL.word
    return table


def region_groups(known: Sequence[str], wanted: Iterable[str] | None = None) -> Mapping[str, IntArray]:
    """Reported name to the atlas columns that make it up; all fields and combined regions by default."""
    lookup = {name: i for i, name in enumerate(known)}
    present = [n for n, members in COMBINED.items() if any(m in lookup for m in members)]
    names = [*known, *present] if wanted is None else list(wanted)
    groups: dict[str, IntArray] = {}
    for name in names:
        members = (name,) if name in lookup else regions_of(name)
        columns = [lookup[m] for m in members if m in lookup]
        if not columns:
            raise UnknownName(f"The atlas has no field of region '{name}'; it has {', '.join(known[:3])}, ...")
        groups[name] = np.array(columns)
    return groups


def cluster_of(regions: Sequence[str]) -> IntArray:
    """Number of each region's cluster; regions that no cluster lists form one of their own."""
    lookup = {m: i for i, members in enumerate(CLUSTERS.values()) for m in members}
    raw = np.array([lookup.get(name, len(CLUSTERS)) for name in regions])
    return np.asarray(np.unique(raw, return_inverse=True)[1])


def places(levels: Sequence[str], by: Sequence[str]) -> list[tuple[str, str, IntArray]]:
    """Level name, slice name and slice numbers of each place that is reported, in the order of ``by``."""
    unknown = [b for b in by if b not in {"level", "slice", "all"}]
    if unknown:
        raise UnknownName(f"'{unknown[0]}' is not a way to group, expected level, slice or all.")
    names = np.array(levels)
    found: list[tuple[str, str, IntArray]] = []
    for kind in by:
        if kind == "all":
            found.append(("", "", np.arange(len(names))))
        elif kind == "level":
            found += [(v, "", np.flatnonzero(names == v)) for v in VERTEBRAE if (names == v).any()]
        else:
            found += [(str(names[k]), str(k), np.array([k])) for k in range(len(names))]
    return found


def estimate_scatter(voxels: Voxels, cluster: IntArray, levels: Sequence[str]) -> Scatter:
    """Noise of voxels and spread of regions, from the data, by moments over levels.

    The spread is the excess of the scatter of unmixed regions about their cluster over their own error, and at
    least what that excess is uncertain by, so that few data cannot feign equal regions.
    """
    residual, freedom, excess, weight = 0.0, 0.0, 0.0, 0.0
    for chosen in _blocks(levels, voxels):
        part = voxels.take(chosen)
        unmixed = maximum_likelihood(part.weights)
        beta = np.nan_to_num(unmixed.value(part.value))
        usable = np.isfinite(unmixed.matrix).all(axis=1)
        gap = part.value - part.weights @ beta
        dof = max(len(gap) - int(usable.sum()), 1)
        sigma2 = float(gap @ gap) / dof
        if sigma2 <= ROUNDING * float(part.value @ part.value):
            continue
        residual, freedom = residual + float(gap @ gap), freedom + dof
        common = _cluster_means(part, cluster)[cluster]
        own = np.nan_to_num(unmixed.variance(np.full(len(gap), sigma2)), nan=np.inf)
        known = usable & (own > 0) & (own < np.inf)
        trust = np.where(known, 1 / np.where(known, own, 1.0) ** 2, 0)
        excess += float((trust * ((beta - common) ** 2 - np.where(trust > 0, own, 0))).sum())
        weight += float(trust.sum())
    if freedom == 0 or weight == 0 or residual == 0:
        return Scatter(1.0, 1.0)
    noise = np.sqrt(residual / freedom)
    variance = max(excess / weight, np.sqrt(2 / weight))
    return Scatter(float(noise), float(np.sqrt(variance)))


def _blocks(levels: Sequence[str], voxels: Voxels) -> list[BoolArray]:
    """Voxels of each level, or of each slice where no level is known; only blocks with voxels to spare."""
    names = [level or f"slice {k}" for k, level in enumerate(levels)]
    label = np.array(names)[voxels.slices] if len(voxels.slices) else np.array([])
    needed = 2 * voxels.weights.shape[1]
    found = [np.asarray(label == name) for name in dict.fromkeys(names)]
    return [b for b in found if b.sum() > needed]


def _cluster_means(part: Voxels, cluster: IntArray) -> FloatArray:
    member = np.zeros((len(cluster), int(cluster.max()) + 1))
    member[np.arange(len(cluster)), cluster] = 1
    return np.nan_to_num(maximum_likelihood(part.weights @ member).value(part.value))


def _voxels(value: Image, std: Image | None, atlas: Atlas, correlation: float) -> Voxels:
    places_ = tuple(atlas.index.T)
    x = np.asarray(value.data[places_], dtype=float)
    variance = np.full(len(x), np.nan)
    if std is not None:
        variance = np.asarray(std.data[places_], dtype=float) ** 2 * correlation
    good = np.isfinite(x) & (atlas.weights.sum(axis=1) >= DESCRIBED)
    return Voxels(x[good], variance[good], atlas.weights[good], atlas.index[good, 2])


def _row(
    part: Voxels, members: IntArray, cluster: IntArray, estimator: tuple[str, float], scatter: Scatter
) -> tuple[object, ...]:
    own = part.weights[:, members].sum(axis=1)
    n_eff, n_vox = float(own.sum()), int((own > 0).sum())
    if n_eff <= 0:
        return np.nan, np.nan, np.nan, np.nan, 0.0, 0, Flag.NO_DATA.word
    weights, groups = merge(part.weights, cluster, members)
    linear = _estimator(*estimator, weights, groups)
    value = float(linear.value(part.value)[0])
    if not np.isfinite(value):
        return np.nan, np.nan, np.nan, np.nan, n_eff, n_vox, Flag.NOT_SEPARABLE.word
    se = _standard_error(linear, part, weights, scatter)
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * se
    flag = Flag.OK if np.isfinite(se) else Flag.NO_ERROR
    if n_eff < 1:
        flag = Flag.FEW_VOXELS
    return value, se, value - half, value + half, n_eff, n_vox, flag.word


def _estimator(name: str, map_ratio: float, weights: FloatArray, cluster: IntArray) -> LinearEstimate:
    if name == "wa":
        return weighted_mean(weights[:, :1])
    if name == "ml":
        return maximum_likelihood(weights)
    return maximum_a_posteriori(weights, cluster, map_ratio)


def _standard_error(linear: LinearEstimate, part: Voxels, weights: FloatArray, scatter: Scatter) -> float:
    """Error of the first region; voxels without an error of their own take the median, or the scatter of all."""
    known = np.isfinite(part.variance)
    if known.any():
        variance = np.where(known, part.variance, np.median(part.variance[known]))
    else:
        variance = np.full(len(part.value), scatter.noise**2)
    spread = scatter.spread if linear.leakage.any() else 0.0
    result = linear.variance(variance, spread)[0]
    return float(np.sqrt(result)) if len(part.value) > 1 or known.any() else float("nan")
