"""Whether 95 % intervals of regional values cover the truth of the phantom.

Run ``python benchmarks/coverage.py [draws] [atlas] [pipeline] [people] [placement]``; 50 draws and all parts by
default.
The noise of the scans is that of a zoomed 0.9 x 0.9 x 5 mm protocol.

``atlas``: motion-free scans, fits and read-out with the phantom's own atlas, which judges fits and read-out alone.
``pipeline``: the whole run on files, with its own cord masks and registration (landmarks of the discs given, as a user
gives them), which judges everything together.
``people``: the same of as many people as draws (at most 16), one draw each. Where the outline lies, and so what the
atlas takes for cord, is common to all draws of one person: only over people do the errors of placement show.
``placement``: how far computed outlines of the cord are off.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.anatomy.morphometry import slice_moments
from qcord.anatomy.segment import segment_cord
from qcord.atlas.extract import extract
from qcord.atlas.project import Atlas
from qcord.core.image import Image
from qcord.core.labels import TRACTS, vertebra_name
from qcord.ingest.bids import find_visits
from qcord.ingest.gradients import B0_LIMIT
from qcord.maps.fit import fit
from qcord.phantom.spec import preset
from qcord.phantom.subject import PhantomSubject, make_subject, redraw
from qcord.phantom.truth import SeriesTruth
from qcord.pipeline.phantom import cohort, write_subject
from qcord.pipeline.templates import load_template
from qcord.pipeline.visit import Request, process
from qcord.preprocess.noise import estimate_noise

FEWEST = 10.0
METRICS = ("FA", "MD", "MTR", "MTsat", "T1")


def true_atlas(truth: SeriesTruth) -> Atlas:
    """The phantom's own fractions on the grid of a series."""
    weights = np.asarray(truth.weights.toarray())
    rows = np.flatnonzero(weights.sum(axis=1) > 0)
    grid = truth.cord.grid
    levels = []
    for k in range(grid.shape[2]):
        inside = np.asarray(truth.vertebrae.data[:, :, k])
        inside = inside[inside > 0].astype(int)
        levels.append(vertebra_name(int(np.bincount(inside).argmax())) if inside.size else "")
    index = np.stack(np.unravel_index(rows, grid.shape), axis=-1)
    return Atlas(grid, index, weights[rows], tuple(r.name for r in truth.regions), tuple(levels))


def by_atlas(subject: PhantomSubject, draws: int) -> Iterator[pd.DataFrame]:
    """Tables of each draw with the true atlas."""
    atlases = {name: true_atlas(truth) for name, truth in subject.truth.items() if name in {"dwi", "MTS"}}
    for draw in range(draws):
        drawn = redraw(subject, 1000 + draw, ("dwi", "MTS"))
        noise = estimate_noise(drawn.series["MTS"].image)
        fits = {"dwi": [fit("tensor", drawn.series["dwi"])]}
        fits["MTS"] = [fit(m, drawn.series["MTS"], noise=noise.sigma) for m in ("mtr", "mtsat")]
        for name, done in fits.items():
            maps, errors = {}, {}
            for one in done:
                for metric in METRICS:
                    if metric in one.maps:
                        bias = np.nan_to_num(one.bias[metric].data)
                        maps[metric], errors[metric] = (
                            one.maps[metric].derive(one.maps[metric].data - bias),
                            one.std[metric],
                        )
            correlation = noise.correlation if name == "MTS" else None
            yield extract(maps, atlases[name], std=errors, by=["level"], correlation=correlation).assign(draw=draw)


def by_pipeline(subject: PhantomSubject, draws: int) -> Iterator[pd.DataFrame]:
    """Tables of each draw from files, by the whole run."""
    template = load_template("qcord")
    for draw in range(draws):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            write_subject(redraw(subject, 1000 + draw), root)
            request = Request(root, find_visits(root)[0], template, derivatives=(root / "derivatives" / "landmarks",))
            found = process(request).metrics
        yield found[(found["level"] != "") & (found["slice"] == "")].assign(draw=draw)


def by_people(people: int) -> Iterator[pd.DataFrame]:
    """Tables of different people, with their truth, by the whole run."""
    for k, spec in enumerate(cohort(preset("healthy").replace(series=("T2w", "dwi", "MTS")), people, 11)):
        subject = make_subject(spec)
        yield from (with_truth(table, subject).assign(draw=k) for table in by_pipeline(subject, 1))


def with_truth(table: pd.DataFrame, subject: PhantomSubject) -> pd.DataFrame:
    truth = subject.regions.set_index(["region", "level", "metric"])["value"]
    keys = zip(table["region"], table["level"], table["metric"], strict=True)
    return table.assign(truth=[truth.get(k, np.nan) for k in keys])


def report(title: str, tables: Iterator[pd.DataFrame]) -> None:
    """Share of intervals that cover, by metric, estimator and kind of region, and how far values are off."""
    found = pd.concat(tables, ignore_index=True)
    found = found[
        found["truth"].notna() & found["value"].notna() & (found["n_eff"] >= FEWEST) & found["metric"].isin(METRICS)
    ]
    covered = (found["ci_low"] <= found["truth"]) & (found["truth"] <= found["ci_high"])
    off = found["value"] - found["truth"]
    found = found.assign(covers=covered, z=off / found["se"], percent=100 * off / found["truth"])
    found["kind"] = np.where(found["region"].isin(TRACTS), "tract", "combined")
    print(f"\n{title}: {found['draw'].nunique()} draws, regions of {FEWEST:g} effective voxels or more, by level")
    what = {"covers": ("covers", "mean"), "rows": ("covers", "size"), "z_mean": ("z", "mean"), "z_sd": ("z", "std")}
    what["off %"] = ("percent", "mean")
    for kinds in (["tract"], ["combined"], ["tract", "combined"]):
        rows = found[found["kind"].isin(kinds)].groupby(["estimator", "metric"]).agg(**what)
        print(f"{' and '.join(kinds)} regions\n{rows.round(3).to_string()}")
    part = found[(found["kind"] == "combined") & (found["estimator"] == "map")]
    print(f"estimator map\n{part.groupby(['metric', 'region']).agg(**what).round(3).to_string()}")


def placement() -> None:
    """Errors of the centre, the edge and the turn of computed outlines, over twelve subjects of three kinds."""
    rows = []
    for kind in ("healthy", "compression", "lesion"):
        for spec in cohort(preset(kind).replace(series=("dwi", "MTS")), 4, 7):
            subject = make_subject(spec)
            for name, series in subject.series.items():
                weighted = series.protocol["BValue"] > B0_LIMIT if name == "dwi" else [True, False, False]
                image = series.image.derive(np.asarray(series.data[..., weighted].mean(axis=-1)))
                found = np.asarray(
                    segment_cord(image, "dwi" if name == "dwi" else "MTon").probability.data, dtype=float
                )
                rows.append(
                    (kind, name, *outline_errors(found, np.asarray(subject.truth[name].cord.data, dtype=float), image))
                )
    table = pd.DataFrame(rows, columns=["kind", "series", "right", "anterior", "edge", "turn"])
    means = table.groupby(["kind", "series"]).agg(lambda v: np.sqrt((v**2).mean()))
    print(f"\nrms error of computed outlines [mm, rad], mean over slices of each subject\n{means.round(3).to_string()}")
    print(f"all: {np.sqrt((table.iloc[:, 2:] ** 2).mean()).round(3).to_dict()}")


def outline_errors(found: np.ndarray, true: np.ndarray, image: Image) -> tuple[float, ...]:
    """Mean over inner slices of the error of centre (right, anterior), mean radius, and turn of the long axis."""
    spacing = np.array(image.grid.spacing[:2])
    own, known = (slice_moments(f) for f in (found, true))
    both = (own[0] > 20) & (known[0] > 20)
    both[[0, -1]] = False
    centre = ((own[1] - known[1])[both] * spacing).mean(axis=0)
    edge = (np.sqrt(own[0]) - np.sqrt(known[0]))[both].mean() * np.sqrt(spacing.prod() / np.pi)
    turns = [0.5 * np.arctan2(2 * m[2][both, 0, 1], m[2][both, 0, 0] - m[2][both, 1, 1]) for m in (own, known)]
    return float(centre[0]), float(centre[1]), float(edge), float((turns[0] - turns[1]).mean())


if __name__ == "__main__":
    words = sys.argv[1:]
    number = int(words.pop(0)) if words and words[0].isdigit() else 50
    person = make_subject(preset("healthy").replace(series=("T2w", "dwi", "MTS")))
    if not words or "atlas" in words:
        report("true atlas", (with_truth(table, person) for table in by_atlas(person, number)))
    if not words or "pipeline" in words:
        report("whole pipeline", (with_truth(table, person) for table in by_pipeline(person, number)))
    if not words or "people" in words:
        report("whole pipeline, different people", by_people(min(number, 16)))
    if not words or "placement" in words:
        placement()
