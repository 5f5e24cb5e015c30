"""What a norm expects of people: one part for each thing that is not known, with its probability."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.normative.deviating import log_density
from qcord.normative.hierarchical import spreads, study_spread
from qcord.normative.hierarchy import Hierarchy
from qcord.normative.norm import Norm

MANUFACTURER = 2
"""Place of the spread of manufacturers among the variances."""

OTHER = "other"
"""Basis of predictions for manufacturers that are not among those of the norm."""

_NODES = 9


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a healthy person of each row is expected to measure; units of ``hierarchy.spread`` about its centre.

    Parameters
    ----------
    mean : (n,) array
        Expected value.
    people : (n,) array
        Spread of people.
    unsure : (n,) array
        Standard deviation of the error of the mean, with that of the shift of a site that is not known.
    freedom : (n,) array
        Degrees of freedom of the whole variance.
    basis : (n,) array of str
        ``site``, ``manufacturer`` or ``other``: whose values they are.
    new_study : (n,) array of bool
        Whether the norm knows of studies, but not of this one.
    """

    mean: FloatArray
    people: FloatArray
    unsure: FloatArray
    freedom: FloatArray
    basis: "np.ndarray[tuple[int], np.dtype[np.object_]]"
    new_study: BoolArray


class Part(NamedTuple):
    """Prediction for sites of one kind, or for one of the spreads that manufacturers may have.

    Parameters
    ----------
    weight : (n,) array
        Probability of this part for each row.
    prediction : Prediction
        What is expected then.
    """

    weight: FloatArray
    prediction: Prediction


class _Places(NamedTuple):
    site: list[str]
    manufacturer: list[str]
    study: list[str] | None


def predict(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    *,
    site: Iterable[str],
    manufacturer: Iterable[str],
    variance: FloatArray,
    study: Iterable[str] | None = None,
) -> Prediction:
    """Predict from covariates; where sites may deviate, mean and variance of the whole.

    Parameters are those of `predict_parts`.
    """
    places = _Places(list(site), list(manufacturer), None if study is None else list(study))
    found = list(_kinds(norm, design, age, places, variance))
    if len(found) == 1:
        return found[0][1]
    weights = special.softmax([share + evidence for share, _, evidence in found], axis=0)
    parts = [(weight, prediction) for weight, (_, prediction, _) in zip(weights, found, strict=True)]
    mean = np.asarray(sum(weight * p.mean for weight, p in parts))
    unsure2 = sum(weight * (p.unsure**2 + (p.mean - mean) ** 2) for weight, p in parts)
    return replace(parts[0][1], mean=mean, unsure=np.sqrt(np.asarray(unsure2)))


def predict_parts(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    *,
    site: Iterable[str],
    manufacturer: Iterable[str],
    variance: FloatArray,
    study: Iterable[str] | None = None,
) -> tuple[Part, ...]:
    """Predict from covariates: a part for sites like most, one for those that deviate, if some do.

    Where a manufacturer is not among those of the norm, each comes for several spreads that manufacturers may have: few
    manufacturers tell little of how far another one lies, and a Student number of few degrees of freedom would be wider
    than that. So it is with a study that the norm does not know, if its people came with studies. What the people of a
    site itself say weighs the parts.

    Parameters
    ----------
    norm : Norm
        The norm.
    design : (n, p) array
        Columns of its terms.
    age : (n,) array
        Age [years].
    site, manufacturer, study : n str
        Where it is measured, and for which study, where that is known.
    variance : (n,) array
        Squared standard error of the value, over the squared spread of the hierarchy; for the degrees of freedom.
    """
    places = _Places(list(site), list(manufacturer), None if study is None else list(study))
    found = list(_kinds(norm, design, age, places, variance))
    unsure = MANUFACTURER if (found[0][1].basis == OTHER).any() else -1 if found[0][1].new_study.any() else None
    if unsure is not None:
        found = [
            (share + kind, prediction, evidence)
            for share, one in _possible(norm, unsure)
            for kind, prediction, evidence in _kinds(one, design, age, places, variance)
        ]
    weights = special.softmax([share + evidence for share, _, evidence in found], axis=0)
    return tuple(Part(weight, prediction) for weight, (_, prediction, _) in zip(weights, found, strict=True))


def _kinds(
    norm: Norm, design: FloatArray, age: FloatArray, places: _Places, variance: FloatArray
) -> Iterator[tuple[float, Prediction, FloatArray]]:
    """Logarithm of the share, prediction, and log density of what is known of each site, for the kinds of sites."""
    deviating = norm.hierarchy.deviating
    if deviating.none:
        yield (0.0, *_part(norm, design, age, places, variance, width=0.0))
        return
    for share, width in ((1 - deviating.share, 0.0), (deviating.share, deviating.width)):
        yield (float(np.log(share)), *_part(norm, design, age, places, variance, width=width))


def _possible(norm: Norm, which: int) -> Iterator[tuple[float, Norm]]:
    """Logarithm of the weight, and the norm, for values that one of its spreads may have; the middle one first."""
    h = norm.hierarchy
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    rest = h.variances_covariance.copy()
    rest[which] = rest[:, which] = 0.0
    step = np.sqrt(h.variances_covariance[which, which])
    for k in np.argsort(np.abs(nodes)):
        variances = h.variances.copy()
        variances[which] += nodes[k] * step
        one = replace(norm, hierarchy=replace(h, variances=variances, variances_covariance=rest))
        yield float(np.log(weights[k] / weights.sum())), one


def _part(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    places: _Places,
    variance: FloatArray,
    *,
    width: float,
) -> tuple[Prediction, FloatArray]:
    """Prediction, and log density of what is known of each site, if shifts are wider by some spreads of people."""
    h = norm.hierarchy
    m, p, n = len(h.manufacturers), design.shape[1], len(design)
    number = {name: k for k, name in enumerate(h.manufacturers)}
    place = {name: k for k, name in enumerate(h.sites.name)}
    at = np.array([place.get(str(s), -1) for s in places.site])
    # a site that is known stays with its manufacturer
    maker = np.array(
        [
            number.get(h.sites.manufacturer[k] if k >= 0 else str(v), -1)
            for k, v in zip(at, places.manufacturer, strict=True)
        ]
    )
    study = _study(h, at, places)
    people, sites, makers, _ = spreads(h.variances, m)
    sigma2 = np.where(maker >= 0, people[maker], np.exp(h.variances[0])) ** 2
    tau2 = np.where(maker >= 0, sites[maker], np.exp(h.variances[0] + h.variances[1])) ** 2
    sigma2 = sigma2 * np.exp(2 * norm.widening * (age - 50.0) / 20.0)
    known, foreign = at >= 0, maker < 0
    new_study = (study < 0) & h.studied
    # what is not known of a manufacturer or a study counts as part of the shift of the site
    unlike = np.where(foreign, makers**2, 0.0)
    apart = np.where(new_study, study_spread(h.variances, m) ** 2, 0.0)
    wide2 = (width * np.exp(h.variances[0])) ** 2
    prior = tau2 + unlike + wide2 + apart
    # the last row stands for sites that are not known
    nothing = np.zeros((1, p))
    weight = np.append(h.sites.weight, 0.0)[at]
    columns, value = np.concatenate([h.sites.columns, nothing])[at], np.append(h.sites.value, 0.0)[at]
    rest = 1 / (weight + 1 / prior)
    row = _coded(h, design, np.ones(n), maker, study)
    seen = _coded(h, columns, weight, maker, study)
    shrunk = row - rest[:, None] * seen
    mean = shrunk @ h.coefficients + rest * value
    moved = shrunk @ h.coefficients_slope.T
    unsure2 = np.einsum("ni,ij,nj->n", shrunk, h.covariance, shrunk) + rest
    unsure2 += np.einsum("ni,ij,nj->n", moved, h.variances_covariance, moved)
    # change of the whole variance with the logarithms of the spreads
    slope = np.einsum("ni,dij,nj->nd", shrunk, h.covariance_slope, shrunk)
    by_prior = (rest / prior) ** 2
    by_weight = 2 * rest**2 * weight
    slope[:, 0] += 2 * sigma2 + 2 * by_prior * prior + by_weight
    slope[:, 1] += 2 * by_prior * tau2
    slope[:, 2] += 2 * by_prior * unlike
    mine = np.flatnonzero(~foreign)
    slope[mine, 4 + maker[mine]] += (2 * sigma2 + by_weight)[mine]
    slope[mine, 4 + m + maker[mine]] += (2 * by_prior * tau2)[mine]
    if h.studied:
        slope[:, -1] += 2 * by_prior * apart
    whole = sigma2 + unsure2 + variance
    doubt = np.einsum("ni,ij,nj->n", slope, h.variances_covariance, slope)
    doubt += (2 * by_prior * wide2) ** 2 * h.deviating.doubt
    freedom = np.clip(2 * whole**2 / np.maximum(doubt, 1e-300), 1.0, 1e6)
    basis = np.where(known, "site", np.where(foreign, OTHER, "manufacturer")).astype(object)
    evidence = _evidence(h, np.where(known, weight, 0.0), seen, value, prior)
    return Prediction(mean, np.sqrt(sigma2), np.sqrt(unsure2), freedom, basis, new_study), evidence


def _coded(h: Hierarchy, columns: FloatArray, one: FloatArray, maker: IntArray, study: IntArray) -> FloatArray:
    """Columns (n, p) and one for each manufacturer and study, with a number (n,) in those of the row."""
    p, m = columns.shape[1], len(h.manufacturers)
    result = np.zeros((len(columns), p + m + len(h.studies)))
    result[:, :p] = columns
    for first, group in ((p, maker), (p + m, study)):
        mine = np.flatnonzero(group >= 0)
        result[mine, first + group[mine]] = one[mine]
    return result


def _study(h: Hierarchy, at: IntArray, places: _Places) -> IntArray:
    """Number of the study of each row, -1 where the norm does not know it; a site that is known stays with its own."""
    number = {name: k for k, name in enumerate(h.studies)}
    if not number:
        return np.full(len(at), -1)
    given = places.study or [""] * len(at)
    return np.array([number.get(h.sites.study[k] if k >= 0 else s, -1) for k, s in zip(at, given, strict=True)])


def _evidence(h: Hierarchy, weight: FloatArray, seen: FloatArray, value: FloatArray, prior: FloatArray) -> FloatArray:
    """Log density of the mean of the people that are known of each site; 0 where none is."""
    evidence = np.zeros(len(weight))
    known = np.flatnonzero(weight > 0)
    if known.size:
        own = seen[known] / weight[known, None]
        residual = value[known] / weight[known] - own @ h.coefficients
        variance = prior[known] + 1 / weight[known] + np.einsum("ni,ij,nj->n", own, h.covariance, own)
        evidence[known] = log_density(residual**2, variance)
    return evidence
