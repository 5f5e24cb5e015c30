"""Find the cord of each series, its position along the spine, and its place in the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.anatomy.centerline import Centerline, centerline_of
from qcord.anatomy.levels import (
    CENTRE,
    Levels,
    levels_assumed,
    levels_carried,
    levels_from_landmarks,
    levels_from_map,
    require_near,
)
from qcord.anatomy.morphometry import morphometry
from qcord.anatomy.register import PLACEMENT, register, registration_quality
from qcord.anatomy.segment import segment_cord
from qcord.atlas.project import project_atlas
from qcord.core.arrays import FloatArray
from qcord.core.image import Image, mask_of
from qcord.core.template import Template
from qcord.ingest.derivatives import Derivatives, find_levels
from qcord.ingest.landmarks import Landmark
from qcord.pipeline.prepare import Prepared
from qcord.preprocess.resample import resample
from qcord.report.findings import Located

ORDER = ("T2w", "T1w", "T2star")
"""Contrasts by which a series is preferred as the one that landmarks refer to: the longest view first."""


@dataclass(frozen=True, eq=False)
class Cord:
    """The cord of one series.

    Parameters
    ----------
    mask : Image
        Mask or fraction of cord.
    centerline : Centerline
        Its axis.
    source : str
        ``computed`` or the name of a file.
    confidence : (n,) array or None
        Of each slice, where the mask was computed.
    """

    mask: Image
    centerline: Centerline
    source: str
    confidence: FloatArray | None = None


def find_cord(prepared: Prepared) -> Cord:
    """Take the cord mask that others made for a series, else compute one.

    Raises
    ------
    EmptyRegion
        If a given mask is empty or no cord is found.
    """
    given = prepared.mask
    if given is not None:
        inside = mask_of(given, prepared.image.grid, "cord mask")
        return Cord(given, centerline_of(inside, given.grid), given.label)
    found = segment_cord(prepared.image, prepared.contrast)
    return Cord(found.probability, found.centerline, "computed", found.confidence)


def carry_cord(prepared: Prepared, cords: Mapping[str, Cord]) -> Cord | None:
    """Bring the cord of another series of the person to a series in which none was found; None if none covers it."""
    best: Cord | None = None
    for token, cord in cords.items():
        moved = resample(cord.mask.derive(np.asarray(cord.mask.data, dtype=np.float32)), prepared.image.grid, order=1)
        fraction = np.nan_to_num(np.asarray(moved.data))
        inside = fraction >= 0.5
        slices = int(inside.any(axis=(0, 1)).sum())
        if slices >= 2 and (best is None or slices > int((np.asarray(best.mask.data) >= 0.5).any(axis=(0, 1)).sum())):
            mask = moved.derive(fraction.astype(np.float32), unit="probability")
            best = Cord(mask, centerline_of(inside, mask.grid), f"carried over from {token}")
    return best


def find_all_levels(
    prepared: Mapping[str, Prepared],
    cords: Mapping[str, Cord],
    derivatives: Derivatives,
    *,
    template: Template,
    landmarks: Sequence[Landmark] = (),
    centre: str = CENTRE,
) -> tuple[dict[str, Levels], tuple[str, ...]]:
    """Position along the cord for each series.

    A series' own level map comes first; then landmarks, on the series that shows most of them; then whatever
    another series of the person has, carried over through the world; else the middle of the stack is assumed to
    lie at ``centre``.

    Returns
    -------
    levels : dict of str to Levels
        By token.
    notes : tuple of str
        Assumptions that were made.
    """
    levels: dict[str, Levels] = {}
    for token, cord in cords.items():
        given = find_levels(derivatives, prepared[token].group, prepared[token].image.grid)
        if given is not None:
            levels[token] = levels_from_map(given, cord.centerline, template)
    notes: list[str] = []
    reference: Levels | None = None
    if landmarks:
        token = _host_of(landmarks, prepared, cords)
        points = {mark.name: mark.world for mark in landmarks}
        require_near(cords[token].centerline, points)
        reference = levels_from_landmarks(cords[token].centerline, points, template)
        levels.setdefault(token, reference)
    elif levels:
        reference = next(iter(levels.values()))
    if reference is None:
        token = _longest_stack(prepared, cords)
        reference = levels_assumed(cords[token].centerline, template, centre)
        levels[token] = reference
        notes.append(
            f"No landmark or level map is known: the middle of {token} was taken to lie at {centre}, "
            "values are given by slice only and flagged."
        )
    for token, cord in cords.items():
        if token not in levels:
            levels[token] = levels_carried(reference, cord.centerline)
    return levels, tuple(notes)


def locate(prepared: Prepared, cord: Cord, levels: Levels, template: Template) -> Located:
    """Register one series and bring the atlas to it."""
    registration = register(cord.mask, template, levels)
    return Located(
        token=prepared.group.token,
        kind=prepared.group.kind,
        entities=prepared.group.entities,
        sources=tuple(s.uri for s in prepared.group.scans),
        image=prepared.image,
        cord=cord.mask,
        cord_source=cord.source,
        registration=registration,
        quality=registration_quality(registration, cord.mask),
        atlas=project_atlas(registration, cord.mask, PLACEMENT if prepared.series is not None else None),
        shape=morphometry(cord.mask, centerline=cord.centerline),
    )


def _host_of(landmarks: Sequence[Landmark], prepared: Mapping[str, Prepared], cords: Mapping[str, Cord]) -> str:
    """Token of the series whose cord spans most landmarks; the preferred contrast among equals."""

    def rank(token: str) -> tuple[int, int, float]:
        axis = cords[token].centerline
        along = np.array([axis.project(np.array(m.world))[2] for m in landmarks])
        spanned = int(((along > 0) & (along < axis.length[-1])).sum())
        contrast = prepared[token].contrast or ""
        return -spanned, ORDER.index(contrast) if contrast in ORDER else len(ORDER), -float(axis.length[-1])

    return min(cords, key=rank)


def _longest_stack(prepared: Mapping[str, Prepared], cords: Mapping[str, Cord]) -> str:
    """Token of the longest axial stack, whose middle protocols put at a known disc; else of the longest view."""

    def rank(token: str) -> tuple[bool, float]:
        spacing = prepared[token].image.grid.spacing
        return spacing[2] <= max(spacing[:2]), -float(cords[token].centerline.length[-1])

    return min(cords, key=rank)
