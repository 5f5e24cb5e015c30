"""What is true of a phantom subject: per voxel of each series, and per region and level."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.image import Image
from qcord.core.labels import COMBINED, CSF, TRACTS, Region
from qcord.phantom.acquisition import Acquisition
from qcord.phantom.body import Body
from qcord.phantom.contrast import tensor_elements
from qcord.phantom.facts import Facts
from qcord.phantom.interior import Interior, cross_section, parts_of
from qcord.phantom.microstructure import mean_tensor
from qcord.phantom.scan import COMPARTMENTS
from qcord.phantom.tissue import UNITS
from qcord.template import tables

REGIONS: tuple[Region, ...] = tuple(Region(name, number) for number, name in enumerate((*TRACTS, CSF)))

MIN_CORD = 0.01
"""Fraction of cord below which a voxel carries no value."""

SECTION_DISTANCE = 2.0
SECTION_STEP = 0.15
"""Distances [mm] along and across the cord of the points over which regional means are taken."""


@dataclass(frozen=True, eq=False)
class SeriesTruth:
    """Truth on the grid of one series.

    Parameters
    ----------
    noise_free : Image
        The series without noise, motion included.
    sigma : float
        Standard deviation of each channel of the Rician noise.
    cord, white, gray, fluid : Image
        Fraction of each voxel.
    mask : Image
        Voxels of which at least half is cord.
    vertebrae : Image
        Vertebral level of each voxel that touches the cord, by the foot of the perpendicular on the axis.
    regions : tuple of Region
        Columns of the weights.
    weights : (voxels, 37) sparse CSR array
        Fraction of each voxel (C order) that belongs to each region.
    maps : mapping of str to Image
        Mean over the cord's part of each voxel of the true value; NaN where there is no cord. ``tensor`` is the
        mean tensor (xx, yy, zz, xy, xz, yz) in world axes.
    motion : (volumes, slices, 2) array
        Shift [mm] along the first two voxel axes; all other truth is that of the volume at rest.
    fields : mapping of str to Image
        ``B0`` [Hz], the ``displacement`` [mm] that it causes along the phase-encoding axis (in memory), and ``B1``;
        those that the effects have. Masks, fractions and maps are those of the undistorted neck.
    """

    noise_free: Image
    sigma: float
    cord: Image
    white: Image
    gray: Image
    fluid: Image
    mask: Image
    vertebrae: Image
    regions: tuple[Region, ...]
    weights: sparse.csr_array
    maps: Mapping[str, Image]
    motion: FloatArray
    fields: Mapping[str, Image] = field(default_factory=dict)


def series_truth(
    facts: Facts,
    plan: Acquisition,
    interior: Interior,
    *,
    noise_free: Image,
    sigma: float,
    rest: tuple[FloatArray, Mapping[str, Image]],
) -> SeriesTruth:
    """Truth on the grid of one series.

    Parameters
    ----------
    facts : Facts
        The subject.
    plan : Acquisition
        The series.
    interior : Interior
        Fractions of its voxels.
    noise_free : Image
        The series without noise.
    sigma : float
        Noise.
    rest : tuple
        Shifts (volumes, slices, 2) [mm], and fields.
    """
    grid, entities = noise_free.grid, noise_free.entities
    n_voxels = int(np.prod(grid.shape))

    def image(values: AnyArray, unit: str = "probability", fill: float = 0.0) -> Image:
        full = np.full((n_voxels, *values.shape[1:]), fill, dtype=values.dtype)
        full[interior.voxels] = values
        return Image(full.reshape(*grid.shape, *values.shape[1:]), grid, unit, entities)

    regions = interior.regions
    cord = interior.cord.astype(np.float32)
    levels = np.where(cord > 0, level_numbers(interior.coordinates[:, 2]), 0).astype(np.uint8)
    units = {**UNITS, **facts.units(plan), "tensor": "mm2/s"}
    maps = {
        metric: image(values.astype(np.float32), units[metric], np.nan)
        for metric, values in _mean_maps(plan, interior, facts).items()
    }
    return SeriesTruth(
        noise_free=noise_free,
        sigma=sigma,
        cord=image(cord),
        white=image(regions[:, :30].sum(axis=1)),
        gray=image(regions[:, 30:].sum(axis=1)),
        fluid=image(interior.fluid),
        mask=image((cord >= 0.5).astype(np.uint8), "label"),
        vertebrae=image(levels, "label"),
        regions=REGIONS,
        weights=interior.weights(n_voxels),
        maps=maps,
        motion=rest[0],
        fields={name: one.derive(one.data, entities=entities) for name, one in rest[1].items()},
    )


def _mean_maps(plan: Acquisition, interior: Interior, facts: Facts) -> dict[str, FloatArray]:
    """Means over the cord's part of each voxel."""
    height = interior.coordinates[:, 2]
    share = 1 / np.where(interior.cord > MIN_CORD, interior.regions.sum(axis=1), np.nan)
    total: dict[str, FloatArray] = {}
    for part, shares in enumerate(interior.shares):
        rows = np.flatnonzero(shares.any(axis=1))
        if not rows.size:
            continue
        tissue = facts.tissue(height[rows], part)
        folded = facts.values.fold(shares[rows])
        values = facts.series_values(plan, tissue)
        tangent = facts.body.tangent(height[rows])[:, None]
        if plan.formula == "dwi":
            values["tensor"] = tensor_elements(tissue["FA"], tissue["MD"], tangent)
        elif plan.formula == COMPARTMENTS:
            values["tensor"] = mean_tensor(tissue.values, tangent)
        for metric, known in values.items():
            mean = np.einsum("nt,nt...->n...", folded, known)
            if metric not in total:
                total[metric] = np.zeros((len(height), *mean.shape[1:]))
            total[metric][rows] += mean
    return {m: v * share.reshape(-1, *[1] * (v.ndim - 1)) for m, v in total.items()}


def level_numbers(heights: FloatArray) -> FloatArray:
    """Number of the vertebral level at template heights, 0 above C1."""
    edges = tables.level_edges()
    rank = len(edges) - np.searchsorted(edges[::-1], heights + 1e-6)
    return np.where(rank < 1, 0, np.minimum(rank, len(edges) - 1))


def region_table(facts: Facts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True values per region and level, and true sizes per level.

    Returns
    -------
    regions : DataFrame
        ``region level metric value unit``: mean over the volume of the region in the level; tracts and combined
        regions.
    sizes : DataFrame
        ``level area ap rl``: means over the level [mm2, mm], perpendicular to the axis, of the edge of the cord: the
        half level to the fluid, outside of published outlines (`qcord.phantom.body.HALF_LEVEL`).
    """
    edges = tables.level_edges()
    rows, sizes = [], []
    membership = np.array([[t in members for t in TRACTS] for members in COMBINED.values()], dtype=float)
    providers = facts.providers()
    units = {**UNITS, **{m: facts.units(plan)[m] for m, plan in providers.items() if plan is not None}}
    for number, level in enumerate(tables.LEVELS[:11]):
        low, high = edges[number + 1], edges[number]
        n = max(2, round((high - low) / SECTION_DISTANCE))
        heights = low + (np.arange(n) + 0.5) / n * (high - low)
        areas = _section_areas(facts, heights)
        volume = sum(a.sum(axis=0) for a in areas)
        total = {metric: np.zeros(len(TRACTS)) for metric in providers}
        for part, area in enumerate(areas):
            if area.any():
                for metric, known in _section_values(facts, heights, part, providers).items():
                    total[metric] += (area * facts.values.unfold(known)).sum(axis=0)
        for metric, sums in total.items():
            combined = [float((row * sums).sum() / (row * volume).sum()) for row in membership]
            means = [*zip(TRACTS, sums / volume, strict=True), *zip(COMBINED, combined, strict=True)]
            rows += [(name, level, metric, float(value), units[metric]) for name, value in means]
        section = facts.body.shape.at(heights)
        sizes.append((level, *(float(v.mean()) for v in (section.area, section.ap, section.rl))))
    regions = pd.DataFrame(rows, columns=["region", "level", "metric", "value", "unit"])
    return regions, pd.DataFrame(sizes, columns=["level", "area", "ap", "rl"])


def _section_areas(facts: Facts, heights: FloatArray) -> list[FloatArray]:
    """Areas (heights, 36) of sound tissue, and of that of each lesion."""
    areas: list[FloatArray] = [np.zeros((len(heights), len(TRACTS))) for _ in range(len(facts.lesions) + 1)]
    for row, height in enumerate(heights):
        points, fractions, pixel = cross_section(facts.body, float(height), SECTION_STEP)
        cord = np.concatenate([points, np.full((len(points), 1), height)], axis=1)
        for area, chosen in zip(areas, parts_of(facts.lesions, cord), strict=True):
            if chosen.any():
                area[row] = fractions[chosen].sum(axis=0, dtype=float) * pixel
    return areas


def _section_values(
    facts: Facts, heights: FloatArray, part: int, providers: Mapping[str, Acquisition | None]
) -> dict[str, FloatArray]:
    """Values (heights, tissues) of all metrics of the regional truth."""
    tissue = facts.tissue(heights, part)
    plans = {plan.name: plan for plan in providers.values() if plan is not None}
    found = {name: facts.series_values(plan, tissue) for name, plan in plans.items()}
    return {m: tissue[m] if plan is None else found[plan.name][m] for m, plan in providers.items()}


def landmark_table(body: Body) -> pd.DataFrame:
    """Points of the spine in the world.

    Returns
    -------
    DataFrame
        ``name kind x y z`` [mm], kind ``disc`` (the posterior edge of the disc, as such points are set by hand),
        ``disc_axis`` and ``vertebra_axis`` (the same heights on the axis of the cord).
    """
    rows = []
    discs = tables.disc_heights()
    for name, height in list(discs.items())[:12]:
        section = body.shape.at(height)
        edge = float(section.canal_shift + section.canal_ap / 2 + 1.2)
        rows.append((name, "disc", *body.place([0, edge, height])))
        rows.append((name, "disc_axis", *body.place([0, 0, height])))
    heights = list(discs.values())
    for number, level in enumerate(tables.LEVELS[:11]):
        middle = (heights[number] + heights[number + 1]) / 2
        rows.append((level, "vertebra_axis", *body.place([0, 0, middle])))
    frame = pd.DataFrame(rows, columns=["name", "kind", "x", "y", "z"])
    return frame.astype({"x": float, "y": float, "z": float})
