"""Values of a visit as observations of the cells that norms have: same metric, region, level and definition."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from qcord.atlas.pool import levels_of, pooled, sides_of
from qcord.core.protocol import Protocol
from qcord.ingest.people import Person, manufacturer
from qcord.normative.fingerprint import NUMBERS, OTHER_NAMES, fingerprint
from qcord.report.findings import Findings

Cell = tuple[str, str, str]

OBSERVATION_COLUMNS = (
    *("participant_id", "session_id", "site", "manufacturer", "scanner", "protocol", "software", "metric", "unit"),
    *("region", "level", "value", "se", "quality", "pathology", "age", "sex", "height", "weight"),
)
ESTIMATOR = "map"
"""Estimator of the atlas table whose values are compared: the one of the multi-centre tables."""

OF_CONTRAST = ("T2w", "T1w", "T2star")
"""Contrasts by which norms of shape are told apart: outlines differ between them."""

SHAPE_ESTIMATOR = "mean"


def definitions(findings: Findings) -> dict[str, dict[str, str]]:
    """Why values must not be compared with norms, by series and metric; nothing where the definition agrees.

    Norms of T1 and MTsat hold apparent values (two flip angles, no transmit field), those of diffusion a tensor.
    """
    found: dict[str, dict[str, str]] = {}
    for token, fits in findings.fits.items():
        for one in fits:
            for metric, image in one.maps.items():
                settings = image.history[-1].settings if image.history else {}
                reason = _differs(metric, one.model, str(settings.get("B1", "")))
                own = found.setdefault(token, {})
                if metric not in own and reason is not None:
                    own[metric] = reason
    return {t: {m: r for m, r in reasons.items() if r} for t, reasons in found.items() if any(reasons.values())}


def _differs(metric: str, model: str, b1: str) -> str | None:
    if metric in {"T1", "MTsat"}:
        if model != "mtsat":
            return (
                f"{metric} was measured by {model}; its norm holds values of two flip angles"
                if metric == "T1"
                else None
            )
        if b1 and not b1.startswith("not corrected"):
            return f"{metric} was corrected for the transmit field; its norm holds apparent values"
        return ""
    if metric in {"FA", "MD", "AD", "RD"}:
        return "" if model == "tensor" else f"{metric} is that of the {model} model; its norm is of the tensor"
    return ""


def scanners(findings: Findings) -> dict[str, dict[str, str]]:
    """Manufacturer, model, institution and protocol of each series, from its sidecar, and its contrast (suffix)."""
    names = {"manufacturer": "Manufacturer", "scanner": "ManufacturersModelName", "site": "InstitutionName"}
    found = {}
    for token, place in findings.located.items():
        own = {k: str(place.image.metadata.get(field) or "").strip() for k, field in names.items()}
        maker = manufacturer(own["manufacturer"])
        protocol = fingerprint(described(place.image.metadata, findings.protocols.get(token)))
        found[token] = {**own, "manufacturer": maker, "contrast": place.entities.suffix}
        if protocol is not None:
            found[token]["protocol"] = str(protocol)
    return found


def described(metadata: Mapping[str, Any], protocol: Protocol | None) -> dict[str, Any]:
    """Sidecar of an image with what the settings of the whole series add, such as b-values."""
    columns = {} if protocol is None else protocol.columns
    wanted = {name for name, _, _ in NUMBERS} | set(OTHER_NAMES.values())
    numbers = {k: np.asarray(v, dtype=float) for k, v in columns.items() if k in wanted}
    own = {k: np.unique(v[np.isfinite(v)]).tolist() for k, v in numbers.items()}
    return {**metadata, **{k: v for k, v in own.items() if v}}


def observed(
    metrics: pd.DataFrame,
    morphometry: pd.DataFrame,
    cells: Iterable[Cell],
    *,
    differs: Mapping[str, Mapping[str, str]],
    contrasts: Mapping[str, str],
) -> pd.DataFrame:
    """Values of the cells that a visit has.

    Parameters
    ----------
    metrics, morphometry : DataFrame
        Atlas and morphometry table of the visit.
    cells : iterable of (metric, region, level)
        What is wanted. A level may be a range, ``C2:C5``: the mean of its levels by size, if all of them have a value.
        A tract named without a side is the mean of both.
    differs : mapping
        See `definitions`.
    contrasts : mapping of str to str
        Contrast (suffix) of each series, for norms of shape such as ``area T2w``.

    Returns
    -------
    DataFrame
        Columns metric, unit, region, level, estimator, value, se, source; one row a cell and series.
    """
    atlas = metrics[
        (metrics["estimator"] == ESTIMATOR)
        & (metrics["slice"] == "")
        & (metrics["level"] != "")
        & metrics["value"].notna()
    ]
    shape = morphometry[(morphometry["slice"] == "") & (morphometry["level"] != "") & morphometry["value"].notna()]
    by_metric = {
        (str(s), str(m)): part
        for (s, m), part in atlas.groupby(["source", "metric"], sort=False)
        if str(m) not in differs.get(str(s), {})
    }
    by_shape = {
        (str(s), f"{m} {contrasts[str(s)]}"): part
        for (s, m), part in shape.groupby(["source", "metric"], sort=False)
        if contrasts.get(str(s)) in OF_CONTRAST
    }
    rows = []
    for metric, region, level in cells:
        for (source, name), part in by_metric.items():
            if name == metric:
                rows += _atlas_value(part, (metric, region, level), source)
        for (source, name), part in by_shape.items():
            if name == metric and region == "spinal cord":
                rows += _shape_value(part, (metric, region, level), source)
    return pd.DataFrame(rows, columns=["metric", "unit", "region", "level", "estimator", "value", "se", "source"])


Row = tuple[str, str, str, str, str, float, float, str]


def _atlas_value(part: pd.DataFrame, cell: Cell, source: str) -> list[Row]:
    metric, region, level = cell
    levels, sides = levels_of(level), sides_of(region)
    chosen = part[part["level"].isin(levels) & part["region"].isin(sides)]
    if not levels or not sides or len(chosen) != len(levels) * len(sides):
        return []
    value, se = pooled(chosen)
    return [(metric, str(chosen["unit"].iloc[0]), region, level, ESTIMATOR, value, se, source)]


def _shape_value(part: pd.DataFrame, cell: Cell, source: str) -> list[Row]:
    metric, region, level = cell
    levels = levels_of(level)
    chosen = part[part["level"].isin(levels)]
    if not levels or len(chosen) != len(levels):
        return []
    weight = chosen["n_slices"].to_numpy(dtype=float) / chosen["n_slices"].sum()
    value = float(weight @ chosen["value"].to_numpy(dtype=float))
    se = float(np.sqrt(((weight * chosen["se"].to_numpy(dtype=float)) ** 2).sum()))
    return [(metric, str(chosen["unit"].iloc[0]), region, level, SHAPE_ESTIMATOR, value, se, source)]


def as_observations(
    values: pd.DataFrame,
    person: Person,
    scanner: Mapping[str, Mapping[str, str]],
    *,
    identity: Mapping[str, str],
    software: str,
    site: str | None = None,
) -> pd.DataFrame:
    """Observations with who, where and by what, from the result of `observed`.

    Parameters
    ----------
    values : DataFrame
        Result of `observed`.
    person : Person
        Who.
    scanner : mapping of str to mapping
        See `scanners`.
    identity : mapping of str to str
        participant_id and session_id.
    software : str
        Name and version.
    site : str, optional
        Site as the norms name it; by default that of the data set, else the institution of the sidecar.
    """
    of_source = values["source"].map(lambda s: dict(scanner.get(s, {})))
    here = site or person.site
    return values.assign(
        **identity,
        site=of_source.map(lambda o: here or o.get("site") or None),
        manufacturer=of_source.map(lambda o: o.get("manufacturer") or None),
        scanner=of_source.map(lambda o: o.get("scanner") or None),
        protocol=of_source.map(lambda o: o.get("protocol") or None),
        software=software,
        quality="ok",
        pathology=None,
        age=np.nan if person.age is None else person.age,
        sex=person.sex,
        height=np.nan if person.height is None else person.height,
        weight=np.nan if person.weight is None else person.weight,
    )[[*OBSERVATION_COLUMNS, "estimator", "source"]]
