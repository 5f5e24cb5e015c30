"""Intervals of a model's values by name, of the measurements that its estimator takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.core.intervals import Intervals
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian, Noise
from qcord.core.series import Series
from qcord.estimate.fit import noise_level
from qcord.estimate.intervals import intervals as of_likelihood
from qcord.maps.powder import powder_average, scatter
from qcord.models import registry

AVERAGED = ("mufa", "mufa-cumulant", "smt", "smt-mc")
"""Models of powder averages, which a diffusion series is averaged for."""


def intervals(
    model: str | SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    noise: Noise | Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image | float] | None = None,
    fixed: Mapping[str, Image | float] | None = None,
    n_jobs: int | None = None,
) -> Intervals:
    """Intervals of a model's values by the likelihood, also where a fit is at a bound or hardly determined.

    Parameters
    ----------
    model : str or SignalModel
        Name in `qcord.models.registry`, or a model.
    series : Series
        Measurements with the protocol columns that the model needs; a diffusion series is averaged over directions for
        models of powder averages.
    mask : Image, optional
        Voxels; all by default.
    metrics : sequence of str, optional
        Free or derived values of the model; all by default. Each takes as long as some ten fits.
    level : float
        Chance that an interval holds the truth.
    noise : Gaussian, Rician, Image, float or sequence of float, optional
        Noise of the measurements, as `qcord.maps.fit.fit` takes it. Without it the residuals give it, or the scatter of
        directions for models of powder averages.
    given : mapping of str to Image or float, optional
        Maps or values of given parameters, such as B1, taken as exact.
    fixed : mapping of str to Image or float, optional
        Free parameters that are held at a value.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Intervals
        See `qcord.estimate.intervals.intervals`.

    Raises
    ------
    UnknownName
        If there is no such model, value or parameter.
    ImplausibleValue
        If the level is not between 0 and 1.
    MissingMetadata
        If the series lacks a column.
    NotIdentifiable
        If the measurements do not determine the parameters.

    Notes
    -----
    Intervals are of the model and its likelihood, not of an estimator: where a fit has a penalty, as the spectrum of
    ``myelin-water`` has, its estimate may lie outside.
    """
    chosen = registry.get(model) if isinstance(model, str) else model
    averaged = registry.MODELS.get(chosen.name) is chosen and chosen.name in AVERAGED
    if averaged and "Direction" in series.protocol and "Volumes" not in series.protocol:
        sigma, rician = noise_level(noise)
        averages = powder_average(series, sigma=scatter(series) if sigma is None else sigma, rician=rician)
        assert averages.sigma is not None
        series, noise = averages.series, Gaussian(np.asarray(averages.sigma.data, dtype=float))
    return of_likelihood(
        chosen, series, mask, metrics=metrics, level=level, noise=noise, given=given, fixed=fixed, n_jobs=n_jobs
    )


def with_given_errors(ranges: Intervals, fit: Fit) -> Intervals:
    """Intervals with the errors of given maps that a fit has carried, such as that of B1.

    Parameters
    ----------
    ranges : Intervals
        By the likelihood, given maps taken as exact.
    fit : Fit
        Fit of the same measurements, with `Fit.shifts`.

    Returns
    -------
    Intervals
        Each end as much farther from the estimate as the root of the squares of both parts says, within the range of
        the parameter.
    """
    from scipy.stats import norm

    reach = float(norm.ppf((1 + ranges.level) / 2))
    bounds = {p.name: p.bounds for p in registry.get(fit.model).free}
    lower, upper = dict(ranges.lower), dict(ranges.upper)
    for name in ranges.lower:
        shifts = fit.shifts_of(name)
        if not shifts:
            continue
        least, most = bounds.get(name, (-np.inf, np.inf))
        low, high = (np.asarray(one[name].data, dtype=float) for one in (lower, upper))
        bias = fit.bias[name].data if name in fit.bias else 0.0
        with np.errstate(invalid="ignore"):
            middle = np.clip(fit.maps[name].data - np.nan_to_num(bias), low, high)
            given = reach * np.sqrt(sum(np.asarray(s.data, dtype=float) ** 2 for s in shifts))
            lower[name] = lower[name].derive(np.clip(middle - np.hypot(middle - low, given), least, most))
            upper[name] = upper[name].derive(np.clip(middle + np.hypot(high - middle, given), least, most))
    return replace(ranges, lower=lower, upper=upper)
