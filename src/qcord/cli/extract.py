"""``qcord extract``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qcord.cli.progress import plain

Many = Parameter(consume_multiple=True, negative="")


def command(
    image: Path,
    atlas: Path,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    std: Path | None = None,
    shift: Annotated[Sequence[Path] | None, Many] = None,
    metric: str = "",
    by: Annotated[Sequence[Literal["level", "slice", "all"]], Many] = ("level", "slice", "all"),
    estimator: Annotated[Sequence[Literal["wa", "ml", "map"]], Many] = ("wa", "ml", "map"),
    region: Annotated[Sequence[str] | None, Many] = None,
    map_ratio: float = 1.0,
) -> None:
    """Read one map out per region, level and slice, with standard errors.

    Parameters
    ----------
    image
        Map, NaN where it has no value; in maps of other software also 0, where the metric cannot be 0 in tissue.
    atlas
        Folder with atlas/info_label.txt and its fields on the grid of the map, or the atlas file that register wrote.
    out
        Table to write, tab-separated, or comma-separated if it ends in .csv; printed if not given.
    std
        Standard error of each voxel.
    shift
        Change of the map by one standard error of what it was given; by default the desc-shift files beside std.
    metric
        Name for the table; by default that of the file.
    by
        Places to report.
    estimator
        Estimators to report.
    region
        Regions to report, by name; all by default.
    map_ratio
        Noise over spread of the regions in the maximum a posteriori estimate.
    """
    from qcord.pipeline.extract import extract

    table = extract(
        image,
        atlas,
        out,
        std=std,
        shift=shift,
        metric=metric,
        by=by,
        estimator=estimator,
        region=region,
        map_ratio=map_ratio,
    )
    plain().print(f"{out}" if out is not None else table.to_string(index=False, max_rows=None))
