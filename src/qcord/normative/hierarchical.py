"""People within sites within manufacturers and studies: linear model of a norm, variances by restricted likelihood.

A value is the sum of covariates, the shift of its manufacturer, that of its study, the shift of its site, and a
person's own departure:

    y = x . beta + m + c + u + e
    m ~ N(0, omega^2),  c ~ N(0, kappa^2),  u ~ N(0, tau_m^2),  e ~ N(0, sigma_m^2 + se^2)

Studies may have sites of several manufacturers. Where no row names a study, there is no c; a site without one, among
others with one, is a study of its own.

Where sites are many and some lie far from all others, u has a second, wider part (`qcord.normative.deviating`).
Spreads of sites and people differ between manufacturers, by factors that shrink to one. Values are in units of their
own spread here, so that the weak priors (`PRIORS`) mean the same for every metric.

References
----------
Patterson and Thompson 1971, doi:10.1093/biomet/58.3.545 (restricted likelihood);
Laird and Ware 1982, doi:10.2307/2529876 (random effects);
Chung et al. 2013, doi:10.1007/s11336-013-9328-2 (priors that keep variances of few groups from zero).
"""

from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import FloatArray, IntArray
from qcord.normative.deviating import (
    FAR,
    FEWEST,
    GAIN,
    NONE,
    Deviating,
    choice_cost,
    fit_deviating,
    from_median,
    membership,
    predictive,
)
from qcord.normative.hierarchy import Hierarchy, Sites
from qcord.normative.statistics import Statistics
from qcord.normative.studies import Studies, studies_of
from qcord.normative.terms import Terms

PRIORS = {
    "within": (0.0, 100.0),
    "site": (np.log(0.5), 1.0),
    "manufacturer": (0.0, 1.0),
    "smooth": (np.log(0.3), 1.0),
    "within of": (0.0, 0.3),
    "site of": (0.0, 0.5),
    "study": (np.log(0.5), 1.0),
}
"""Mean and standard deviation of the logarithms of the spread of people, of sites, manufacturers and the smooth part of
age (these over that of people), and of what a manufacturer's people and sites depart from all; studies as sites.
Assumed; weak where data are many."""

_COVARIATE = 1.0
"""Standard deviation that an effect of sex, of 20 years or of 10 cm may have, over that of people: assumed."""

_STEP = 1e-3
_WIDEST = 7.0
_ROUNDS, _LONGEST, _SETTLED = 40, 1.5, 1e-8
_SHARE_ROUNDS = 12
_LENGTHS = np.array([1.0, 0.5, 0.2, 0.05, 0.01])
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class _Data:
    terms: Terms
    stats: Statistics
    scale: FloatArray
    starts: IntArray
    site_of: IntArray
    maker_of_group: IntArray
    maker_of_site: IntArray
    makers: tuple[str, ...]
    studies: Studies | None
    extra: FloatArray  # variance of the shift of each site beyond that of the others


def estimate(statistics: Statistics, scale: FloatArray | None = None, start: FloatArray | None = None) -> Hierarchy:
    """Estimate the model.

    Parameters
    ----------
    statistics : Statistics
        Groups, those of a site beside each other.
    scale : (k,) array, optional
        Variance of the people of each group over that of others: more for the old, or for values far from all others.
    start : (d,) array, optional
        Variances to start from; no matter if they are of another number.

    Returns
    -------
    Hierarchy
        Estimates.
    """
    n, total = statistics.count.sum(), statistics.xy[:, 0].sum()
    centre = float(total / n)
    square = statistics.yy.sum() / n - centre**2
    spread = float(np.sqrt(max(square * n / max(n - 1, 1), 0.0)))
    if not spread > 1e-12 * max(abs(centre), 1e-300):
        spread = max(abs(centre), 1.0) * 1e-6
    data = _prepare(_standardised(statistics, centre, spread), scale)
    d = 4 + 2 * len(data.makers) + (data.studies is not None)
    first = np.array([PRIORS[name][0] for name in _names(len(data.makers), d)])

    variances = _search(data, start if start is not None and len(start) == d else first)
    data, variances, deviating = _with_deviating(data, variances)
    hessian = _hessian(data, variances)
    values, vectors = np.linalg.eigh(hessian)
    spread_of = (vectors / np.maximum(values, 1e-2)) @ vectors.T
    steps = np.concatenate([variances + _STEP * np.eye(d), variances - _STEP * np.eye(d), variances[None]])
    coefficients, covariance = _objective(data, steps, whole=True)[1]
    site = _site_sums(data, variances[None])
    weight, columns, value = (x[0] for x in site[:3])
    count = np.add.reduceat(data.stats.count, data.starts)
    sites = Sites(
        tuple(data.stats.site[k] for k in data.starts),
        tuple(data.stats.manufacturer[k] for k in data.starts),
        count,
        weight,
        columns,
        value,
        tuple(data.stats.study[k] for k in data.starts) if data.studies is not None else (),
    )
    return Hierarchy(
        centre,
        spread,
        data.makers,
        variances,
        spread_of,
        coefficients[-1],
        covariance[-1],
        (coefficients[:d] - coefficients[d : 2 * d]) / (2 * _STEP),
        (covariance[:d] - covariance[d : 2 * d]) / (2 * _STEP),
        sites,
        deviating,
        data.studies.name if data.studies is not None else (),
    )


def _with_deviating(data: _Data, variances: FloatArray) -> tuple[_Data, FloatArray, Deviating]:
    """Data and variances with a share of sites that deviate, if they ask for it.

    Each round finds share and width from the residuals of the sites, then all else with the shift of each site as wide
    as its expected precision says. The first residuals are those from the median site of a manufacturer. The evidence
    is that of the likeliest choice of sites, a lower bound of that of all choices.
    """
    if len(data.starts) < FEWEST:
        return data, variances, NONE
    residual, weight = _residuals(data, variances)
    within = float(np.exp(variances[0]))
    usual, sites, tau2 = from_median(residual / within, data.maker_of_site)
    if not (np.abs(usual[sites]) > FAR * np.sqrt(tau2 + 1 / weight[sites] / within**2)).any():
        return data, variances, NONE
    normal = float(_objective(data, variances[None])[0][0])
    found = fit_deviating(usual[sites], 1 / weight[sites] / within**2, tau2)
    one = np.where(sites, membership(found, usual, tau2 + 1 / weight / within**2, within=1.0), found.share)
    m = len(data.makers)
    wider, moved = data, np.concatenate([variances[: 4 + m], np.zeros(m), variances[4 + 2 * m :]])
    moved[1] = np.log(tau2) / 2
    core = np.full(len(one), tau2 * within**2)
    for _ in range(_SHARE_ROUNDS):
        wide = (found.width * within) ** 2
        wider = replace(data, extra=1 / ((1 - one) / core + one / (core + wide)) - core)
        last, moved = moved, _search(wider, moved)
        residual, weight = _residuals(wider, moved)
        within = float(np.exp(moved[0]))
        core = spreads(moved, len(data.makers))[1][data.maker_of_site] ** 2
        new = fit_deviating(residual / within, 1 / weight / within**2, core / within**2, found)
        one = membership(new, residual, core + 1 / weight, within=within)
        settled = abs(new.share - found.share) < 1e-3 and np.abs(moved - last).max() < 1e-2
        found = new
        if settled:
            break
    chosen = np.where(one > 0.5, (found.width * within) ** 2, 0.0)
    cost = float(_objective(replace(data, extra=chosen), moved[None])[0][0]) + choice_cost(found, one > 0.5)
    return (wider, moved, predictive(found, one)) if 2 * (normal - cost) > GAIN else (data, variances, NONE)


def _residuals(data: _Data, variances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean of the people of each site less what is expected of its manufacturer, and the weight of the mean."""
    coefficients = _objective(data, variances[None], whole=True)[1][0][0]
    weight, columns, value = (x[0] for x in _site_sums(data, variances[None])[:3])
    p = columns.shape[1]
    residual = (value - columns @ coefficients[:p]) / weight - coefficients[p + data.maker_of_site]
    if data.studies is not None:
        shifts = np.append(coefficients[p + len(data.makers) :], 0.0)  # the last one for a study of its own
        residual -= shifts[data.studies.of_site]
    return residual, weight


def _search(data: _Data, start: FloatArray) -> FloatArray:
    """Variances of the highest restricted likelihood, by damped Newton steps; each tries several lengths at once."""
    variances = np.clip(start, -_WIDEST, _WIDEST)
    for _ in range(_ROUNDS):
        value, gradient = _with_gradient(data, variances)
        values, vectors = np.linalg.eigh(_hessian(data, variances))
        step = -vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 0.1))
        step *= min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-12))
        tried = np.clip(variances + _LENGTHS[:, None] * step, -_WIDEST, _WIDEST)
        found = _objective(data, tried)[0]
        best = int(np.argmin(found))
        small = -float(gradient @ step) < _SETTLED
        if small or found[best] >= value:
            # so near the top values differ by rounding alone: the full step of a quadratic is then the best known
            return np.asarray(tried[0] if np.abs(step).max() < 1e-2 else variances)
        variances = tried[best]
    return np.asarray(variances)


def spreads(variances: FloatArray, n_makers: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Spread of people and of sites by manufacturer (..., m), of manufacturers and of the smooth part (...)."""
    within = np.exp(variances[..., 0])
    people = within[..., None] * np.exp(variances[..., 4 : 4 + n_makers])
    sites = within[..., None] * np.exp(variances[..., 1:2] + variances[..., 4 + n_makers : 4 + 2 * n_makers])
    return people, sites, within * np.exp(variances[..., 2]), within * np.exp(variances[..., 3])


def study_spread(variances: FloatArray, n_makers: int) -> FloatArray:
    """Spread of studies (...); 0 where they have none of their own."""
    if variances.shape[-1] == 4 + 2 * n_makers:
        return np.zeros(variances.shape[:-1])
    return np.asarray(np.exp(variances[..., 0] + variances[..., -1]))


def _standardised(s: Statistics, centre: float, spread: float) -> Statistics:
    return replace(
        s,
        variance=s.variance / spread**2,
        xy=(s.xy - centre * s.xx[:, 0]) / spread,
        yy=(s.yy - 2 * centre * s.xy[:, 0] + centre**2 * s.count) / spread**2,
    )


def _prepare(s: Statistics, scale: FloatArray | None) -> _Data:
    makers = tuple(sorted(set(s.manufacturer)))
    number = {name: k for k, name in enumerate(makers)}
    of_group = np.array([number[name] for name in s.manufacturer])
    new = np.array([True, *(a != b for a, b in zip(s.site[1:], s.site[:-1], strict=True))])
    starts = np.flatnonzero(new)
    return _Data(
        s.terms,
        s,
        np.ones(len(s.count)) if scale is None else scale,
        starts,
        np.cumsum(new) - 1,
        of_group,
        of_group[starts],
        makers,
        studies_of(tuple(s.study[k] for k in starts)) if s.study else None,
        np.zeros(len(starts)),
    )


def _site_sums(
    data: _Data, variances: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """For each of b sets of variances: sums by site (weight, columns, value), and over all (xx, xy, yy, log det)."""
    s = data.stats
    people = spreads(variances, len(data.makers))[0]
    variance = people[:, data.maker_of_group] ** 2 * data.scale + s.variance
    w = 1 / variance
    p = s.xy.shape[1]

    def by_site(x: FloatArray) -> FloatArray:
        return np.asarray(np.add.reduceat(x, data.starts, axis=1))

    columns = by_site(w[:, :, None] * s.xx[:, 0])
    return (
        by_site(w * s.count),
        columns,
        by_site(w * s.xy[:, 0]),
        # sums by einsum: threads of BLAS would only wait for each other in products of this size
        np.einsum("bk,kj->bj", w, s.xx.reshape(len(s.count), -1)).reshape(-1, p, p),
        np.einsum("bk,kj->bj", w, s.xy),
        np.einsum("bk,k->b", w, s.yy),
        np.einsum("bk,k->b", np.log(variance), s.count),
    )


def _objective(
    data: _Data, variances: FloatArray, *, whole: bool = False
) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """Negative log of restricted likelihood times priors (b,); coefficients (b, P) and covariance (b, P, P).

    Shifts of studies are among the coefficients if the whole is wanted.
    """
    b, m = len(variances), len(data.makers)
    p = data.stats.xy.shape[1]
    step = max(1, int(_CHUNK / (len(data.stats.count) * (p + 4))))
    if b > step:
        parts = [_objective(data, variances[k : k + step], whole=whole) for k in range(0, b, step)]
        return np.concatenate([x[0] for x in parts]), (
            np.concatenate([x[1][0] for x in parts]),
            np.concatenate([x[1][1] for x in parts]),
        )
    _, site, maker, bend = spreads(variances, m)
    weight, columns, value, xx, xy, yy, logs = _site_sums(data, variances)
    tau2 = site[:, data.maker_of_site] ** 2 + data.extra
    study2 = study_spread(variances, m)[:, None] ** 2
    if data.studies is not None:
        tau2 = tau2 + np.where(data.studies.of_site < 0, study2, 0.0)
    rest = 1 / (weight + 1 / tau2)
    a = np.zeros((b, p + m, p + m))
    right = np.zeros((b, p + m))
    a[:, :p, :p] = xx - np.einsum("bs,bsi,bsj->bij", rest, columns, columns)
    right[:, :p] = xy - np.einsum("bs,bsi,bs->bi", rest, columns, value)
    kept = 1 - rest * weight
    for k in range(m):
        mine = data.maker_of_site == k
        a[:, p + k, :p] = np.einsum("bs,bsi->bi", kept[:, mine], columns[:, mine])
        a[:, :p, p + k] = a[:, p + k, :p]
        a[:, p + k, p + k] = (kept[:, mine] * weight[:, mine]).sum(axis=1)
        right[:, p + k] = (kept[:, mine] * value[:, mine]).sum(axis=1)
    square = yy - np.einsum("bs,bs,bs->b", rest, value, value)
    within = np.exp(variances[:, 0])
    prior = np.zeros((b, p + m))
    for k, name in enumerate(data.terms.names):
        if name != "one":
            prior[:, k] = 1 / (bend if name.startswith("age ") else _COVARIATE * within) ** 2
    prior[:, p:] = 1 / maker[:, None] ** 2
    a[:, range(p + m), range(p + m)] += prior
    block = None
    if data.studies is not None:
        of_maker = data.maker_of_site[:, None] == np.arange(m)
        block = data.studies.block(kept, (weight, columns, value), of_maker, study2)
        lost = block.taken_out()
        a, right, square = a - lost[0], right - lost[1], square - lost[2]
    covariance: FloatArray = np.linalg.inv(a)
    coefficients = np.einsum("bij,bj->bi", covariance, right)
    result = logs + np.log1p(tau2 * weight).sum(axis=1) + np.linalg.slogdet(a)[1]
    result -= np.log(prior[:, 1:]).sum(axis=1)
    result += square - np.einsum("bi,bi->b", right, coefficients)
    if block is not None:
        result += np.log(block.precision * study2).sum(axis=1)
        if whole:
            coefficients, covariance = block.put_back(coefficients, covariance)
    return result / 2 + _penalty(variances, m), (coefficients, covariance)


def _names(m: int, d: int) -> list[str]:
    """Keys of `PRIORS` for d variances of m manufacturers."""
    names = ["within", "site", "manufacturer", "smooth", *["within of"] * m, *["site of"] * m]
    return names + ["study"] * (d - len(names))


def _penalty(variances: FloatArray, m: int) -> FloatArray:
    mean, std = np.array([PRIORS[name] for name in _names(m, variances.shape[-1])]).T
    return np.asarray((((variances - mean) / std) ** 2).sum(axis=-1) / 2)


def _with_gradient(data: _Data, variances: FloatArray) -> tuple[float, FloatArray]:
    d = len(variances)
    steps = np.concatenate([variances[None], variances + _STEP * np.eye(d), variances - _STEP * np.eye(d)])
    value = _objective(data, steps)[0]
    return float(value[0]), (value[1 : d + 1] - value[d + 1 :]) / (2 * _STEP)


def _hessian(data: _Data, variances: FloatArray) -> FloatArray:
    """Second derivatives, by differences along the spreads that the likelihood sees.

    A manufacturer's spread is the sum of the common one and its own part, which people of one manufacturer cannot tell
    apart: differences along both would leave there the error of cancelling large numbers.
    """
    d, h = len(variances), 0.05
    to = _seen(len(data.makers), d)
    along = h * np.linalg.inv(to).T
    i, j = np.triu_indices(d, 1)
    steps = np.concatenate(
        [
            variances[None],
            variances + along,
            variances - along,
            variances + along[i] + along[j],
            variances - along[i] - along[j],
        ]
    )
    value = _objective(data, steps)[0]
    up, down = value[1 : d + 1], value[d + 1 : 2 * d + 1]
    result = np.diag((up + down - 2 * value[0]) / h**2)
    both, neither = value[2 * d + 1 :].reshape(2, -1)
    result[i, j] = (both + neither - up[i] - up[j] - down[i] - down[j] + 2 * value[0]) / (2 * h**2)
    result[j, i] = result[i, j]
    return np.asarray(to.T @ result @ to)


def _seen(m: int, d: int) -> FloatArray:
    """Matrix (d, d) from the variances to those with the whole spreads of each of m manufacturers in their place."""
    to = np.eye(d)
    to[4 : 4 + 2 * m, 0] = 1.0
    to[4 + m : 4 + 2 * m, 1] = 1.0
    return to
