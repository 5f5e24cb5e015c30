"""Tables of real people as Observations: one row a value, for the benchmarks of norms and of repeatability.

The tables are looked for in ``QCORD_TEST_DATA`` (default ``../shared/data``), folder ``tables``. Nothing of them enters
the package. Each loader gives the observations and, beside them, what was left out and why. Rows that stay but should
not be trusted say so in the column ``quality``. Run ``python benchmarks/norm_tables.py`` for a count of everything.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()

COLUMNS = (
    *("participant_id", "session_id", "site", "manufacturer", "scanner", "protocol", "software", "metric", "unit"),
    *("region", "level", "value", "se", "quality", "pathology", "age", "sex", "height", "weight"),
)
LEFT_OUT = ("table", "participant_id", "session_id", "metric", "region", "level", "reason")
NUMBERS = ("value", "se", "age", "height", "weight")
CELL = ["metric", "region", "level"]

TRACTS = {"": "white matter", "DC": "dorsal columns", "LCST": "lateral corticospinal tract", "GM": "gray matter"}
UNITS = {"FA": "1", "MD": "mm2/s", "RD": "mm2/s", "AD": "mm2/s", "MTR": "%", "MTsat": "%", "T1": "s"}
AREAS = {
    "csa-SC_T1w": ("area T1w", "spinal cord", "C2:C3"),
    "csa-SC_T1w_c34": ("area T1w", "spinal cord", "C3:C4"),
    "csa-SC_T2w": ("area T2w", "spinal cord", "C2:C3"),
    "csa-SC_T2w_c34": ("area T2w", "spinal cord", "C3:C4"),
    "csa-SC_T2s": ("area T2star", "spinal cord", "C3:C4"),
    "csa-GM_T2s": ("area T2star", "gray matter", "C3:C4"),
}
POSSIBLE = {
    "FA": (0.0, 1.0),
    "MD": (0.0, 3.2e-3),  # free water at 37 degrees: 3.0e-3 mm2/s
    "RD": (0.0, 3.2e-3),
    "AD": (0.0, 3.2e-3),
    "MTR": (0.0, 100.0),
    "MTsat": (0.0, 100.0),
    "T1": (0.0, 5.0),  # cerebrospinal fluid at 3 T: below 5 s
}
"""Bounds that physics sets. A value outside is a failure, whatever the reason; within them nothing is judged here."""

COHORTS = ("spine-generic_multi-subject", "AOMIC", "DLBS", "MASiVar", "UCLA_LA5c")
SHAPE = {
    "MEAN(area)": ("area", "mm2"),
    "MEAN(diameter_AP)": ("diameter_AP", "mm"),
    "MEAN(diameter_RL)": ("diameter_RL", "mm"),
}
INCH, POUND = 0.0254, 0.45359237  # m, kg


class Loaded(NamedTuple):
    """Observations, and what of the tables is not among them (columns `LEFT_OUT`)."""

    observations: pd.DataFrame
    left_out: pd.DataFrame


def main() -> None:
    for loader in (spine_generic, lifespan, retest):
        observations, left_out = loader()
        print(f"{loader.__name__}: {len(observations)} values, {observations.participant_id.nunique()} people")
        cells = observations.groupby(CELL)
        print(cells.value.describe()[["count", "min", "50%", "max"]].to_string(float_format="{:.4g}".format))
        print(observations.groupby(["site", "pathology"], dropna=False).participant_id.nunique().to_dict())
        print("quality", observations.quality.str.replace(r"\d+", "n", regex=True).value_counts().to_dict())
        print("left out", left_out.groupby(["table", "reason"]).size().to_dict(), "\n")


def spine_generic() -> Loaded:
    """Cross-sectional metrics of 185 people at 31 institutions; three manufacturers.

    AD is 3 MD - 2 RD, which holds for weighted means too. T1 and MTsat are not corrected for the transmit field. Seven
    people were scanned at three of the sites under three names (travelling people), and are seven more than they seem.
    """
    name = "spine_generic_qmri.csv"
    table = _read(name)
    people = pd.DataFrame(
        {
            "participant_id": table.participant_id,
            "session_id": None,
            "site": table.institution_id,
            "manufacturer": table.manufacturer,
            "scanner": table.manufacturers_model_name,
            "protocol": "spine-generic",
            "software": "SCT",
            "pathology": table.pathology,
            "age": table.age,
            "sex": table.sex,
            "height": table.height / 100,
            "weight": table.weight,
        }
    )
    parts = [
        _part(people, table[f"{prefix}{metric}{suffix and '_'}{suffix}"], (metric, region, "C2:C5"), UNITS[metric])
        for prefix, metrics in (("DWI_", ("FA", "MD", "RD")), ("", ("MTR", "MTsat")))
        for metric in metrics
        for suffix, region in TRACTS.items()
    ]
    for suffix, region in TRACTS.items():
        end = f"_{suffix}" if suffix else ""
        parts.append(
            _part(people, 3 * table[f"DWI_MD{end}"] - 2 * table[f"DWI_RD{end}"], ("AD", region, "C2:C5"), "mm2/s")
        )
    parts.append(_part(people, table["T1"], ("T1", "white matter", "C2:C5"), "s"))
    parts += [_part(people, table[column], cell, "mm2") for column, cell in AREAS.items()]
    return _loaded(name, pd.concat(parts, ignore_index=True))


def lifespan() -> Loaded:
    """Area and diameters of the cord per vertebral level in five cohorts of 5 to 90 years, some over several waves.

    The contrast stands in the metric (`area T1w`, `diameter_AP T2w`, ...). The site is the institution (spine-generic),
    the part of the study that the participant's name tells (AOMIC), the scanner that the session's name tells (MASiVar)
    or the cohort. Controls ("CN") are "HC"; other labels stay. A level of which less than half lies in the image keeps
    its value and says so in `quality`: it is the mean of another place.
    """
    tables = {cohort: _read(f"morphometry_{cohort}.csv.gz").assign(cohort=cohort) for cohort in COHORTS}
    shape = pd.concat(tables.values(), ignore_index=True)
    shape["participant_id"] = shape.scan.str.extract(r"^(sub-[^_]+)")[0]
    shape["session_id"] = shape.scan.str.extract(r"_(ses-[^_]+)_")[0]
    shape["contrast"] = shape.scan.str.extract(r"_([^_]+)$")[0]
    people = pd.concat([_people(cohort) for cohort in COHORTS], ignore_index=True)
    shape["known"] = shape.cohort + shape.participant_id + shape.session_id.fillna("")
    people["known"] = people.cohort + people.participant_id + people.session_id.fillna("")
    joined = shape.merge(people.drop(columns=["cohort", "participant_id", "session_id"]), on="known", how="left")
    full = joined.groupby("VertLevel").n_slices.transform("max")
    few = joined.n_slices < full / 2
    joined["quality"] = "ok"
    joined.loc[few, "quality"] = (
        "level partly covered: " + joined.n_slices.astype(str) + " of " + full.astype(str) + " slices"
    )[few]
    joined["level"] = joined.VertLevel.map(lambda number: f"C{number}" if number < 8 else f"T{number - 7}")
    joined["protocol"] = joined.contrast
    joined["software"] = "SCT"
    parts = [
        joined.assign(metric=metric + " " + joined.contrast, unit=unit, region="spinal cord", value=joined[column])
        for column, (metric, unit) in SHAPE.items()
    ]
    strangers = sorted(set(people.known) - set(shape.known))
    missing = people[people.known.isin(strangers)].assign(reason="no scan in the table of shapes")
    unknown = joined[joined["site"].isna()].assign(reason="not in the table of participants")
    loaded = _loaded("morphometry", pd.concat(parts, ignore_index=True).query("site == site"))
    lost = pd.concat([missing, unknown]).assign(table="morphometry").reindex(columns=list(LEFT_OUT))
    return Loaded(loaded.observations, pd.concat([loaded.left_out, lost], ignore_index=True))


def published(dataset: str, manufacturer: str = "unknown") -> pd.DataFrame:
    """Published bands of a cohort whose rows are not at hand: area and diameters by level, sex and decade.

    From the normative table of the PAM50 space (``values/norm_morphometry_level_sex_age.csv``); columns as
    `qcord.normative.statistics.from_summaries` takes them, and metric, level, unit.
    """
    table = pd.read_csv(DATA.parent / "values" / "norm_morphometry_level_sex_age.csv")
    table = table[(table["dataset"] == dataset) & (table["sex"] != "all") & (table["band"] != "all")]
    ends = table["band"].str.extract(r"\[([\d.]+), ([\d.]+)\)").astype(float)
    age = ends.mean(axis=1).where(ends[1] < 100, 84.0)
    parts = []
    for name, metric, unit in (("CSA", "area", "mm2"), ("AP", "diameter_AP", "mm"), ("RL", "diameter_RL", "mm")):
        columns = {"count": table["n"], "mean": table[f"{name}_mean"], "sd": table[f"{name}_sd"], "age": age}
        part = pd.DataFrame({**columns, "sex": table["sex"], "level": table["lev"]})
        parts.append(part.assign(metric=metric, unit=unit, site=dataset, manufacturer=manufacturer))
    return pd.concat(parts, ignore_index=True).dropna(subset=["mean", "age"])


def retest() -> Loaded:
    """Three people, three to four sessions each, on one scanner; same metrics and software as `spine_generic`."""
    parts = []
    values: dict[str, pd.Series] = {}
    for metric in ("FA", "MD", "RD", "MTR", "MTsat", "T1"):
        name = f"retest_DWI_{metric}.csv" if metric in {"FA", "MD", "RD"} else f"retest_{metric}.csv"
        table = _read(name)
        values[metric] = pd.Series(table["WA()"].to_numpy(), index=pd.MultiIndex.from_tuples(_names(table)))
        scale = 1e3 if metric == "T1" else 1.0  # the file holds ks, by a slip of units in the software
        people = _repeated(table)
        parts.append(_part(people, table["WA()"] * scale, (metric, "white matter", "C2:C5"), UNITS[metric]))
        if metric == "RD":
            axial = (3 * values["MD"] - 2 * values["RD"]).reindex(values["RD"].index)
            parts.append(
                _part(people, pd.Series(axial.to_numpy()), ("AD", "white matter", "C2:C5"), "mm2/s"),
            )
    for column in ("csa-SC_T1w", "csa-SC_T2w", "csa-GM_T2s"):
        table = _read(f"retest_{column}.csv")
        parts.append(_part(_repeated(table), table["MEAN(area)"], AREAS[column], "mm2"))
    return _loaded("retest", pd.concat(parts, ignore_index=True))


def retest_scatter() -> pd.DataFrame:
    """Standard deviation over the voxels of the region, over their mean, of each session of `retest`.

    It is high where a scan or its registration failed, whatever the mean says.
    """
    parts = []
    for metric in ("FA", "MD", "RD", "MTR", "MTsat", "T1"):
        table = _read(f"retest_DWI_{metric}.csv" if metric in {"FA", "MD", "RD"} else f"retest_{metric}.csv")
        part = pd.DataFrame(_names(table), columns=["participant_id", "session_id"])
        parts.append(part.assign(metric=metric, scatter=table["STD()"] / table["WA()"].abs()))
    return pd.concat(parts, ignore_index=True)


def _read(name: str) -> pd.DataFrame:
    path = DATA / "tables" / name
    if not path.exists():
        raise SystemExit(f"{path} does not exist; set QCORD_TEST_DATA to the folder that holds tables/{name}.")
    return pd.read_csv(path, sep="\t" if name.endswith(".tsv") else ",")


def _people(cohort: str) -> pd.DataFrame:
    """Participants of a cohort, one row a session; units m and kg."""
    table = _read(f"participants_{cohort}.tsv")
    table["cohort"] = cohort
    if "session_id" not in table:
        table["session_id"] = None
    empty = pd.Series(None, index=table.index, dtype=object)
    table["scanner"] = table.get("manufacturers_model_name", empty)
    table["manufacturer"] = table.get("manufacturer", empty)
    imperial = cohort == "DLBS"
    none = pd.Series(np.nan, index=table.index)
    table["height"] = table.get("height", none) * (INCH if imperial else 0.01)
    table["weight"] = table.get("weight", none) * (POUND if imperial else 1.0)
    table["pathology"] = table.pathology.replace({"CN": "HC"})
    part = empty
    if cohort == "AOMIC":
        part = table.participant_id.str.extract(r"^sub-(ID1000|PIOP\d)x")[0]
    elif cohort == "MASiVar":
        part = table.session_id.str.extract(r"^ses-(s\d+[A-Z]?)x")[0]
        table["scanner"] = part
    label = cohort.removesuffix("_multi-subject")
    table["site"] = label + (" " + part).fillna("")
    if "institution" in table:
        table["site"] = table.institution.str.split(" - ").str[0]
    keep = ("cohort", "participant_id", "session_id", "site", "manufacturer", "scanner", "pathology", "age", "sex")
    return table[[*keep, "height", "weight"]]


def _names(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [tuple(name.split("/")[:2]) for name in table.Filename]


def _repeated(table: pd.DataFrame) -> pd.DataFrame:
    people = pd.DataFrame(_names(table), columns=["participant_id", "session_id"])
    return people.assign(
        site="retest", protocol="spine-generic", pathology="HC", software="SCT " + table["SCT Version"]
    )


def _part(people: pd.DataFrame, values: pd.Series, cell: tuple[str, str, str], unit: str) -> pd.DataFrame:
    metric, region, level = cell
    part = people.assign(metric=metric, region=region, level=level, unit=unit, quality="ok")
    part["value"] = values.to_numpy()
    low, high = POSSIBLE.get(metric, (0.0, np.inf))
    outside = (part.value <= low) | (part.value >= high)
    part.loc[outside, "quality"] = f"outside what physics allows ({low:g} to {high:g} {unit})"
    return part


def _loaded(table: str, values: pd.DataFrame) -> Loaded:
    values = values.reindex(columns=[*COLUMNS])
    values = values.astype(dict.fromkeys(NUMBERS, float))
    empty = values.value.isna()
    left_out = values[empty].assign(table=table, reason="no value in the table").reindex(columns=[*LEFT_OUT])
    return Loaded(values[~empty].reset_index(drop=True), left_out.reset_index(drop=True))


if __name__ == "__main__":
    main()
