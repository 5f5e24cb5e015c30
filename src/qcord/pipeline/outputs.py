"""Files of one visit, by the names that BIDS, QSIRecon and the contract of qcord give them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qcord.anatomy.levels import vertebra_at
from qcord.anatomy.register import warp_to_image
from qcord.core.arrays import FloatArray, IntArray
from qcord.core.entities import Entities
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step
from qcord.core.labels import DISCS, VERTEBRAE
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.ingest.gradients import to_fsl
from qcord.ingest.series import stored_affine
from qcord.pipeline.map_names import as_written, beside_map, flag_name, flag_sidecar, map_name
from qcord.pipeline.norm_values import definitions, scanners
from qcord.pipeline.store import (
    history_of,
    package_version,
    write_bytes,
    write_image,
    write_json,
    write_table,
    write_text,
)
from qcord.pipeline.transforms import field_bytes, field_on_image, field_on_template
from qcord.report.findings import Field, Findings, Located

COLUMN_MEANING = {
    "participant_id": "Subject label without sub-.",
    "session_id": "Session label without ses-; n/a without sessions.",
    "metric": "Quantity.",
    "unit": "Unit of value, se, ci_low and ci_high.",
    "region": "Tract or combined region, by the names of the PAM50 atlas.",
    "level": "Vertebral level; n/a where it is not known or where all levels are pooled.",
    "slice": "Slice number, 0 is the lowest; n/a where slices are pooled.",
    "estimator": "wa weighted mean, ml maximum likelihood, map maximum a posteriori "
    "(doi:10.1016/j.neuroimage.2015.06.040).",
    "value": "Estimate; n/a where there is none, see flag.",
    "se": "Standard error: se_noise, the effect of an outline of the cord that is displaced, turned or too wide, and "
    "the error of the transmit field where the map was corrected by it.",
    "se_noise": "Part of se from the noise of the voxels and, for map, the spread of regions about their cluster.",
    "ci_low": "Lower end of the 95 % confidence interval.",
    "ci_high": "Upper end of the 95 % confidence interval.",
    "n_eff": "Sum of the region's fractions in voxels that carry a value.",
    "n_vox": "Number of voxels with a value that the region touches.",
    "n_slices": "Number of slices that went into the value.",
    "flag": "ok, or why the value is missing or to be doubted.",
    "source": "Series that the value comes from.",
    "z": "Standard deviations of healthy people of this age and sex; what is not known of the norm, the site and the "
    "value counts as spread.",
    "z_low": "Lower end of the 95 % interval: where z could lie if these were known.",
    "z_high": "Upper end of that interval.",
    "centile": "Percent of healthy people with a lower value.",
    "expected": "Value expected of a healthy person, unit of value.",
    "expected_sd": "Standard deviation of healthy people about it, unit of value.",
    "basis": "Whom the value is compared with: site, manufacturer or other.",
    "note": "What to mind, or why there is no z.",
    "age": "Age in years.",
    "sex": "F or M.",
    "site": "Where the person was examined.",
    "manufacturer": "Maker of the scanner.",
    "scanner": "Model of the scanner.",
}


def write_findings(findings: Findings, folder: Path) -> None:
    """Write all files of a visit below ``sub-X[/ses-Y]`` of a data set, without the report.

    Parameters
    ----------
    findings : Findings
        What was found.
    folder : path
        Root of the data set, or of a staging copy of it.
    """
    home = folder / f"sub-{findings.subject}" / (f"ses-{findings.session}" if findings.session else "")
    for place in findings.located.values():
        write_anatomy(place, findings.template, home)
        write_transforms(place, findings.template, home)
    taken: set[str] = set()
    for token, fits in findings.fits.items():
        place = findings.located[token]
        source, names = place.entities, _map_names(place.entities, fits)
        if taken & names:  # T1 by transfer and by flip angles, say
            source = source.replace(acq=token)
        taken |= names
        for fit in fits:
            write_fit(fit, source, place.sources, home)
    if findings.transmit_field is not None:
        _write_field(findings.transmit_field, home)
    for token, images in findings.extra.items():
        for name, content in images.items():
            _write_extra(name, content, findings.located[token], home)
    _write_tables(findings, home)


def describe_columns(table: pd.DataFrame, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Data dictionary of a table."""
    content: dict[str, Any] = {c: {"Description": COLUMN_MEANING.get(c, c)} for c in table.columns}
    if "flag" in content:
        content["flag"]["Levels"] = {f.word: f.sentence for f in Flag}
    content["GeneratedBy"] = [{"Name": "qcord", "Version": package_version()}]
    return {**content, **(extra or {})}


def _write_tables(findings: Findings, home: Path) -> None:
    tables = {"atlas": findings.metrics, "morphometry": findings.morphometry, "quality": findings.quality}
    settings = {"Template": findings.template, "Settings": dict(findings.settings), "Notes": list(findings.notes)}
    settings |= {"Scanners": scanners(findings), "Differs": definitions(findings)}
    if findings.comparison is not None and len(findings.comparison.scores):
        tables["norm"] = findings.comparison.scores
        settings["Norms"] = [*findings.comparison.data, *findings.comparison.notes]
    for name, table in tables.items():
        path = home / f"{findings.prefix}_desc-{name}_metrics.tsv"
        write_table(path, table.replace({c: {"": np.nan} for c in ("level", "slice", "note") if c in table}))
        write_json(path.with_suffix(".json"), describe_columns(table, settings))


def write_anatomy(place: Located, template: str, home: Path) -> None:
    """Write masks, warped fields and levels of one series."""
    name = _of_token(place)
    origin = {"SpatialReference": "orig", "Sources": list(place.sources), "CordSource": place.cord_source}
    cord = np.nan_to_num(np.asarray(place.cord.data, dtype=np.float32))
    binary = (cord >= 0.5).astype(np.uint8)
    write_image(
        home / "anat" / name.replace(label="SC", suffix="mask").name, place.cord.derive(binary, unit="label"), origin
    )
    if ((cord > 0) & (cord < 1)).any():
        fraction = place.cord.derive(cord, unit="probability")
        write_image(home / "anat" / name.replace(label="SC", suffix="probseg").name, fraction, origin)
    warped = {**origin, "Description": f"field of template {template}, warped by the registration of the cord"}
    for label, field in _template_fields(place).items():
        image = place.cord.derive(field.astype(np.float32), Step("register"), unit="probability")
        write_image(home / "anat" / name.replace(label=label, suffix="probseg").name, image, warped)
    if not place.levels.assumed:
        _write_levels(place, binary, name, home, {**warped, "LevelSource": place.levels.source})


def _template_fields(place: Located) -> dict[str, FloatArray]:
    """Gray matter, white matter and canal (cord and fluid) of the template on the grid of the image."""
    template, index = place.registration.template, place.atlas.index
    fields = {"GM": template.gray, "WM": template.white, "canal": np.minimum(template.cord + template.fluid, 1)}
    result = {}
    for label, field in fields.items():
        volume = np.zeros(place.cord.grid.shape, dtype=np.float32)
        volume[tuple(index.T)] = warp_to_image(place.registration, field, place.cord, index)
        result[label] = volume
    return result


def _write_levels(place: Located, binary: IntArray, name: Entities, home: Path, sidecar: Mapping[str, Any]) -> None:
    index = np.argwhere(binary > 0)
    heights = place.levels.height_of(place.cord.grid.world(index))
    numbers = np.zeros(binary.shape, dtype=np.uint8)
    numbers[tuple(index.T)] = vertebra_at(place.registration.template, heights)
    _write_dseg(
        name.replace(seg="vertebrae", suffix="dseg"), place.cord.derive(numbers, unit="label"), VERTEBRAE, home, sidecar
    )
    discs = np.zeros(binary.shape, dtype=np.uint8)
    shown = place.levels.height_at(place.registration.subject_length[place.registration.subject.present])
    for disc, height in place.registration.template.discs.items():
        if shown.min() <= height <= shown.max():
            world = place.levels.centerline.at(place.levels.length_at(height))
            voxel = np.clip(np.rint(place.cord.grid.index(world)).astype(int), 0, np.array(binary.shape) - 1)
            discs[tuple(voxel)] = DISCS.index(disc) + 1
    _write_dseg(name.replace(seg="discs", suffix="dseg"), place.cord.derive(discs, unit="label"), DISCS, home, sidecar)


def _write_dseg(name: Entities, image: Image, names: tuple[str, ...], home: Path, sidecar: Mapping[str, Any]) -> None:
    write_image(home / "anat" / name.name, image, sidecar)
    present = [int(n) for n in np.unique(image.data) if n > 0]
    rows = [(n, names[n - 1], names[n - 1]) for n in present]
    write_table(
        home / "anat" / name.replace(extension=".tsv").name,
        pd.DataFrame(rows, columns=["index", "name", "abbreviation"]),
    )


def write_transforms(place: Located, template: str, home: Path) -> None:
    """Write the displacement fields of one series, both ways."""
    name_of_template = place.registration.template.name
    prefix = Entities(tuple(p for p in place.entities.pairs if p[0] in {"sub", "ses"}))
    common = {
        "Type": "displacement field [mm], axes left-posterior-superior (ITK)",
        "Template": template,
        "Sources": list(place.sources),
        "Quality": place.quality.summary,
        "LevelSource": place.levels.source,
        **history_of(place.cord),
    }
    forward = prefix.replace(from_=place.token, to=name_of_template, mode="image", suffix="xfm")
    backward = prefix.replace(from_=name_of_template, to=place.token, mode="image", suffix="xfm")
    for name, (grid, field) in (
        (forward, field_on_template(place.registration)),
        (backward, field_on_image(place.registration, place.cord)),
    ):
        write_bytes(home / "xfm" / name.name, field_bytes(grid, field))
        write_json(home / "xfm" / name.replace(extension=".json").name, common)


def _map_names(source: Entities, fits: Sequence[Fit]) -> set[str]:
    found = (map_name(source, fit.model, metric) for fit in fits for metric in fit.maps)
    return {name.name for name in found if name is not None}


def _write_field(field: Field, home: Path) -> None:
    """Write the transmit field, in percent as BIDS has it."""
    name, sidecar = field.entities.replace(suffix="TB1map"), {"Sources": list(field.sources)}
    write_image(home / "fmap" / name.name, as_written("B1", field.image), sidecar)
    if field.std is not None:
        error = {**sidecar, "Description": "standard error"}
        write_image(home / "fmap" / name.replace(desc="se").name, as_written("B1", field.std), error)


def write_fit(fit: Fit, source: Entities, sources: Sequence[str], home: Path) -> None:
    """Write the maps of a fit, what lies beside them, and its flags."""
    for metric, image in fit.maps.items():
        name = map_name(source, fit.model, metric)
        if name is None:
            continue
        folder = home / ("dwi" if name.suffix == "dwimap" else "anat")
        sidecar = {"Sources": list(sources), "EstimationAlgorithm": _algorithm(image)}
        write_image(folder / name.name, as_written(metric, image), sidecar)
        for kind, (other, meaning) in beside_map(fit, metric).items():
            further = {**sidecar, "Description": meaning}
            write_image(folder / name.replace(desc=kind).name, as_written(metric, other), further)
    flag = flag_name(source, fit)
    if flag is not None:
        folder = home / ("dwi" if flag.suffix == "dwimap" else "anat")
        write_image(folder / flag.name, fit.flag, flag_sidecar(sources))


def _algorithm(image: Image) -> str:
    last = image.history[-1] if image.history else Step("")
    method = last.settings.get("method", "")
    return f"{last.name} {method}".strip()


def _write_extra(name: str, content: Image | Series, place: Located, home: Path) -> None:
    folder = home / ("dwi" if place.kind == "dwi" else "anat")
    suffix = place.entities.suffix
    sidecar = {"Sources": list(place.sources)}
    if isinstance(content, Series):
        path = folder / place.entities.replace(desc=name).name
        write_image(path, content.image, {**content.image.metadata, **sidecar})
        write_gradients(path, content.image, content.protocol)
    else:
        write_image(folder / place.entities.replace(desc=name, suffix=f"{suffix}map").name, content, sidecar)


def write_gradients(path: Path, image: Image, protocol: Protocol) -> None:
    """Write the gradient files of a diffusion image; those of b-tensors only where there are such columns."""
    stem = path.with_name(path.name.removesuffix(".nii.gz"))
    for name, extension in (("BValue", ".bval"), ("BDelta", ".bdelta")):
        if name in protocol:
            write_text(stem.with_suffix(extension), " ".join(f"{v:g}" for v in protocol[name]) + "\n")
    for name, extension in (("Direction", ".bvec"), ("SecondDirection", ".bvec2")):
        if name in protocol:
            table = to_fsl(protocol[name], stored_affine(image)).T
            text = "\n".join(" ".join(f"{v:.6f}" for v in row) for row in table)
            write_text(stem.with_suffix(extension), text + "\n")


def _of_token(place: Located) -> Entities:
    """Name of an anatomical derivative: subject, session, native space, and the series that it belongs to."""
    kept = tuple(p for p in place.entities.pairs if p[0] in {"sub", "ses"})
    return Entities((*kept, ("space", "orig"), ("desc", place.token)), "mask")
