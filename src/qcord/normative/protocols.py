"""Protocols that are not those of the others of a manufacturer: their values are of another kind.

What is usual is learnt from the table itself, by metric and manufacturer, from the fingerprints of its rows
(`qcord.normative.fingerprint`). Rows without one are not judged.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.text_column import as_text
from qcord.normative.fingerprint import settings

TOLERANCE = 1.5
"""Ratio to a usual value of a setting beyond which values are of another kind. Repetition times of magnetisation
transfer scans that differ by half change the ratio by about a tenth."""

FEWEST = 3
"""Sites of a manufacturer that make a usual value."""

_TRANSFER = ("T", "TR", "FA", "MT offset", "MT angle")
_RELAXATION = ("T",)
_DIFFUSION = ("b",)

DECISIVE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("MTR", "MTsat", "ihMTR"), _TRANSFER),
    **dict.fromkeys(("T1", "R1"), ("T", "TR", "TI", "FA")),
    **dict.fromkeys(("T2", "R2", "T2star", "R2star", "MWF"), _RELAXATION),
    **dict.fromkeys(("FA", "MD", "AD", "RD", "MK", "AK", "RK", "MSD", "D"), _DIFFUSION),
}
"""Settings on which values of a metric depend (short names of a fingerprint): saturation and relaxation on field,
repetition time, flip angle and pulse (Helms 2008, doi:10.1002/mrm.21732; Stanisz 2005, doi:10.1002/mrm.20605),
apparent diffusivities on the b-value (Jensen 2005, doi:10.1002/mrm.20508). Shape depends on none of them."""

Usual = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By manufacturer, then setting: the values in use. JSON may hold it with lists."""

Words = np.ndarray[Any, np.dtype[np.object_]]


class Parted(NamedTuple):
    """A table without the rows whose protocol deviates.

    Parameters
    ----------
    kept : DataFrame
        The others.
    reasons : mapping of str to str
        By site of the rows left out: why, and how many there are.
    """

    kept: pd.DataFrame
    reasons: dict[str, str]


def usual_protocols(observations: pd.DataFrame) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Values of the decisive settings that at least half of the sites of a manufacturer use.

    Parameters
    ----------
    observations : DataFrame
        Columns metric, site, manufacturer, protocol; a site counts once, for each value with the share of its rows
        that have one within `TOLERANCE`.

    Returns
    -------
    dict
        By metric, then as `Usual`; nothing of manufacturers with fewer than `FEWEST` sites that state a setting.
    """
    found: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    if "protocol" not in observations or "manufacturer" not in observations:
        return found
    stated = observations[observations["protocol"].notna() & observations["metric"].isin(list(DECISIVE))]
    columns = ["metric", "manufacturer", "site", "protocol"]
    counts = stated.groupby(columns, observed=True).size().rename("rows").reset_index()
    for (metric, manufacturer), part in counts.astype(dict.fromkeys(columns, str)).groupby(["metric", "manufacturer"]):
        texts = zip(part["site"], part["protocol"], part["rows"], strict=True)
        rows = [(str(site), settings(str(text)), int(n)) for site, text, n in texts]
        for name in DECISIVE[str(metric)]:
            values = _in_use([(site, _positive(own.get(name, ())), n) for site, own, n in rows])
            if values:
                found.setdefault(str(metric), {}).setdefault(str(manufacturer), {})[name] = values
    return found


def deviations(observations: pd.DataFrame, usual: Mapping[str, Usual]) -> Words:
    """Why values are of another kind than those of their manufacturer, by their protocol.

    Parameters
    ----------
    observations : DataFrame
        Columns metric and, where known, manufacturer and protocol.
    usual : mapping
        By metric; see `usual_protocols`.

    Returns
    -------
    (n,) array of str
        A clause for each row, empty where its protocol is usual or nothing is known.
    """
    reason = np.full(len(observations), "", dtype=object)
    if not usual or "protocol" not in observations or "manufacturer" not in observations:
        return reason
    judged = (observations["protocol"].notna() & observations["metric"].isin(list(usual))).to_numpy()
    if not judged.any():
        return reason
    words = [as_text(observations.loc[judged, c]) for c in ("metric", "manufacturer", "protocol")]
    code, kinds = pd.factorize(pd.MultiIndex.from_arrays(words))
    own = [_deviation(["" if pd.isna(v) else str(v) for v in kind], usual) for kind in kinds.to_list()]
    reason[judged] = np.array(own, dtype=object)[code]
    return reason


def parted(observations: pd.DataFrame, usual: Mapping[str, Usual]) -> Parted:
    """Leave out the rows whose protocol deviates, and say of which sites they are."""
    why = deviations(observations, usual)
    apart = why != ""
    if not apart.any():
        return Parted(observations, {})
    left = pd.DataFrame({"site": as_text(observations["site"])[apart].fillna("unknown"), "why": why[apart]})
    counts = left.groupby(["site", "why"]).size().rename("rows").reset_index()
    reasons: dict[str, str] = {}
    for site, clause, n in zip(counts["site"], counts["why"], counts["rows"], strict=True):
        earlier = reasons.get(str(site))
        reasons[str(site)] = (f"{earlier}; " if earlier else "") + f"{clause} ({n} {'value' if n == 1 else 'values'})"
    return Parted(observations[~apart], reasons)


def _deviation(kind: list[str], usual: Mapping[str, Usual]) -> str:
    metric, manufacturer, protocol = kind
    known = usual.get(metric, {}).get(manufacturer, {})
    if not known:
        return ""
    own = settings(protocol)
    for name, values in known.items():
        for value in _positive(own.get(name, ())):
            if not any(_alike(value, other) for other in values):
                usually = " and ".join(f"{v:g}" for v in values)
                return f"protocol of another kind: {name} {value:g}, that of {manufacturer} is usually {usually}"
    return ""


def _in_use(rows: list[tuple[str, tuple[float, ...], int]]) -> tuple[float, ...]:
    """Values that at least half of the sites have: the one with most sites first, then the next one apart from it."""
    stating = [(site, values, n) for site, values, n in rows if values]
    sites = sorted({site for site, _, _ in stating})
    if len(sites) < FEWEST:
        return ()
    place = {site: k for k, site in enumerate(sites)}
    people = np.zeros(len(sites))
    for site, _, n in stating:
        people[place[site]] += n
    left = sorted({v for _, values, _ in stating for v in values})
    found: list[float] = []
    while left:
        support = [_support(v, stating, place, people) for v in left]
        # of values that as many sites have, the one in their middle
        best = max(range(len(left)), key=lambda k: (round(support[k][0], 9), -round(support[k][1], 9), -left[k]))
        if support[best][0] < len(sites) / 2 - 1e-9:
            break
        found.append(left[best])
        left = [v for v in left if not _alike(v, left[best])]
    return tuple(sorted(found))


def _support(
    value: float, rows: list[tuple[str, tuple[float, ...], int]], place: dict[str, int], people: FloatArray
) -> tuple[float, float]:
    """Sites with a value alike, and how far theirs are away in all."""
    share, away = np.zeros(len(people)), 0.0
    for site, values, n in rows:
        near = [abs(float(np.log(v / value))) for v in values if _alike(v, value)]
        if near:
            part = n / people[place[site]]
            share[place[site]] += part
            away += part * min(near)
    return float(share.sum()), away


def _alike(a: float, b: float) -> bool:
    return 1 / TOLERANCE < a / b < TOLERANCE


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    """Sizes of settings; zero, as of a b-value, tells nothing by a ratio."""
    return tuple(sorted({abs(v) for v in values if v != 0}))
