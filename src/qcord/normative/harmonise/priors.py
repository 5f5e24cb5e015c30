"""What a site has in common with the other sites of its manufacturer, learnt from all sites and features.

A tree in two levels: manufacturers, each with a mean shift and a scale of its own; sites, drawn from a normal
distribution about their manufacturer. How far sites lie about it (spread of shifts, spread of log scales) is not known
from 4 sites of one metric; its distribution over all manufacturers and features is (parametric empirical Bayes). All
integrals over spreads and scales are sums over grids, so that the errors hold the doubt about the spreads themselves.
All shifts are in units of the feature's spread between persons of a site.

References
----------
Johnson 2007, doi:10.1093/biostatistics/kxj037 (empirical Bayes over features); Gelman 2006, doi:10.1214/06-BA117A
(spreads of few groups); Morris 1983, doi:10.1080/01621459.1983.10477920 (parametric empirical Bayes).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, polygamma

from qcord.core.arrays import FloatArray, IntArray

SPREADS = np.geomspace(0.01, 20.0, 80)
"""Spreads of site shifts about their manufacturer, in units of the spread between persons."""

LOG_SCALES = np.linspace(-1.6, 1.6, 65)
"""Logarithms of site scales: from a fifth to five times the spread of the other sites."""

LEAST_VARIATION = 1e-12
"""Variation over features that is taken for none: features that are one another's multiples."""

COMPONENTS = 10
"""Ranges of spreads that the belief about a further site is kept in."""

_LOG_SPREADS = np.log(SPREADS)
_CENTRES = np.log(np.geomspace(0.03, 10.0, 24))
_CENTRE_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_USUAL_CENTRE = (float(np.log(0.5)), 1.5)
_WIDTHS = np.geomspace(0.03, 1.0, 8)
_USUAL_WIDTH = (float(np.log(0.15)), 0.7)


@dataclass(frozen=True, eq=False)
class Location:
    """Shifts after drawing sites to their manufacturers.

    Parameters
    ----------
    shift, shift_variance : (k, g) arrays
        Mean and variance of each site's shift, given all data.
    maker_shift, maker_variance : (m, g) arrays
        Mean shift of each manufacturer and its variance.
    new_weight, new_mean, new_variance : (m, g, c) arrays
        What is known of a further site of a manufacturer: a mixture of normal distributions, each for a range of
        spreads. Its tails are heavier than those of one normal distribution: a site that lies far off shows that sites
        of this manufacturer differ more than was thought, and is believed rather than drawn in.
    """

    shift: FloatArray
    shift_variance: FloatArray
    maker_shift: FloatArray
    maker_variance: FloatArray
    new_weight: FloatArray
    new_mean: FloatArray
    new_variance: FloatArray


@dataclass(frozen=True, eq=False)
class Scale:
    """Logarithms of scales after drawing sites to their manufacturers; fields as in `Location`."""

    log_scale: FloatArray
    log_scale_variance: FloatArray
    maker_log_scale: FloatArray
    new_site_variance: FloatArray


@dataclass(frozen=True, eq=False)
class _Cell:
    evidence: FloatArray  # (t, g)
    mean: FloatArray  # (t, g)
    mean_variance: FloatArray  # (t, g)
    shift: FloatArray  # (t, k, g)
    shift_variance: FloatArray  # (t, k, g)


def _given_spread(shift: FloatArray, variance: FloatArray) -> _Cell:
    """Restricted likelihood of each spread, and shifts given it, for the sites of one manufacturer."""
    known = np.isfinite(shift) & np.isfinite(variance)
    y = np.where(known, shift, 0.0)[None]
    own = np.where(known, variance, 1.0)[None]
    square = (SPREADS**2)[:, None, None]
    weight = np.where(known[None], 1 / (own + square), 0.0)
    total = weight.sum(axis=1)
    seen = total > 0
    safe = np.where(seen, total, 1.0)
    mean = np.where(seen, (weight * y).sum(axis=1) / safe, 0.0)
    mean_variance = np.where(seen, 1 / safe, np.inf)
    distance = weight * (y - mean[:, None]) ** 2
    log_weight = np.where(known[None], np.log(np.where(weight > 0, weight, 1.0)), 0.0)
    evidence = 0.5 * (log_weight.sum(axis=1) - np.log(safe) - distance.sum(axis=1))
    keep = np.where(known[None], square / (square + own), 0.0)
    site = keep * y + (1 - keep) * mean[:, None]
    site_variance = np.where(known[None], keep * own, square) + (1 - keep) ** 2 * mean_variance[:, None]
    return _Cell(np.where(seen, evidence, 0.0), mean, mean_variance, site, site_variance)


def _normal_log_weights(grid: FloatArray, centre: float, width: float) -> FloatArray:
    log_weight = -0.5 * ((grid - centre) / width) ** 2
    return np.asarray(log_weight - logsumexp(log_weight))


def _spread_priors(evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distributions of spreads over manufacturers and features, (h, t), and the logarithm of how far each is believed.

    ``evidence`` is (t, cells): the log-likelihood of each spread in each manufacturer and feature.
    """
    shapes = [(centre, width) for centre in _CENTRES for width in _CENTRE_WIDTHS]
    priors = np.exp([_normal_log_weights(_LOG_SPREADS, centre, width) for centre, width in shapes])
    peak = evidence.max(axis=0)
    log_weight = np.log(np.maximum(priors @ np.exp(evidence - peak), 1e-300)).sum(axis=1)
    log_weight = log_weight + [-0.5 * ((c - _USUAL_CENTRE[0]) / _USUAL_CENTRE[1]) ** 2 for c, _ in shapes]
    return priors, np.asarray(log_weight - logsumexp(log_weight))


def _spread_posterior(evidence: FloatArray, priors: FloatArray, log_weight: FloatArray) -> FloatArray:
    """Probability of each spread in each feature of one manufacturer, (t, g)."""
    likelihood = np.exp(evidence - evidence.max(axis=0))
    share = np.exp(log_weight)[:, None] / np.maximum(priors @ likelihood, 1e-300)
    posterior = likelihood * (priors.T @ share)
    return np.asarray(posterior / posterior.sum(axis=0))


def locate(shift: FloatArray, variance: FloatArray, maker: IntArray, n_makers: int) -> Location:
    """Draw the shifts of sites to those of their manufacturers.

    Parameters
    ----------
    shift, variance : (k, g) arrays
        Shift of each site and feature and its sampling variance, in units of the spread between persons; NaN where a
        site has no value.
    maker : (k,) int array
        Manufacturer of each site.
    n_makers : int
        m.
    """
    cells = [_given_spread(shift[maker == m], variance[maker == m]) for m in range(n_makers)]
    priors, log_weight = _spread_priors(np.concatenate([c.evidence for c in cells], axis=1))
    out_shift, out_variance = np.full(shift.shape, np.nan), np.full(shift.shape, np.nan)
    summaries = []
    for m, cell in enumerate(cells):
        p = _spread_posterior(cell.evidence, priors, log_weight)
        site = np.einsum("tg,tkg->kg", p, cell.shift)
        out_shift[maker == m] = site
        out_variance[maker == m] = np.einsum("tg,tkg->kg", p, cell.shift_variance + (cell.shift - site) ** 2)
        mean = (p * cell.mean).sum(axis=0)
        spread = (p * (cell.mean_variance + (cell.mean - mean) ** 2)).sum(axis=0)
        summaries.append((mean, spread, *_mixture(p, cell)))
    return Location(out_shift, out_variance, *(np.stack(part) for part in zip(*summaries, strict=True)))


def _mixture(p: FloatArray, cell: _Cell) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weight, mean and variance of a further site's shift for `COMPONENTS` ranges of the spread, (g, c)."""
    variance = cell.mean_variance + SPREADS[:, None] ** 2

    def join(values: FloatArray) -> FloatArray:
        return np.asarray(values.reshape(COMPONENTS, -1, values.shape[1]).sum(axis=1).T)

    weight = np.maximum(join(p), 1e-300)
    mean = join(p * cell.mean) / weight
    square = join(p * (variance + cell.mean**2)) / weight
    empty = weight < 1e-12
    return np.where(empty, 0.0, weight), np.where(empty, 0.0, mean), np.where(empty, 1.0, square - mean**2)


def rescale(log_likelihood: FloatArray, maker: IntArray, n_makers: int) -> Scale:
    """Draw the scales of sites to those of their manufacturers, and these to 1.

    Parameters
    ----------
    log_likelihood : (k, g, d) array
        Log-likelihood of `LOG_SCALES` for each site and feature; constant where a site tells nothing.
    maker : (k,) int array
        Manufacturer of each site.
    n_makers : int
        m.

    Notes
    -----
    Messages go from sites to manufacturers and back, exactly on the grid. The two widths (of sites about manufacturers
    and of manufacturers about 1) are common to all features; what is not known of them is averaged over.
    """
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=2, keepdims=True))
    found, log_weights = [], []
    for site_width in _WIDTHS:
        kernel = _kernel(site_width)
        own = _log(likelihood @ kernel)  # what each site tells its manufacturer
        up = np.stack([own[maker == m].sum(axis=0) for m in range(n_makers)])
        levels = [_feature_level(up, width) for width in _WIDTHS]
        log_evidence = np.array([e for _, e in levels]) + _width_weight(site_width) + _width_weight(_WIDTHS)
        # the width of manufacturers enters by the prior of their scales alone, which is averaged over it
        weights = np.exp(log_evidence - logsumexp(log_evidence))
        given = [np.exp(-0.5 * ((LOG_SCALES - c[:, None]) / w) ** 2) for (c, _), w in zip(levels, _WIDTHS, strict=True)]
        given = [p / p.sum(axis=1, keepdims=True) for p in given]  # (g, d)
        prior = _log(np.tensordot(weights, np.stack(given), axes=1))
        log_weights.append(logsumexp(log_evidence))
        belief = _normalised(up + prior)
        site = (_normalised(up[maker] + prior - own) @ kernel.T) * likelihood
        found.append((site / site.sum(axis=2, keepdims=True), belief, belief @ kernel.T))
    share = np.exp(np.array(log_weights) - logsumexp(log_weights))
    site, belief, new = (np.tensordot(share, np.stack(part), axes=1) for part in zip(*found, strict=True))
    mean, variance = _moments(site)
    return Scale(mean, variance, _moments(belief)[0], _moments(new)[1])


def _feature_level(up: FloatArray, maker_width: float) -> tuple[FloatArray, float]:
    """Log scale that the manufacturers of each feature lie about, (g,), and the log-likelihood of their width.

    The spread of a feature is known no better than the manufacturers tell it. Taken as known, it would make them look
    more alike than they are, as a mean does that was estimated from the values themselves.
    """
    peak = up.max(axis=2, keepdims=True)
    level = (_log(np.exp(up - peak) @ _kernel(maker_width)) + peak).sum(axis=0)
    p = np.exp(level - logsumexp(level, axis=1, keepdims=True))
    return p @ LOG_SCALES, float(logsumexp(level, axis=1).sum())


def _width_weight(width: FloatArray | float) -> FloatArray:
    """Logarithm of how far a width of log scales is believed before the data."""
    centre, spread = _USUAL_WIDTH
    return np.asarray(-0.5 * ((np.log(width) - centre) / spread) ** 2)


def _kernel(width: float) -> FloatArray:
    """Probability of a site's log scale (rows) given its manufacturer's (columns)."""
    distance = (LOG_SCALES[:, None] - LOG_SCALES[None]) / width
    kernel = np.exp(-0.5 * distance**2)
    return np.asarray(kernel / kernel.sum(axis=0))


def _log(probability: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(probability, 1e-300)))


def _normalised(log_probability: FloatArray) -> FloatArray:
    return np.asarray(np.exp(log_probability - logsumexp(log_probability, axis=2, keepdims=True)))


def _moments(probability: FloatArray) -> tuple[FloatArray, FloatArray]:
    p = probability / probability.sum(axis=2, keepdims=True)
    mean = p @ LOG_SCALES
    return mean, np.asarray(p @ LOG_SCALES**2 - mean**2)


def feature_priors(
    z: FloatArray, site: IntArray, n_sites: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Shift and scale of each site drawn to their distribution over the features of that site.

    Parameters
    ----------
    z : (n, g) array
        Values less mean and covariates over the common spread, NaN where absent.
    site : (n,) int array
        Site of each row; at least two values each.
    n_sites : int
        k.

    Returns
    -------
    shift, shift_variance, log_scale, log_scale_variance : (k, g) arrays

    References
    ----------
    Johnson 2007, doi:10.1093/biostatistics/kxj037: conditional posterior means, iterated until they agree.
    """
    found = []
    for i in range(n_sites):
        own = z[site == i]
        n = np.isfinite(own).sum(axis=0)
        mean, variance = np.nanmean(own, axis=0), np.nanvar(own, axis=0, ddof=1)
        centre, square = mean.mean(), max(mean.var(ddof=1), LEAST_VARIATION)
        m = variance.mean()
        s2 = max(variance.var(ddof=1), LEAST_VARIATION * m**2)
        a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
        shift, scale2 = mean, variance
        for _ in range(1000):
            new_shift = (n * square * mean + scale2 * centre) / (n * square + scale2)
            new_scale2 = (0.5 * np.nansum((own - new_shift) ** 2, axis=0) + b) / (n / 2 + a - 1)
            change = max(np.abs(new_shift - shift).max(), np.abs(new_scale2 / scale2 - 1).max())
            shift, scale2 = new_shift, new_scale2
            if change < 1e-10:
                break
        found.append((shift, 1 / (n / scale2 + 1 / square), np.log(scale2) / 2, polygamma(1, n / 2 + a) / 4))
    shift, shift_variance, log_scale, log_scale_variance = (np.stack(part) for part in zip(*found, strict=True))
    return shift, shift_variance, log_scale, log_scale_variance
