"""Curves of a norm over age, with the confidence band of each."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import special

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.errors import ExtrapolationWarning
from qcord.normative.far_controls import FAR
from qcord.normative.norm import Norm
from qcord.normative.predict import predict
from qcord.normative.score import REACH, SIDE

PROBABILITIES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)
"""Centiles that are drawn."""


def centiles(
    norm: Norm,
    ages: ArrayLike,
    sex: str = "F",
    *,
    site: str | None = None,
    manufacturer: str | None = None,
    study: str | None = None,
    height: float | None = None,
    probabilities: Sequence[float] = PROBABILITIES,
) -> pd.DataFrame:
    """Values below which a part of healthy people lies.

    Parameters
    ----------
    norm : Norm
        Norm of one cell.
    ages : (n,) array
        Ages [years].
    sex : str
        ``M`` or ``F``.
    site, manufacturer, study : str, optional
        Where it is measured, and for which study; a site that the norm does not know counts as one of its manufacturer
        and study, or of any.
    height : float, optional
        Body height [m], where the norm takes it; that of an average person otherwise.
    probabilities : sequence of float
        Parts of healthy people.

    Returns
    -------
    DataFrame
        Columns age, sex, probability, value, low, high: the centile of people at this site, and the 95 % confidence
        band of what it may be there, as the mean, the shift of the site and the spread are not known exactly.
    """
    age = np.atleast_1d(np.asarray(ages, dtype=float))
    n = len(age)
    young, old = norm.ages
    if age.min() < young - REACH or age.max() > old + REACH:
        warnings.warn(
            f"The curves reach from {age.min():g} to {age.max():g} years, the people of the norm from {young:g} to "
            f"{old:g}: beyond, curves are straight.",
            ExtrapolationWarning,
            stacklevel=2,
        )
    tall = np.full(n, 1.70 if height is None else height)
    design = norm.terms.design(age, np.full(n, float(sex == "M")), tall)
    h = norm.hierarchy
    places = {"site": [site or ""] * n, "manufacturer": [manufacturer or ""] * n, "study": [study or ""] * n}
    p = predict(norm, design, age, **places, variance=np.zeros(n))
    frames = []
    for probability in probabilities:
        place = float(norm.shape.departure(np.array([special.ndtri(probability)]))[0])
        middle = p.mean + p.people * place
        doubt = np.sqrt(p.unsure**2 + (p.people * place) ** 2 * _doubt_of_spread(norm, manufacturer))
        frames.append(
            pd.DataFrame(
                {
                    "age": age,
                    "sex": sex,
                    "probability": probability,
                    "value": h.centre + h.spread * middle,
                    "low": h.centre + h.spread * (middle - SIDE * doubt),
                    "high": h.centre + h.spread * (middle + SIDE * doubt),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _doubt_of_spread(norm: Norm, manufacturer: str | None) -> float:
    """Variance of the logarithm of the spread of people."""
    h = norm.hierarchy
    picked: FloatArray = np.zeros(len(h.variances))
    picked[0] = 1.0
    if manufacturer in h.manufacturers:
        picked[4 + h.manufacturers.index(manufacturer)] = 1.0
    return float(picked @ h.variances_covariance @ picked)


def without_sites(norm: Norm) -> Norm:
    """The norm without what it knows of single sites, as it is given away."""
    h = norm.hierarchy
    none = np.zeros(len(h.sites.name), dtype=bool)
    sites = replace(
        h.sites,
        name=(),
        manufacturer=(),
        count=h.sites.count[none],
        weight=h.sites.weight[none],
        columns=h.sites.columns[none],
        value=h.sites.value[none],
        study=(),
    )
    # a study of one site would be that site
    kept = slice(len(norm.terms.names) + len(h.manufacturers))
    h = replace(
        h,
        coefficients=h.coefficients[kept],
        covariance=h.covariance[kept, kept],
        coefficients_slope=h.coefficients_slope[:, kept],
        covariance_slope=h.covariance_slope[:, kept, kept],
        studies=(),
    )
    card = {key: value for key, value in norm.card.items() if key not in (FAR, "set apart")}  # they name sites
    return replace(norm, hierarchy=replace(h, sites=sites), card=card)
