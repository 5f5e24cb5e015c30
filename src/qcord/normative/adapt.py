"""A new scanner from a few healthy people measured on it."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, SetApartWarning
from qcord.normative.deviating import NONE, assumed
from qcord.normative.far_controls import FAR, Far, belief, far_ones, sentence
from qcord.normative.fit import CELL
from qcord.normative.hierarchical import spreads, study_spread
from qcord.normative.hierarchy import Sites
from qcord.normative.norm import Cell, Norm, Norms, with_card
from qcord.normative.outlines import scaled
from qcord.normative.predict import predict
from qcord.normative.protocols import parted
from qcord.normative.statistics import UNKNOWN, require_one_study, rows
from qcord.normative.terms import require


def adapt(norms: Norms, controls: pd.DataFrame, *, site: str) -> Norms:
    """Learn the shift of a site from its own healthy people; effects of age and sex and spreads stay.

    Parameters
    ----------
    norms : Norms
        Norms of other sites, or of this one.
    controls : DataFrame
        Values of its healthy people, as for `qcord.normative.fit.fit_norms`; a study that the norm knows (column study)
        lends its shift.
    site : str
        Its name, by which it is scored from then on; what was known of it is replaced.

    Returns
    -------
    Norms
        With the site; cells without a control are as before. Controls whose protocol is not that of the people of a
        norm are set apart, and its card says why. A control that lies far from what the others and the norm let expect
        (`qcord.normative.far_controls`) hardly counts, and the card (``far controls``) says who and how far.

    Raises
    ------
    ImplausibleValue
        If there is no healthy person, or people come from scanners of several manufacturers or from several studies.

    Warns
    -----
    SetApartWarning
        If controls were set apart for their protocol, or lie far away.
    """
    healthy = controls[controls["pathology"] == "HC"] if "pathology" in controls else controls
    if not len(healthy):
        raise ImplausibleValue(
            "The table holds no healthy person (pathology HC); a site is learnt from healthy people."
        )
    for name in CELL:
        require(healthy, name)
    groups = {Cell(*(str(v) for v in key)): part for key, part in healthy.groupby(CELL, observed=True)}
    found: list[Norm] = []
    apart: dict[str, None] = {}
    far: dict[Cell, Far] = {}
    for norm in norms:
        if norm.cell not in groups:
            found.append(norm)
            continue
        kept, reasons = _usual(norm, groups[norm.cell], site)
        apart |= dict.fromkeys(f"{norm.cell.metric}: {why}" for why in reasons.values())
        noted = with_card(norm, **{"set apart": {**norm.card.get("set apart", {}), **reasons}}) if reasons else norm
        found.append(adapt_norm(noted, kept, site=site) if len(kept) else noted)
        if len(kept) and site in found[-1].card.get(FAR, {}):
            far[norm.cell] = found[-1].card[FAR][site]
    if apart:
        warnings.warn(f"Controls of {site} set apart: {'; '.join(apart)}.", SetApartWarning, stacklevel=2)
    if far:
        warnings.warn(sentence(site, far), SetApartWarning, stacklevel=2)
    return Norms.of(found)


def _usual(norm: Norm, controls: pd.DataFrame, site: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Controls whose protocol is that of the people of a norm, and why others are not among them."""
    own = controls.assign(site=site, metric=norm.cell.metric)
    return parted(own, {norm.cell.metric: norm.card.get("protocols", {})})


def adapt_norm(norm: Norm, controls: pd.DataFrame, *, site: str) -> Norm:
    """One norm with a site learnt from the values of its healthy people, all of a usual protocol; see `adapt`.

    The card names controls that lie far from all others; nobody is warned.
    """
    on = scaled(controls, norm.cell.metric, norm.card)
    data = rows(on.rows.assign(site=site), norm.terms)
    h = norm.hierarchy
    if h.studied:
        require_one_study(data)
    error = data.variance / h.spread**2
    expected = predict(
        replace(norm, hierarchy=replace(h, deviating=NONE)),
        data.design,
        data.age,
        site=[""] * len(data.value),
        manufacturer=data.manufacturer,
        variance=error,
        study=data.study,
    )
    variance = expected.people**2 + error
    deviating = assumed(len(h.sites.name)) if h.deviating.none else h.deviating
    found = belief(
        (data.value - h.centre) / h.spread - expected.mean,
        variance,
        data.share,
        prior=float(np.average(expected.unsure**2, weights=data.share / variance)),
        deviating=replace(deviating, width=deviating.width * float(np.exp(h.variances[0]))),
        shape=norm.shape,
    )
    one = Sites(
        (site,),
        (str(data.manufacturer[0]),),
        np.array([data.share.sum()]),
        np.array([found.weight.sum()]),
        (found.weight @ data.design)[None],
        np.array([found.weight @ (expected.mean + found.shift)]),
        (UNKNOWN if data.study is None else str(data.study[0]),) if h.studied else (),
    )
    named = {name: far for name, far in norm.card.get(FAR, {}).items() if name != site}
    if far := far_ones(found, _names(controls), data.place):
        named[site] = far
    card = {key: entry for key, entry in norm.card.items() if key != FAR} | ({FAR: named} if named else {})
    return replace(norm, hierarchy=replace(h, sites=_with(h.sites, one)), card=card)


def _names(controls: pd.DataFrame) -> list[str]:
    """Who each row is; its place in the table, from 1, where that is not said."""
    number = [f"row {k + 1}" for k in range(len(controls))]
    if "participant_id" not in controls:
        return number
    given = controls["participant_id"]
    return [k if missing else str(v) for k, v, missing in zip(number, given, given.isna(), strict=True)]


def expected_error(norm: Norm, manufacturer: str, people: FloatArray) -> FloatArray:
    """Standard deviation of the error of z that the shift of a site causes, by how many controls it was learnt from.

    Parameters
    ----------
    norm : Norm
        The norm.
    manufacturer : str
        Of the new scanner.
    people : (n,) array
        Numbers of controls; 0 for none.
    """
    h = norm.hierarchy
    known = manufacturer in h.manufacturers
    k = h.manufacturers.index(manufacturer) if known else 0
    within, sites, makers, _ = spreads(h.variances, len(h.manufacturers))
    sigma2 = within[k] ** 2 if known else np.exp(2 * h.variances[0])
    prior = sites[k] ** 2 if known else np.exp(2 * (h.variances[0] + h.variances[1])) + makers**2
    prior = prior + study_spread(h.variances, len(h.manufacturers)) ** 2  # whose study is not known either
    share, wide = h.deviating.share, prior + (h.deviating.width * np.exp(h.variances[0])) ** 2
    known_by = np.asarray(people, dtype=float) / sigma2
    left = (1 - share) / (known_by + 1 / prior) + share / (known_by + 1 / wide)
    return np.asarray(np.sqrt(left / sigma2))


def _with(sites: Sites, one: Sites) -> Sites:
    kept = [k for k, name in enumerate(sites.name) if name != one.name[0]]
    return Sites(
        (*(sites.name[k] for k in kept), *one.name),
        (*(sites.manufacturer[k] for k in kept), *one.manufacturer),
        study=(*(sites.study[k] for k in kept if sites.study), *one.study),
        **{
            name: np.concatenate([getattr(sites, name)[kept], getattr(one, name)])
            for name in ("count", "weight", "columns", "value")
        },
    )
