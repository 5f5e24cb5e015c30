"""Phantom subjects as a BIDS data set, with every truth beside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue
from qcord.core.image import Image
from qcord.core.labels import VERTEBRAE
from qcord.phantom.spec import PhantomSpec, preset
from qcord.phantom.subject import PhantomSubject, bids_images, make_subject
from qcord.phantom.truth import SeriesTruth
from qcord.pipeline.outputs import QMRI_SUFFIX, TENSOR_PARAMETER, write_gradients
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
)

SPREAD = {"area_factor": 0.09, "length_factor": 0.06, "curvature": 0.3}
"""Standard deviations by which subjects of a cohort differ: area as in spine-generic (coefficient of variation 9 %,
n = 203), neck length and curvature assumed."""


FULL_SCALE = 4000.0
"""Largest stored value, as scanners use of 12 bits."""


def phantom(
    out_dir: Path | str, *, kind: str = "healthy", subjects: int = 1, seed: int = 0, motion_mm: float = 0.0
) -> Path:
    """Write phantom subjects as a BIDS data set.

    Raw images lie in ``out_dir``; masks, fractions, levels, maps and tables of the truth in
    ``derivatives/truth``; the points that a person would set by hand in ``derivatives/landmarks``.

    Parameters
    ----------
    out_dir : path
        Folder of the data set.
    kind : str
        ``healthy``, ``compression`` or ``lesion``.
    subjects : int
        Number of subjects; they differ in size and curvature when there are several.
    seed : int
        Seed of size, noise and motion.
    motion_mm : float
        Standard deviation of the shift of each slice of each volume [mm].

    Returns
    -------
    path
        The data set.

    Raises
    ------
    ImplausibleValue
        If the number of subjects is not positive.
    UnknownName
        If there is no such kind.
    """
    if subjects < 1:
        raise ImplausibleValue(f"The number of subjects is {subjects}, expected at least 1.")
    base = preset(kind).replace(motion_mm=motion_mm)
    return write_phantoms(cohort(base, subjects, seed), Path(out_dir))


def cohort(base: PhantomSpec, subjects: int, seed: int) -> list[PhantomSpec]:
    """Specifications of several subjects; one subject has the average size."""
    specs = []
    for number in range(subjects):
        generator = np.random.default_rng([seed, number])
        changes = {
            k: getattr(base, k) + (s * generator.standard_normal() if subjects > 1 else 0) for k, s in SPREAD.items()
        }
        changes["area_factor"] = float(np.clip(changes["area_factor"], 0.75, 1.3))
        changes["length_factor"] = float(np.clip(changes["length_factor"], 0.85, 1.15))
        changes["curvature"] = float(np.clip(changes["curvature"], 0.2, 1.6))
        specs.append(base.replace(label=f"{base.label}{number + 1:02d}", seed=seed * 1000 + number, **changes))
    return specs


def write_phantoms(specs: Sequence[PhantomSpec], out: Path) -> Path:
    """Make and write subjects, one at a time, each completely or not at all."""
    require_writable(out)
    write_json(out / "dataset_description.json", _description("qcord phantom", "raw"))
    for name in ("truth", "landmarks"):
        write_json(out / "derivatives" / name / "dataset_description.json", _description(name, "derivative"))
    for spec in specs:
        subject = make_subject(spec)
        with staged(out) as folder:
            write_subject(subject, folder)
            _write_truth(subject, folder / "derivatives" / "truth")
    labels = sorted({p.name for p in out.glob("sub-*") if p.is_dir()})
    write_table(out / "participants.tsv", pd.DataFrame({"participant_id": labels}))
    return out


def _description(name: str, kind: str) -> dict[str, object]:
    made = [{"Name": name if kind == "derivative" else "qcord", "Version": package_version()}]
    return {"Name": name, "BIDSVersion": "1.11.1", "DatasetType": kind, "GeneratedBy": made}


def write_subject(subject: PhantomSubject, folder: Path) -> None:
    """Write the scans of a subject and the discs that a person would mark, below a data set's folder."""
    _write_raw(subject, folder)
    _write_landmarks(subject, folder / "derivatives" / "landmarks")


def _write_raw(subject: PhantomSubject, folder: Path) -> None:
    top = {name: float(np.nanmax(series.image.data)) for name, series in subject.series.items()}
    for image in bids_images(subject):
        kind = "dwi" if image.entities.suffix == "dwi" else "anat"
        path = folder / f"sub-{subject.spec.label}" / kind / image.entities.name
        scale = FULL_SCALE / top[image.entities.suffix]  # one scale for all files of a series: ratios are kept
        stored = image.derive(np.rint(image.data * scale).astype(np.int16))
        write_bytes(path, image_bytes(stored.data, stored.grid))
        write_json(sidecar_of(path), dict(image.metadata))
        if kind == "dwi":
            write_gradients(path, image, subject.series["dwi"].protocol)


def _write_truth(subject: PhantomSubject, folder: Path) -> None:
    home = folder / f"sub-{subject.spec.label}"
    for token, truth in subject.truth.items():
        _write_masks(subject, token, truth, home)
        for metric, image in truth.maps.items():
            file = _map_name(subject.series[token].image.entities, metric)
            if file is not None:
                write_image(home / ("dwi" if token == "dwi" else "anat") / file.name, image)
    for name, table in (("regions", subject.regions), ("sizes", subject.sizes), ("tissues", subject.tissues)):
        write_table(home / f"sub-{subject.spec.label}_desc-{name}_truth.tsv", table)


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


def _map_name(source: Entities, metric: str) -> Entities | None:
    if metric in TENSOR_PARAMETER:
        return source.replace(suffix="dwimap", model="tensor", param=TENSOR_PARAMETER[metric])
    suffix = QMRI_SUFFIX.get(metric)
    return None if suffix is None else source.replace(suffix=suffix)


def _write_landmarks(subject: PhantomSubject, folder: Path) -> None:
    marks = subject.landmarks[subject.landmarks["kind"] == "disc"][["name", "x", "y", "z"]]
    name = f"sub-{subject.spec.label}_desc-T2wDiscs_landmarks.tsv"
    write_table(folder / f"sub-{subject.spec.label}" / "anat" / name, marks)
