"""``qcord demo``."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from qcord.cli.progress import plain, progress_bars


def command(out_dir: Path = Path("qcord-demo"), *, seed: int = 1) -> int:
    """Make a phantom cohort, run the main job on it, and compare with the truth; no network needed.

    Parameters
    ----------
    out_dir
        Folder to make.
    seed
        Seed of the cohort.
    """
    from qcord.pipeline.demo import demo

    with progress_bars() as notify:
        result = demo(out_dir, seed=seed, notify=notify)
    table = Table(title="Values at C4 with their 95 % interval, and the truth of the phantom", title_justify="left")
    for name in ("subject", "metric", "region"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "interval", "truth"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.table.to_dict("records"):
        if row["metric"] in {"FA", "MTR", "MTsat", "T1"}:
            interval = f"{row['ci_low']:.3g} – {row['ci_high']:.3g}"
            region = str(row["region"]).removeprefix("WM ").replace("corticospinal tract", "CST")
            numbers = (f"{row['value']:.3g}", interval, f"{row['value_true']:.3g}")
            table.add_row(str(row["participant_id"]), str(row["metric"]), region, *numbers)
    Console().print(table)
    for outcome in result.outcomes:
        if outcome.error:
            plain(error=True).print(f"qcord: {outcome.visit}: {outcome.error}")
        else:
            plain().print(f"{outcome.visit}: {outcome.report}")
    plain().print(f"All tables: {result.folder / 'qcord' / 'metrics.parquet'}")
    return int(any(o.error for o in result.outcomes))
