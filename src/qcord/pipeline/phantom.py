"""Phantom subjects as a BIDS data set, with every truth beside them."""

import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue
from qcord.core.image import Image
from qcord.core.labels import VERTEBRAE
from qcord.core.series import Series
from qcord.phantom.body import HALF_LEVEL
from qcord.phantom.cohort import SITES, cohort, participants, person_truth
from qcord.phantom.effects import usual_effects
from qcord.phantom.files import split_series
from qcord.phantom.spec import PhantomSpec, preset
from qcord.phantom.subject import PhantomSubject, make_subject
from qcord.phantom.truth import SeriesTruth
from qcord.pipeline.map_names import TENSOR_PARAMETER
from qcord.pipeline.outputs import write_gradients
from qcord.pipeline.store import (
    image_bytes,
    package_version,
    require_writable,
    sidecar_of,
    staged,
    write_bytes,
    write_image,
    write_json,
    write_table,
    write_text,
)

__all__ = ["cohort", "phantom", "write_phantoms", "write_subject"]

FULL_SCALE = 4000.0
"""Largest stored value, as scanners use of 12 bits."""

TRUTH_SUFFIX = {"MTR": "MTRmap", "MTsat": "MTsat", "B1": "TB1map", "B0": "fieldmap"}
"""Metric to suffix of its map; others are named after the metric."""

IGNORED = {
    "": ("*_dwi.bdelta", "*_dwi.bvec2"),
    "derivatives/truth": ("*map.*", "*_truth.tsv", "people.tsv"),
    "derivatives/landmarks": ("*_landmarks.tsv",),
}
"""What BIDS has no rule for, by folder: b-tensors, maps of values that it does not know, and tables."""

COLUMNS = {
    "age": {"Description": "Age", "Units": "year"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Scanner that the person was examined on"},
    "scanner": {"Description": "Vendor whose scanners that of the site resembles in the values that it shows"},
}


def phantom(
    out_dir: Path | str,
    *,
    kind: str = "healthy",
    subjects: int = 1,
    seed: int = 0,
    motion_mm: float = 0.0,
    contrasts: Sequence[str] = (),
    effects: Sequence[str] = (),
    tesla: float = 3.0,
    sites: int = SITES,
    n_jobs: int = 1,
) -> Path:
    """Write phantom subjects as a BIDS data set.

    Raw images lie in ``out_dir``; masks, fractions, levels, maps and tables of the truth in
    ``derivatives/truth``; the points that a person would set by hand in ``derivatives/landmarks``.

    Parameters
    ----------
    out_dir : path
        Folder of the data set.
    kind : str
        One of `qcord.phantom.spec.PRESETS`: ``healthy``, ``dcm``, ``ms``, ``compression`` or ``lesion``.
    subjects : int
        Number of subjects; several differ in age, sex, size, tissue, disease and scanner.
    seed : int
        Seed of all that is random.
    motion_mm : float
        Standard deviation of the shift of each slice of each volume [mm].
    contrasts : sequence of str
        Series: ``T2w``, ``T2star``, ``dwi``, ``MTS``, ``multishell``, ``epi`` and names of registered models, which are
        scanned with their example protocol. The first four by default.
    effects : sequence of str
        Names of `qcord.phantom.effects.USUAL`, or ``all``.
    tesla : float
        Field strength: 1.5, 3 or 7.
    sites : int
        Number of scanners in a cohort.
    n_jobs : int
        Subjects made at a time; the files do not depend on it.

    Returns
    -------
    path
        The data set.

    Raises
    ------
    ImplausibleValue
        If the number of subjects or sites is not positive.
    UnknownName
        If there is no such kind, contrast or effect.
    """
    for number, what in ((subjects, "subjects"), (sites, "sites"), (n_jobs, "subjects at a time")):
        if number < 1:
            raise ImplausibleValue(f"The number of {what} is {number}, expected at least 1.")
    base = preset(kind).replace(motion_mm=motion_mm, tesla=tesla, effects=usual_effects(*effects))
    if contrasts:
        base = base.replace(series=tuple(dict.fromkeys(contrasts)))
    return write_phantoms(cohort(base, subjects, seed, sites=sites), Path(out_dir), n_jobs=n_jobs)


def write_phantoms(specs: Sequence[PhantomSpec], out: Path, *, n_jobs: int = 1) -> Path:
    """Make and write subjects, each completely or not at all."""
    require_writable(out)
    write_json(out / "dataset_description.json", _description("qcord phantom", "raw"))
    for folder, names in IGNORED.items():
        write_text(out / folder / ".bidsignore", "\n".join(names) + "\n")
    write_text(out / "README.md", _README.format(ratio=np.exp(HALF_LEVEL)))
    for name in ("truth", "landmarks"):
        write_json(out / "derivatives" / name / "dataset_description.json", _description(name, "derivative"))
    if n_jobs > 1 and len(specs) > 1:
        with ProcessPoolExecutor(min(n_jobs, len(specs))) as pool:
            list(pool.map(partial(_make, out=out), specs))
    else:
        for spec in specs:
            _make(spec, out)
    _write_people(list(specs), out)
    return out


def _make(spec: PhantomSpec, out: Path) -> None:
    with threadpool_limits(1, user_api="blas"):  # type: ignore[no-untyped-call]
        subject = make_subject(spec)
    with staged(out) as folder:
        write_subject(subject, folder)
        _write_truth(subject, folder / "derivatives" / "truth")


def _description(name: str, kind: str) -> dict[str, object]:
    made = [{"Name": name if kind == "derivative" else "qcord", "Version": package_version()}]
    return {"Name": name, "BIDSVersion": "1.11.1", "DatasetType": kind, "Authors": ["qcord"], "GeneratedBy": made}


_README = """# qcord phantom

Scans of digital subjects: no person was examined. What is true of them lies in `derivatives/truth`, the discs that a
person would mark in `derivatives/landmarks`.

True sizes of the cord (`*_desc-sizes_truth.tsv`: `area` in mm2, `ap` and `rl` in mm, means over the level across the
axis) are those of its edge, the half level to the fluid. Published outlines lie inside it: areas are the published ones
of healthy adults times {ratio:.3f} and the `area_factor` of each person in `people.tsv`, less where the cord is
compressed.
"""


def _write_people(specs: list[PhantomSpec], out: Path) -> None:
    """Tables of people and of what is true of them; subjects that were there before keep their rows."""
    there = {p.name for p in out.glob("sub-*") if p.is_dir()}
    for path, new in (
        (out / "participants.tsv", participants(specs)),
        (out / "derivatives" / "truth" / "people.tsv", person_truth(specs)),
    ):
        rows = [new]
        if path.is_file():
            before = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
            rows.insert(0, before[~before["participant_id"].isin(new["participant_id"])])
        table = pd.concat(rows)
        write_table(path, table[table["participant_id"].isin(there)].sort_values("participant_id"))
    write_json(out / "participants.json", COLUMNS)


def write_subject(subject: PhantomSubject, folder: Path) -> None:
    """Write the scans of a subject and the discs that a person would mark, below a data set's folder."""
    home = folder / f"sub-{subject.spec.label}"
    for series in subject.series.values():
        _write_series(series, home)
    _write_transmit_map(subject, home)
    _write_landmarks(subject, folder / "derivatives" / "landmarks")


def _write_series(series: Series, home: Path) -> None:
    suffix = series.image.entities.suffix
    kind = folder_of(suffix)
    scale = FULL_SCALE / float(np.nanmax(np.abs(series.image.data)))  # one for all files of a series: ratios are kept
    for image in split_series(series):
        path = home / kind / image.entities.name
        stored = np.rint(image.data * scale).astype(np.int16)
        write_bytes(path, image_bytes(stored, image.grid))
        extra: dict[str, Any] = {}
        if suffix == "epi":
            extra = {"IntendedFor": [f"bids::{home.name}/dwi/{home.name}_dwi.nii.gz"]}
        write_json(sidecar_of(path), {**image.metadata, **extra})
        if kind == "dwi":
            write_gradients(path, image, series.protocol)


def folder_of(suffix: str) -> str:
    """Folder of BIDS in which images of a suffix lie."""
    if suffix == "dwi":
        return "dwi"
    return "fmap" if suffix == "epi" or suffix.startswith("TB1") else "anat"


def _write_transmit_map(subject: PhantomSubject, home: Path) -> None:
    """The transmit field as a map in percent, on the grid of the first axial series that is not distorted."""
    for name, truth in subject.truth.items():
        metadata = subject.series[name].image.metadata
        if "B1" in truth.fields and "EffectiveEchoSpacing" not in metadata and name != "T2w":
            image = truth.fields["B1"]
            entities = Entities.of("TB1map", sub=subject.spec.label)
            percent = image.derive(np.asarray(100 * image.data, dtype=np.float32), unit="percent", entities=entities)
            kept = {k: metadata[k] for k in ("Modality", "MagneticFieldStrength", "Manufacturer") if k in metadata}
            write_image(home / "fmap" / entities.name, percent, kept)
            return


def _write_truth(subject: PhantomSubject, folder: Path) -> None:
    home = folder / f"sub-{subject.spec.label}"
    for name, truth in subject.truth.items():
        source = subject.series[name].image.entities
        _write_masks(subject, token_of(source), truth, home)
        for metric, image in (*truth.maps.items(), *truth.fields.items()):
            file = map_name(source, metric)
            if file is not None:
                write_image(home / folder_of(source.suffix) / file.name, image)
    for name, table in (("regions", subject.regions), ("sizes", subject.sizes), ("tissues", subject.tissues)):
        write_table(home / f"sub-{subject.spec.label}_desc-{name}_truth.tsv", table)


def token_of(source: Entities) -> str:
    """Short name of a series in names of masks: its suffix with what else tells it apart."""
    more = [
        value.capitalize() if key == "acq" else f"{key.capitalize()}{value}"
        for key, value in source.pairs
        if key != "sub"
    ]
    return "".join([source.suffix, *more])


def _write_masks(subject: PhantomSubject, token: str, truth: SeriesTruth, home: Path) -> None:
    base = Entities.of(sub=subject.spec.label, space="orig", desc=token)
    anat, sidecar = home / "anat", {"SpatialReference": "orig"}
    mask = truth.mask.derive(np.asarray(truth.mask.data, dtype=np.uint8), unit="label")
    write_image(anat / base.replace(label="SC", suffix="mask").name, mask, sidecar)
    fractions: dict[str, Image] = {"SC": truth.cord, "GM": truth.gray, "WM": truth.white}
    for label, image in fractions.items():
        write_image(
            anat / base.replace(label=label, suffix="probseg").name,
            image.derive(image.data, unit="probability"),
            sidecar,
        )
    levels = truth.vertebrae.derive(np.asarray(truth.vertebrae.data, dtype=np.uint8), unit="label")
    name = base.replace(seg="vertebrae", suffix="dseg")
    write_image(anat / name.name, levels, sidecar)
    present = [int(n) for n in np.unique(levels.data) if n > 0]
    rows = [(n, VERTEBRAE[n - 1]) for n in present]
    write_table(anat / name.replace(extension=".tsv").name, pd.DataFrame(rows, columns=["index", "name"]))


def map_name(source: Entities, metric: str) -> Entities | None:
    """File name of a true map; None for those that are not written."""
    plain = re.sub(r"[^a-zA-Z0-9]", "", metric)
    if source.suffix != "dwi" or metric in TRUTH_SUFFIX:
        return source.replace(suffix=TRUTH_SUFFIX.get(metric, f"{plain}map"))
    if metric == "tensor":
        return None
    model = "tensor" if metric in TENSOR_PARAMETER else "truth"
    return source.replace(suffix="dwimap", model=model, param=TENSOR_PARAMETER.get(metric, plain.lower()))


def _write_landmarks(subject: PhantomSubject, folder: Path) -> None:
    marks = subject.landmarks[subject.landmarks["kind"] == "disc"][["name", "x", "y", "z"]]
    name = f"sub-{subject.spec.label}_desc-T2wDiscs_landmarks.tsv"
    write_table(folder / f"sub-{subject.spec.label}" / "anat" / name, marks)
