"""A site that took no part in the fit: by its manufacturer alone, or by a few of its own healthy people."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from qcord.core.arrays import FloatArray
from qcord.core.errors import MissingMetadata, NotIdentifiable, UnknownName
from qcord.normative.harmonise.design import require_columns
from qcord.normative.harmonise.harmoniser import Harmoniser, numbers
from qcord.normative.harmonise.priors import LOG_SCALES


@dataclass(frozen=True, eq=False)
class _Prior:
    """Belief about a site without its data: a mixture for the shift, a normal distribution for the log scale."""

    weight: FloatArray
    shift: FloatArray
    variance: FloatArray
    log_scale: float
    log_scale_sd: float

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and variance of the shift."""
        mean = float(self.weight @ self.shift)
        return mean, float(self.weight @ (self.variance + (self.shift - mean) ** 2))


def site_from_manufacturer(harmoniser: Harmoniser, site: str, manufacturer: str | None = None) -> Harmoniser:
    """Add a site of which nothing but the manufacturer is known.

    Parameters
    ----------
    harmoniser : Harmoniser
        Fitted with ``shrinkage="sites"``.
    site : str
        Name of the new site.
    manufacturer : str, optional
        Its manufacturer; needed where the fit had manufacturers.

    Returns
    -------
    Harmoniser
        With the site in; its shift and scale are those of the manufacturer, their errors the spread of its sites.

    Raises
    ------
    NotIdentifiable
        The fit knows nothing of manufacturers' sites, or not this manufacturer.
    UnknownName
        The site took part in the fit already.
    """
    maker = _family(harmoniser, site, manufacturer)
    if maker is None:
        known = ", ".join(harmoniser.families)
        msg = (
            f"Manufacturer {manufacturer!r} of {site} took no part in the fit ({known}); measure local controls and use"
        )
        raise NotIdentifiable(msg + " site_from_controls.")
    moments = np.array([_prior(harmoniser, maker, g).moments for g in range(len(harmoniser.features))])
    return _with_site(
        harmoniser,
        site,
        manufacturer or "",
        shift=moments[:, 0],
        shift_se=np.sqrt(moments[:, 1]),
        log_scale=harmoniser.family_log_scale[maker],
        log_scale_se=harmoniser.family_log_scale_sd[maker],
        counts=np.zeros(len(harmoniser.features)),
    )


def site_from_controls(harmoniser: Harmoniser, controls: pd.DataFrame) -> Harmoniser:
    """Add a site by a few of its own healthy people; what they leave open is that of the manufacturer.

    Parameters
    ----------
    harmoniser : Harmoniser
        Fitted with ``shrinkage="sites"``.
    controls : DataFrame
        One row per person, all of one site, with the columns of the fit (covariates, manufacturer, features and, if the
        fit had them, standard errors). They must be people like those of the fit: a control with a disease shifts the
        whole site.

    Returns
    -------
    Harmoniser
        With the site in. A manufacturer that the fit does not know is taken as one more of those that it does.

    Raises
    ------
    MissingMetadata
        A column is absent, or there is no row with covariates and values.
    NotIdentifiable
        The rows are of several sites or manufacturers.
    UnknownName
        The site took part in the fit already.

    Notes
    -----
    The prior of the shift is a mixture of normal distributions and that of the scale log-normal, from the other sites;
    the scale is integrated over a grid, the shift given the scale is conjugate.
    """
    names = [harmoniser.batch, *([harmoniser.manufacturer] if harmoniser.manufacturer else [])]
    require_columns(controls, names)
    if harmoniser.participant is not None and controls[harmoniser.participant].duplicated().any():
        controls = controls.drop_duplicates(harmoniser.participant)
    for name in names:
        found = sorted({str(v) for v in controls[name].dropna()})
        if len(found) != 1:
            msg = f"The controls have {len(found)} {name} ({', '.join(found) or 'none'}); give those of one at a time."
            raise NotIdentifiable(msg)
    site = str(controls[harmoniser.batch].dropna().iloc[0])
    manufacturer = str(controls[harmoniser.manufacturer].dropna().iloc[0]) if harmoniser.manufacturer else None
    x = harmoniser.design.matrix(controls)
    used = np.isfinite(x).all(axis=1)
    maker = _family(harmoniser, site, manufacturer)
    features = range(len(harmoniser.features))
    found_values = np.zeros(len(harmoniser.features))
    shift, log_scale = np.empty((2, len(harmoniser.features))), np.empty((2, len(harmoniser.features)))
    for g in features:
        y, column = numbers(controls, harmoniser.features[g]), harmoniser.error_columns[g]
        error = np.nan_to_num(numbers(controls, column)) if column is not None else np.zeros(len(y))
        rows = used & np.isfinite(y)
        found_values[g] = rows.sum()
        mean = harmoniser.intercept[g] + x[rows] @ harmoniser.slopes[:, g]
        sigma = harmoniser.sigma[g]
        error2 = error[rows] ** 2 + harmoniser.person_sd[g] ** 2
        posterior = _posterior((y[rows] - mean) / sigma, error2 / sigma**2, _prior(harmoniser, maker, g))
        shift[:, g], log_scale[:, g] = posterior[:2], posterior[2:]
    if not found_values.any():
        needed = ", ".join(harmoniser.design.terms) or "none"
        msg = (
            f"No control of {site} has a value and all covariates ({needed}); fill them or use site_from_manufacturer."
        )
        raise MissingMetadata(msg)
    return _with_site(
        harmoniser,
        site,
        manufacturer or "",
        shift=shift[0],
        shift_se=shift[1],
        log_scale=log_scale[0],
        log_scale_se=log_scale[1],
        counts=found_values,
    )


def _family(harmoniser: Harmoniser, site: str, manufacturer: str | None) -> int | None:
    if site in harmoniser.sites:
        msg = f"{site} took part in the fit; apply the harmoniser as it is, or fit anew with the further people."
        raise UnknownName(msg)
    if not np.isfinite(harmoniser.family_shift).any():
        msg = f"A harmonisation with shrinkage={harmoniser.shrinkage!r} knows nothing of further sites; fit with"
        raise NotIdentifiable(msg + " shrinkage='sites'.")
    if harmoniser.manufacturer is None:
        return 0
    if manufacturer is None:
        msg = f"The manufacturer of {site} is not given; name one of {', '.join(harmoniser.families)}."
        raise MissingMetadata(msg)
    return harmoniser.families.index(manufacturer) if manufacturer in harmoniser.families else None


def _prior(harmoniser: Harmoniser, maker: int | None, g: int) -> _Prior:
    """What is known of a further site."""
    log_scales, log_sds = harmoniser.family_log_scale[:, g], harmoniser.family_log_scale_sd[:, g]
    priors = [
        _Prior(w, shift, sd**2, float(log_scale), float(log_sd))
        for w, shift, sd, log_scale, log_sd in zip(
            harmoniser.family_weight[:, g],
            harmoniser.family_shift[:, g],
            harmoniser.family_shift_sd[:, g],
            log_scales,
            log_sds,
            strict=True,
        )
    ]
    if maker is not None:
        return priors[maker]
    # one more manufacturer, drawn from those that are known, at least one spread between people apart
    moments = np.array([p.moments for p in priors])
    between = float(np.var(moments[:, 0], ddof=1)) * (1 + 1 / len(priors)) if len(priors) > 1 else 1.0
    variance = max(between, 1.0) + float(moments[:, 1].mean())
    centre = np.array([moments[:, 0].mean()])
    return _Prior(
        np.ones(1), centre, np.array([variance]), float(log_scales.mean()), float(np.sqrt(np.mean(log_sds**2)))
    )


def _posterior(z: FloatArray, error2: FloatArray, prior: _Prior) -> tuple[float, float, float, float]:
    """Shift, its error, log scale, its error, given standardised values of a site and the squares of their errors."""
    variance = np.exp(2 * LOG_SCALES)[:, None] + error2[None]
    weight = 1 / variance
    # axes: log scale, component of the prior, person
    total = weight.sum(axis=1)[:, None] + 1 / prior.variance
    centre = ((weight * z).sum(axis=1)[:, None] + prior.shift / prior.variance) / total
    distance = np.sum(weight[:, None] * (z - centre[:, :, None]) ** 2, axis=2)
    square = distance + (centre - prior.shift) ** 2 / prior.variance
    log_p = -0.5 * (np.log(variance).sum(axis=1)[:, None] + np.log(total * prior.variance) + square)
    log_p = log_p + np.log(np.maximum(prior.weight, 1e-300))
    log_p = log_p - 0.5 * ((LOG_SCALES - prior.log_scale) / prior.log_scale_sd)[:, None] ** 2
    p = np.exp(log_p - logsumexp(log_p))
    shift = float(np.sum(p * centre))
    spread = float(np.sum(p * (1 / total + (centre - shift) ** 2)))
    scales = p.sum(axis=1)
    log_scale = float(scales @ LOG_SCALES)
    return shift, float(np.sqrt(spread)), log_scale, float(np.sqrt(scales @ (LOG_SCALES - log_scale) ** 2))


def _with_site(
    harmoniser: Harmoniser,
    site: str,
    manufacturer: str,
    *,
    shift: FloatArray,
    shift_se: FloatArray,
    log_scale: FloatArray,
    log_scale_se: FloatArray,
    counts: FloatArray,
) -> Harmoniser:
    return replace(
        harmoniser,
        sites=(*harmoniser.sites, site),
        makers=(*harmoniser.makers, manufacturer),
        counts=np.vstack([harmoniser.counts, counts]),
        shift=np.vstack([harmoniser.shift, shift]),
        shift_se=np.vstack([harmoniser.shift_se, shift_se]),
        log_scale=np.vstack([harmoniser.log_scale, log_scale]),
        log_scale_se=np.vstack([harmoniser.log_scale_se, log_scale_se]),
    )
