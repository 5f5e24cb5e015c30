"""Harmonisation of sites: shift and scale of each, the effects of covariates kept.

Sites of 2 to 6 people cannot tell their own shift, still less their own scale. What they lack is borrowed, either from
the other sites of their manufacturer (``shrinkage="sites"``, the default: features of the spinal cord have not much in
common, but scanners of one manufacturer do) or from the other features of the same site (``shrinkage="features"``, as
in genetics).

References
----------
Johnson 2007, doi:10.1093/biostatistics/kxj037; Fortin 2017, doi:10.1016/j.neuroimage.2017.08.047; Fortin 2018,
doi:10.1016/j.neuroimage.2017.11.024.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import NotIdentifiable, QcordError, UnknownName
from qcord.normative.harmonise.harmoniser import Harmoniser, apply
from qcord.normative.harmonise.mean_model import MeanModel, fit_mean_model
from qcord.normative.harmonise.priors import LOG_SCALES, feature_priors, locate, rescale
from qcord.normative.harmonise.training import Training, read_training, reference_weights

__all__ = ["SHRINKAGES", "Harmoniser", "apply", "fit_combat", "fit_feature", "fit_tables", "own_variance"]

SHRINKAGES = ("sites", "features", "none")
LEAST_SHARE = 0.1
"""Least spread between people over the spread of their values: stated errors larger than what is seen leave none."""

_STEPS = 8
_LEAST_FEATURES = 3


@dataclass(frozen=True, eq=False)
class _Effects:
    """Shift and log scale of sites and manufacturers before a reference is chosen."""

    intercept: FloatArray
    sigma: FloatArray
    slopes: FloatArray
    slopes_variance: FloatArray
    person_sd: FloatArray
    shift: FloatArray
    shift_variance: FloatArray
    log_scale: FloatArray
    log_scale_variance: FloatArray
    family_weight: FloatArray
    family_shift: FloatArray
    family_shift_variance: FloatArray
    family_log_scale: FloatArray
    family_log_scale_variance: FloatArray


def fit_combat(
    table: pd.DataFrame,
    *,
    features: Sequence[str],
    batch: str = "site",
    manufacturer: str | None = None,
    covariates: Sequence[str] = (),
    smooth: Sequence[str] = (),
    se: Mapping[str, str] | None = None,
    reference: str | None = None,
    shrinkage: str = "sites",
) -> Harmoniser:
    """Learn the shift and scale of each site.

    Parameters
    ----------
    table : DataFrame
        One row per person. Healthy people, or people of whom the covariates say what they have.
    features : sequence of str
        Columns to harmonise; NaN where there is no value.
    batch : str
        Column of the site (or scanner, or protocol).
    manufacturer : str, optional
        Column of the manufacturer; sites are then drawn to those of their own.
    covariates, smooth : sequences of str
        Columns whose effect is kept, numbers or text; the effect of those in ``smooth`` may bend. Rows that lack one
        take no part.
    se : mapping of str to str, optional
        Column with the standard error of each feature. Values then count by their error, and the spread that the error
        explains is not taken for that of people.
    reference : str, optional
        Site or manufacturer whose scale is used; the average over all people without it.
    shrinkage : str
        ``sites``: sites are drawn to their manufacturer, by a distribution learnt over all sites and features;
        ``features``: to the mean over the features of the site (Johnson 2007, without errors or manufacturers);
        ``none``: not at all.

    Returns
    -------
    Harmoniser

    Raises
    ------
    MissingMetadata
        A column is absent.
    NotIdentifiable
        There is one site alone, a feature or covariate does not vary within sites, or too few rows are left.
    """
    return fit_tables(
        table,
        features=features,
        batch=batch,
        manufacturer=manufacturer,
        covariates=covariates,
        smooth=smooth,
        se=se,
        reference=reference,
        shrinkage=shrinkage,
        participant=None,
    )


def fit_tables(
    table: pd.DataFrame,
    *,
    features: Sequence[str],
    batch: str,
    manufacturer: str | None,
    covariates: Sequence[str],
    smooth: Sequence[str],
    se: Mapping[str, str] | None,
    reference: str | None,
    shrinkage: str,
    participant: str | None,
) -> Harmoniser:
    """`fit_combat` with or without persons measured several times; see there."""
    if shrinkage not in SHRINKAGES:
        msg = f"Shrinkage {shrinkage!r} is not known; choose one of {', '.join(SHRINKAGES)}."
        raise UnknownName(msg)
    data = read_training(
        table,
        features,
        batch=batch,
        manufacturer=manufacturer,
        covariates=covariates,
        smooth=smooth,
        se=se or {},
        participant=participant,
    )
    weights = reference_weights(data, reference)
    if shrinkage == "features":
        effects = _johnson(data, bool(se), manufacturer)
    else:
        effects = _hierarchy(data, shrink=shrinkage == "sites")
    if shrinkage != "features" or reference is not None:
        effects = _on_reference(effects, weights)
    return Harmoniser(
        batch=batch,
        manufacturer=manufacturer,
        participant=participant,
        reference=reference,
        shrinkage=shrinkage,
        design=data.design,
        features=data.features,
        error_columns=tuple((se or {}).get(f) for f in data.features),
        sites=data.sites,
        makers=data.makers,
        counts=data.counts,
        intercept=effects.intercept,
        sigma=effects.sigma,
        slopes=effects.slopes,
        slopes_variance=effects.slopes_variance,
        person_sd=effects.person_sd,
        shift=effects.shift,
        shift_se=np.sqrt(effects.shift_variance),
        log_scale=effects.log_scale,
        log_scale_se=np.sqrt(effects.log_scale_variance),
        families=data.families,
        family_weight=effects.family_weight,
        family_shift=effects.family_shift,
        family_shift_sd=np.sqrt(effects.family_shift_variance),
        family_log_scale=effects.family_log_scale,
        family_log_scale_sd=np.sqrt(effects.family_log_scale_variance),
    )


def _spread(model: MeanModel, errors: FloatArray) -> float:
    """Variance between people that stated errors leave (Paule and Mandel 1982, doi:10.6028/jres.087.022)."""
    squares, freedom = model.residual**2, float(model.freedom.sum())
    whole = float(squares.sum()) / freedom
    low, high = LEAST_SHARE**2 * whole, whole
    if not errors.any() or np.sum(squares / (low + errors**2)) <= freedom:
        return whole if not errors.any() else low
    for _ in range(60):
        middle = (low + high) / 2
        if np.sum(squares / (middle + errors**2)) > freedom:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def fit_feature(
    data: Training, g: int, scale: FloatArray | None = None, sigma: float | None = None
) -> tuple[MeanModel, float]:
    """Mean model and spread of one feature; the scales of sites are 1 in the first round and known in the second."""
    present = np.isfinite(data.values[:, g])
    y, errors, site = data.values[present, g], data.errors[present, g], data.site[present]
    person = None
    if data.person is not None:
        person = np.asarray(np.unique(data.person[present], return_inverse=True)[1], dtype=int)

    def fit(variance: FloatArray) -> MeanModel:
        return fit_mean_model(y, site, len(data.sites), data.x[present], variance, person=person)

    if scale is not None and sigma is not None:
        return fit((sigma * scale[site]) ** 2 + errors**2), sigma
    square = float(np.var(y))
    for _ in range(_STEPS):
        model = fit(square + errors**2)
        new = _spread(model, errors)
        done = abs(new / square - 1) < 1e-6
        square = new
        if done or (not errors.any() and person is None):
            break
    return fit(square + errors**2), float(np.sqrt(square))


def _hierarchy(data: Training, *, shrink: bool) -> _Effects:
    """Sites drawn to their manufacturers, or left as they are."""
    k, g_all = len(data.sites), len(data.features)
    sigma = np.empty(g_all)
    likelihood = np.zeros((k, g_all, len(LOG_SCALES)))
    for g in range(g_all):
        model, sigma[g] = fit_feature(data, g)
        likelihood[:, g] = _scale_likelihood(data, g, model, sigma[g])
    scale = rescale(likelihood, data.maker, len(data.families))
    log_scale, log_scale_variance = scale.log_scale, scale.log_scale_variance
    if not shrink:
        log_scale, log_scale_variance = _own_scale(likelihood)
    models = [fit_feature(data, g, np.exp(log_scale[:, g]), sigma[g])[0] for g in range(g_all)]
    counts = data.counts
    raw = np.stack([m.shift for m in models], axis=1)
    intercept = np.nansum(counts * np.nan_to_num(raw), axis=0) / counts.sum(axis=0)
    shift = (raw - intercept) / sigma
    variance = np.stack([own_variance(m.shift_covariance) for m in models], axis=1) / sigma**2
    location = locate(shift, variance, data.maker, len(data.families))
    if not shrink:
        empty = ~np.isfinite(shift)
        chosen_shift = np.where(empty, location.shift, shift)
        chosen_variance = np.where(empty, location.shift_variance, variance)
    else:
        chosen_shift, chosen_variance = location.shift, location.shift_variance
    return _Effects(
        intercept=intercept,
        sigma=sigma,
        slopes=np.stack([m.slopes for m in models], axis=1),
        slopes_variance=np.stack([m.slopes_covariance for m in models], axis=2),
        person_sd=np.sqrt([m.person_variance for m in models]),
        shift=chosen_shift,
        shift_variance=chosen_variance,
        log_scale=log_scale,
        log_scale_variance=log_scale_variance,
        family_weight=location.new_weight,
        family_shift=location.new_mean,
        family_shift_variance=location.new_variance,
        family_log_scale=scale.maker_log_scale,
        family_log_scale_variance=scale.new_site_variance,
    )


def own_variance(covariance: FloatArray) -> FloatArray:
    """Variance of each site's shift less the part that all sites share, which no comparison of sites sees."""
    known = np.isfinite(np.diag(covariance))
    k = int(known.sum())
    inner = covariance[np.ix_(known, known)]
    shared = (inner.sum() - np.trace(inner)) / (k * (k - 1))
    out = np.full(len(known), np.nan)
    out[known] = np.maximum(np.diag(inner) - shared, 1e-12 * np.diag(inner).max())
    return out


def _scale_likelihood(data: Training, g: int, model: MeanModel, sigma: float) -> FloatArray:
    """Log-likelihood of each site's log scale, (k, d)."""
    present = np.isfinite(data.values[:, g])
    errors = data.errors[present, g] / sigma
    variance = np.exp(2 * LOG_SCALES)[None] + errors[:, None] ** 2
    square = (model.residual / sigma)[:, None] ** 2
    each = -0.5 * (model.freedom[:, None] * np.log(variance) + square / variance)
    out = np.zeros((len(data.sites), len(LOG_SCALES)))
    np.add.at(out, data.site[present], each)
    return out


def _own_scale(likelihood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log scale by the likelihood of a site alone; 0 with the width of the grid where it tells nothing."""
    p = np.exp(likelihood - likelihood.max(axis=2, keepdims=True))
    p = p / p.sum(axis=2, keepdims=True)
    mean = p @ LOG_SCALES
    flat = np.ptp(likelihood, axis=2) < 1e-9
    best = np.where(flat, 0.0, LOG_SCALES[likelihood.argmax(axis=2)])
    return best, np.asarray(p @ LOG_SCALES**2 - mean**2)


def _on_reference(effects: _Effects, weights: FloatArray) -> _Effects:
    """Choose the reference: its shift becomes 0 and its scale 1."""
    shift = (weights * effects.shift).sum(axis=0)
    log_scale = (weights * effects.log_scale).sum(axis=0)
    scale = np.exp(log_scale)

    def relative(variance: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(variance * (1 - 2 * weights) + (weights**2 * variance).sum(axis=0), 0))

    return _Effects(
        intercept=effects.intercept + effects.sigma * shift,
        sigma=effects.sigma * scale,
        slopes=effects.slopes,
        slopes_variance=effects.slopes_variance,
        person_sd=effects.person_sd,
        shift=(effects.shift - shift) / scale,
        shift_variance=relative(effects.shift_variance) / scale**2,
        log_scale=effects.log_scale - log_scale,
        log_scale_variance=relative(effects.log_scale_variance),
        family_weight=effects.family_weight,
        family_shift=(effects.family_shift - shift[:, None]) / scale[:, None],
        family_shift_variance=(
            effects.family_shift_variance + (weights**2 * effects.shift_variance).sum(axis=0)[:, None]
        )
        / scale[:, None] ** 2,
        family_log_scale=effects.family_log_scale - log_scale,
        family_log_scale_variance=effects.family_log_scale_variance
        + (weights**2 * effects.log_scale_variance).sum(axis=0),
    )


def _johnson(data: Training, errors: bool, manufacturer: str | None) -> _Effects:
    """Shift and scale drawn to their distribution over the features of the site (Johnson 2007)."""
    counts = data.counts
    least = int(counts.min())
    if errors or manufacturer is not None or data.person is not None:
        msg = "Shrinkage by features knows no standard errors, manufacturers or repeated people; use shrinkage='sites'."
        raise QcordError(msg)
    if least < 2 or len(data.features) < _LEAST_FEATURES:
        msg = (
            f"Shrinkage by features needs at least {_LEAST_FEATURES} features and 2 values per site and feature (found"
        )
        raise NotIdentifiable(msg + f" {len(data.features)} and {least}); use shrinkage='sites'.")
    z = np.full(data.values.shape, np.nan)
    models = []
    intercept, sigma = np.empty(len(data.features)), np.empty(len(data.features))
    slopes_variance = np.empty((data.x.shape[1], data.x.shape[1], len(data.features)))
    for g in range(len(data.features)):
        present = np.isfinite(data.values[:, g])
        y, site, x = data.values[present, g], data.site[present], data.x[present]
        model = fit_mean_model(y, site, len(data.sites), x, np.full(len(y), np.var(y)))
        intercept[g] = float(counts[:, g] @ model.shift) / counts[:, g].sum()
        sigma[g] = float(np.sqrt(np.mean(model.residual**2)))
        slopes_variance[:, :, g] = model.slopes_covariance * sigma[g] ** 2 / np.var(y)
        z[present, g] = (y - intercept[g] - x @ model.slopes) / sigma[g]
        models.append(model)
    shift, shift_variance, log_scale, log_scale_variance = feature_priors(z, data.site, len(data.sites))
    unknown = np.full((len(data.families), len(data.features)), np.nan)
    return _Effects(
        intercept=intercept,
        sigma=sigma,
        slopes=np.stack([m.slopes for m in models], axis=1),
        slopes_variance=slopes_variance,
        person_sd=np.zeros(len(data.features)),
        shift=shift,
        shift_variance=shift_variance,
        log_scale=log_scale,
        log_scale_variance=log_scale_variance,
        family_weight=unknown[:, :, None],
        family_shift=unknown[:, :, None],
        family_shift_variance=unknown[:, :, None],
        family_log_scale=unknown,
        family_log_scale_variance=unknown,
    )
