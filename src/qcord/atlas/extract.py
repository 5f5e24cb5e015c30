"""Read a map out per region, level and slice, with errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import norm

from qcord.atlas.estimators import LinearEstimate, Scatter, maximum_likelihood, regional_estimate
from qcord.atlas.project import Atlas
from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.labels import CLUSTERS, COMBINED, CSF, VERTEBRAE, regions_of
from qcord.preprocess.noise_correlation import NoiseCorrelation

DESCRIBED = 0.9
"""Least share of a voxel that the atlas must account for; the rest of a voxel below it has an unknown value, which
would be blamed on the regions that it touches."""

LEAST_CORD = 0.65
"""Least share of cord in voxels that are unmixed. Maps are ratios and other bent functions of signals that mix; where
fluid dominates, the value of a mixture is far from the mixture of values (`benchmarks/coverage.py`)."""

ROUNDING = 1e-20
"""Squared residual, relative to the squared values, below which a fit is exact up to rounding."""

ESTIMATORS = ("wa", "ml", "map")
COLUMNS = (
    *("region", "level", "slice", "estimator", "value", "se", "ci_low", "ci_high", "n_eff", "n_vox", "flag"),
    "se_noise",
)
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
    index : (n, 3) int array
        Place in the grid.
    displaced : (p, n, r) array
        See `qcord.atlas.project.Atlas`.
    shifts : (k, n) array
        Change of each value by one standard error of each of k shared causes; NaN where it is not known.
    """

    value: FloatArray
    variance: FloatArray
    weights: FloatArray
    index: IntArray
    displaced: FloatArray
    shifts: FloatArray

    @property
    def slices(self) -> IntArray:
        """Slice of each voxel."""
        return self.index[:, 2]

    def take(self, chosen: BoolArray) -> "Voxels":
        """Subset of voxels."""
        voxels = (self.value[chosen], self.variance[chosen], self.weights[chosen], self.index[chosen])
        return Voxels(*voxels, self.displaced[:, chosen], self.shifts[:, chosen])


def extract(
    value: Image | Mapping[str, Image],
    atlas: Atlas,
    *,
    std: Image | Mapping[str, Image] | None = None,
    shifts: Sequence[Image] | Mapping[str, Sequence[Image]] = (),
    by: Sequence[str] = ("level", "slice", "all"),
    estimators: Sequence[str] = ESTIMATORS,
    regions: Iterable[str] | None = None,
    correlation: NoiseCorrelation | None = None,
    map_ratio: float = 1.0,
    least_cord: float = LEAST_CORD,
) -> pd.DataFrame:
    """Values of tracts and combined regions.

    Parameters
    ----------
    value : Image or mapping of str to Image
        Map, or metric name to map; NaN where there is no value. Such voxels take no part, nor do those of which
        the atlas describes less than `DESCRIBED`.
    atlas : Atlas
        Fractions on the same grid.
    std : Image or mapping of str to Image, optional
        Standard error of each voxel, keys as in ``value``. Without it the scatter about the unmixed regions
        stands in.
    shifts : sequence of Image, or mapping of str to it
        What voxels err by together: the signed change of the map by one standard error of each cause, such as the
        transmit field that it was computed with (`qcord.core.fit.Fit.shifts`), keys as in ``value``. A cause counts
        as one error of the whole region, undiminished by the number of voxels; ``std`` must not hold it. Where the
        error of the cause is itself independent between far places, this is more than the true error. A voxel
        without a shift takes the median of the others.
    by : sequence of str
        ``level`` (each vertebral level), ``slice`` (each slice), ``all`` (everything; level and slice empty).
    estimators : sequence of str
        ``wa`` weighted mean, ``ml`` maximum likelihood, ``map`` maximum a posteriori.
    regions : iterable of str, optional
        Names to report; all fields of the atlas and the combined regions by default.
    correlation : NoiseCorrelation, optional
        Correlation of the errors of neighbouring voxels; independent by default.
    map_ratio : float
        Noise over spread of the regions in the maximum a posteriori estimate; 1 is the customary choice. Its
        error is computed from the scatter that the data show, whatever the ratio.
    least_cord : float
        Least share of cord, by the atlas, in voxels that are unmixed (``ml``, ``map``); 0 takes all voxels, as
        other software does.

    Returns
    -------
    DataFrame
        Columns ``metric unit`` and `COLUMNS`; one row a metric, region, place and estimator. ``n_eff`` is the sum
        of the region's fractions in voxels that carry a value, ``n_vox`` the number of such voxels that it
        touches. Rows without data have NaN and a flag.

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
    values = value if isinstance(value, Mapping) else {"": value}
    errors = std if isinstance(std, Mapping) else {} if std is None else dict.fromkeys(values, std)
    shared = shifts if isinstance(shifts, Mapping) else dict.fromkeys(values, shifts)
    unknown = [e for e in estimators if e not in ESTIMATORS]
    if unknown:
        raise UnknownName(f"'{unknown[0]}' is not an estimator, expected one of {', '.join(ESTIMATORS)}.")
    wanted = region_groups(atlas.regions, regions)
    cluster = cluster_of(atlas.regions)
    spots = places(atlas.levels, by)
    cord = np.array([name != CSF for name in atlas.regions])
    known: dict[tuple[bytes, bytes, str], LinearEstimate] = {}
    tables = []
    for metric, image in values.items():
        voxels = _voxels(image, errors.get(metric), shared.get(metric, ()), atlas)
        mostly = voxels.weights[:, cord].sum(axis=1) >= least_cord
        scatter = estimate_scatter(voxels.take(mostly), cluster, atlas.levels)
        used = np.isfinite(np.asarray(image.data[tuple(atlas.index.T)], dtype=float)).tobytes()
        for level, slice_name, chosen in spots:
            here = np.isin(voxels.slices, chosen)
            part = voxels.take(here)
            joint = None if correlation is None else correlation_matrix(part.index, correlation)
            moved = np.concatenate([_displaced_values(part, cluster, mostly[here], map_ratio), _known_shifts(part)])
            for name in estimators:
                key = (used, chosen.tobytes(), name)
                if key not in known:
                    known[key] = regional_estimate(
                        name, part.weights, list(wanted.values()), cluster, used=mostly[here], map_ratio=map_ratio
                    )
                rows = _rows(part, known[key], wanted, (scatter, joint, moved))
                tables.append(
                    rows.assign(metric=metric, unit=image.unit, level=level, slice=slice_name, estimator=name)
                )
    table = _in_order(pd.concat(tables, ignore_index=True), list(values), len(spots), estimators, len(wanted))
    if atlas.assumed_level:
        table.loc[table["flag"] == Flag.OK.word, "flag"] = Flag.ASSUMED_LEVEL.word
    return table[["metric", "unit", *COLUMNS]]


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


def _voxels(value: Image, std: Image | None, shifts: Sequence[Image], atlas: Atlas) -> Voxels:
    require_same_grid(value.grid, atlas.grid, value.label, "the atlas")
    for other in ([] if std is None else [std]) + list(shifts):
        require_same_grid(other.grid, value.grid, other.label, value.label)
    places_ = tuple(atlas.index.T)
    x = np.asarray(value.data[places_], dtype=float)
    variance = np.full(len(x), np.nan)
    if std is not None:
        variance = np.asarray(std.data[places_], dtype=float) ** 2
    good = np.isfinite(x) & (atlas.weights.sum(axis=1) >= DESCRIBED)
    n, r = atlas.weights.shape
    displaced = np.zeros((0, n, r)) if atlas.displaced is None else atlas.displaced
    moved = np.array([shift.data[places_] for shift in shifts], dtype=float).reshape(len(shifts), len(x))
    return Voxels(x[good], variance[good], atlas.weights[good], atlas.index[good], displaced[:, good], moved[:, good])


def correlation_matrix(index: IntArray, correlation: NoiseCorrelation) -> sparse.csr_array:
    """Correlation (n, n) of the errors of voxels at the given places."""
    n = len(index)
    if n == 0:
        return sparse.csr_array((0, 0))
    low = index.min(axis=0)
    number = np.full(index.max(axis=0) - low + 1, -1)
    number[tuple((index - low).T)] = np.arange(n)
    reach = np.array(correlation.lags.shape) // 2
    rows, columns, values = [], [], []
    for offset in np.ndindex(*correlation.lags.shape):
        coefficient = float(correlation.lags[offset])
        place = index - low + np.array(offset) - reach
        inside = (
            np.flatnonzero(((place >= 0) & (place < number.shape)).all(axis=1)) if coefficient else np.array([], int)
        )
        found = number[tuple(place[inside].T)]
        rows.append(inside[found >= 0])
        columns.append(found[found >= 0])
        values.append(np.full(int((found >= 0).sum()), coefficient))
    return sparse.csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))


def _rows(
    part: Voxels,
    linear: LinearEstimate,
    wanted: Mapping[str, IntArray],
    errors: tuple[Scatter, sparse.csr_array | None, FloatArray],
) -> pd.DataFrame:
    """Rows of all regions at one place by one estimator."""
    scatter, joint, moved = errors
    own = np.stack([part.weights[:, g].sum(axis=1) for g in wanted.values()], axis=-1)
    n_eff, n_vox = own.sum(axis=0), (own > 0).sum(axis=0)
    value = np.where(n_eff > 0, linear.value(part.value), np.nan)
    noise = np.where(np.isfinite(value), _standard_error(linear, part, scatter, joint), np.nan)
    se = np.sqrt(noise**2 + ((linear.matrix @ moved.T) ** 2).sum(axis=1))
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * se
    flag = np.select(
        [n_eff <= 0, ~np.isfinite(value), n_eff < 1, ~np.isfinite(se)],
        [Flag.NO_DATA.word, Flag.NOT_SEPARABLE.word, Flag.FEW_VOXELS.word, Flag.NO_ERROR.word],
        Flag.OK.word,
    )
    columns = {"region": list(wanted), "value": value, "se": se, "ci_low": value - half, "ci_high": value + half}
    return pd.DataFrame({**columns, "n_eff": n_eff, "n_vox": n_vox, "flag": flag, "se_noise": noise})


def _displaced_values(part: Voxels, cluster: IntArray, used: BoolArray, map_ratio: float) -> FloatArray:
    """Change (p, n) of the voxel values that a displacement of the outline would cause.

    An estimator that does not know of the displacement passes this change on to its regions.
    """
    if not len(part.displaced) or not used.any():
        return np.zeros((0, len(part.value)))
    groups = [np.array([i]) for i in range(part.weights.shape[1])]
    linear = regional_estimate("map", part.weights, groups, cluster, used=used, map_ratio=map_ratio)
    values = linear.value(part.value)
    common = _cluster_means(part.take(used), cluster)[cluster]
    return np.asarray(part.displaced @ np.where(np.isfinite(values), values, common))


def _known_shifts(part: Voxels) -> FloatArray:
    """Shifts (k, n) in which voxels without one have the median of the others; NaN where none is known."""
    filled = part.shifts.copy()
    for row in filled:
        known = np.isfinite(row)
        if known.any():
            row[~known] = np.median(row[known])
    return filled


def _standard_error(
    linear: LinearEstimate, part: Voxels, scatter: Scatter, correlation: sparse.csr_array | None
) -> FloatArray:
    """Errors of all regions; voxels without an error of their own take the median, or the scatter of all."""
    known = np.isfinite(part.variance)
    if known.any():
        variance = np.where(known, part.variance, np.median(part.variance[known]))
    elif len(part.value) > 1:
        variance = np.full(len(part.value), scatter.noise**2)
    else:
        return np.full(len(linear.leakage), np.nan)
    return np.asarray(np.sqrt(linear.variance(variance, scatter.spread, correlation)))


def _in_order(
    table: pd.DataFrame, metrics: Sequence[str], n_places: int, estimators: Sequence[str], n_regions: int
) -> pd.DataFrame:
    """Rows by metric, place, region, estimator, from rows by metric, place, estimator, region."""
    index = np.arange(len(table)).reshape(len(metrics), n_places, len(estimators), n_regions)
    return table.iloc[index.transpose(0, 1, 3, 2).ravel()].reset_index(drop=True)
