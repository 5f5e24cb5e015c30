"""Register one file to the template."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.anatomy.contrast import contrast_of
from qcord.anatomy.levels import (
    CENTRE,
    Levels,
    levels_assumed,
    levels_from_landmarks,
    levels_from_map,
    require_near,
)
from qcord.core.errors import MissingMetadata
from qcord.core.template import Template
from qcord.ingest.landmarks import Landmark, landmarks_of_label_image, parse_disc, read_landmarks
from qcord.ingest.nifti import read_map
from qcord.pipeline.locate import Cord, find_cord, locate
from qcord.pipeline.outputs import write_anatomy, write_transforms
from qcord.pipeline.prepare import Prepared
from qcord.pipeline.single import derived_name, read_volume, single_group
from qcord.pipeline.store import image_bytes, staged, write_bytes, write_json, write_table
from qcord.pipeline.templates import load_template
from qcord.report.findings import Located


def register(
    image: Path | str,
    out: Path | str,
    *,
    mask: Path | str | None = None,
    landmarks: Path | str | None = None,
    levels: Path | str | None = None,
    disc: Sequence[str] = (),
    template: Path | str | None = None,
    contrast: str | None = None,
    centre: str = CENTRE,
) -> dict[str, float]:
    """Register one image to the template and bring masks, levels and atlas to it.

    Parameters
    ----------
    image : path
        3-D image, or a series whose mean is used.
    out : path
        Folder for transforms, warped fields and the atlas (``seg-<template>_probseg`` with its table of names).
    mask : path, optional
        Cord mask; computed by default.
    landmarks : path, optional
        Table ``name x y z`` of discs and vertebrae, or a disc label image.
    levels : path, optional
        Map of vertebral levels.
    disc : sequence of str
        Discs as ``C2/C3=x,y,z``.
    template : path or str, optional
        See `qcord.pipeline.templates.load_template`.
    contrast : str, optional
        See `segment`.
    centre : str
        Disc at which the middle of the cord is assumed without any landmark.

    Returns
    -------
    dict of str to float
        Accuracy of the registration: median and worst Dice over slices, mean distance of outlines.
    """
    volume = read_volume(Path(image))
    given = None if mask is None else read_map(mask, unit="label")
    one = Prepared(single_group(volume, Path(image)), volume, contrast or contrast_of(volume), mask=given)
    cord = find_cord(one)
    chosen = load_template(template)
    place = locate(
        one, cord, _levels(cord, chosen, landmarks=landmarks, levels=levels, disc=disc, centre=centre), chosen
    )
    with staged(Path(out).absolute()) as folder:
        label = f"{chosen.name} {chosen.version}"
        write_anatomy(place, label, folder)
        write_transforms(place, label, folder)
        _write_atlas(place, label, folder)
    return place.quality.summary


def _levels(
    cord: Cord,
    template: Template,
    *,
    landmarks: Path | str | None,
    levels: Path | str | None,
    disc: Sequence[str],
    centre: str,
) -> Levels:
    if levels is not None:
        return levels_from_map(read_map(levels), cord.centerline, template)
    points: list[Landmark] = [parse_disc(d) for d in disc]
    if landmarks is not None:
        path = Path(landmarks)
        found = read_landmarks(path) if path.suffix in {".tsv", ".csv"} else landmarks_of_label_image(read_map(path))
        if not found:
            raise MissingMetadata(
                f"{path.name} holds no landmark, expected a disc or vertebra; add one or leave it out."
            )
        points += found
    if points:
        named = {p.name: p.world for p in points}
        require_near(cord.centerline, named)
        return levels_from_landmarks(cord.centerline, named, template)
    return levels_assumed(cord.centerline, template, centre)


def _write_atlas(place: Located, template: str, folder: Path) -> None:
    atlas = place.atlas
    volume = np.zeros((*atlas.grid.shape, len(atlas.regions)), dtype=np.float32)
    volume[tuple(atlas.index.T)] = atlas.weights
    name = derived_name(place.image).replace(seg=place.registration.template.name, suffix="probseg")
    write_bytes(folder / "anat" / name.name, image_bytes(volume, atlas.grid))
    numbers = {r.name: r.number for r in place.registration.template.regions}
    rows = [(i, r, numbers[r]) for i, r in enumerate(atlas.regions)]
    table = pd.DataFrame(rows, columns=["index", "name", "mapping"])
    write_table(folder / "anat" / name.replace(extension=".tsv").name, table)
    sidecar: Mapping[str, object] = {"SpatialReference": "orig", "Template": template, "Levels": list(atlas.levels)}
    write_json(folder / "anat" / name.replace(extension=".json").name, sidecar)
