"""A first look: a phantom cohort through the main job, with no network and nothing to set."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qcord.phantom.spec import preset
from qcord.pipeline.phantom import cohort, write_phantoms
from qcord.pipeline.run import Notify, Outcome, gather, run

KINDS = {"healthy": "F", "compression": "M", "lesion": "F"}
"""Phantoms with the sex that their tables name, for the comparison with healthy people."""
REGIONS = ("white matter", "gray matter", "dorsal columns", "WM left lateral corticospinal tract")


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration made.

    Parameters
    ----------
    folder : path
        Holds ``raw`` and ``qcord``.
    outcomes : tuple of Outcome
        One a subject.
    table : DataFrame
        Subject, metric and region with the value over all levels, its interval and the truth.
    """

    folder: Path
    outcomes: tuple[Outcome, ...]
    table: pd.DataFrame


def demo(
    out_dir: Path | str = "qcord-demo", *, seed: int = 1, notify: Notify = lambda visit, stage: None
) -> DemoResult:
    """Make three phantom subjects (healthy, compressed cord, lesion), run the main job, and compare with the truth.

    Parameters
    ----------
    out_dir : path
        Folder to make.
    seed : int
        Seed of the cohort.
    notify : callable
        Told subject and stage as work goes on.

    Returns
    -------
    DemoResult
        Reports and a table of estimates beside the truth.
    """
    folder = Path(out_dir).absolute()
    specs = []
    for number, (kind, sex) in enumerate(KINDS.items()):
        spec = cohort(preset(kind), 1, seed + number)[0]
        specs.append(spec.replace(person={**spec.person, "sex": sex}))
    for spec in specs:
        notify(f"sub-{spec.label}", "scan phantom")
        write_phantoms([spec], folder / "raw")
    out = folder / "qcord"
    outcomes = run(
        folder / "raw", out, derivatives=[folder / "raw" / "derivatives" / "landmarks"], template="qcord", notify=notify
    )
    if any(o.report for o in outcomes):
        gather(out)
    return DemoResult(folder, outcomes, compare(folder))


def compare(folder: Path) -> pd.DataFrame:
    """Estimates at C4 beside the truth of the phantom."""
    rows = []
    for path in sorted((folder / "qcord").glob("sub-*/*_desc-atlas_metrics.tsv")):
        found = pd.read_csv(path, sep="\t", dtype={"level": str, "slice": str, "participant_id": str})
        label = str(found["participant_id"].iloc[0])
        truth = pd.read_csv(
            next((folder / "raw" / "derivatives" / "truth").glob(f"sub-{label}/*_desc-regions_truth.tsv")), sep="\t"
        )
        chosen = found[(found["level"] == "C4") & found["slice"].isna() & (found["estimator"] == "map")]
        both = chosen.merge(truth, on=["region", "level", "metric"], suffixes=("", "_true"))
        rows.append(both[both["region"].isin(REGIONS)])
    if not rows:
        return pd.DataFrame(columns=["participant_id", "metric", "region", "value", "ci_low", "ci_high", "value_true"])
    table = pd.concat(rows, ignore_index=True)
    return table[["participant_id", "metric", "region", "value", "ci_low", "ci_high", "value_true"]]
