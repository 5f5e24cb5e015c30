"""What is true of a phantom subject: per voxel of each series, and per region and level."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.image import Image
from qcord.core.labels import COMBINED, CSF, TRACTS, Region
from qcord.core.protocol import Protocol
from qcord.phantom.body import Body
from qcord.phantom.contrast import signal, tensor_elements
from qcord.phantom.interior import Interior, LesionPlace, cross_section
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.tissue import METRICS, UNITS, axial_radial, tissue_table
from qcord.template import tables

REGIONS: tuple[Region, ...] = tuple(Region(name, number) for number, name in enumerate((*TRACTS, CSF)))

MAPS = {
    "T2w": ("T2",),
    "T2star": ("T2star",),
    "dwi": ("FA", "MD", "AD", "RD"),
    "MTS": ("MTR", "MTsat", "T1", "R1"),
}
"""Values whose maps belong to each series."""

TABLE_METRICS = ("FA", "MD", "AD", "RD", "MTR", "MTsat", "T1", "R1", "T2", "T2star")
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


@dataclass(frozen=True, eq=False)
class RegionValues:
    """Values of the regions of the cord, sound and damaged, and how a compression changes them.

    Parameters
    ----------
    sound, damaged : mapping of str to (36,) array
        By metric.
    pinched : mapping of str to float
        Factor of each metric where the compression is worst.
    """

    sound: Mapping[str, FloatArray]
    damaged: Mapping[str, FloatArray]
    pinched: Mapping[str, float]

    @classmethod
    def of(cls, spec: PhantomSpec) -> "RegionValues":
        """Values that a specification asks for."""
        table = tissue_table({name: dict(values) for name, values in spec.tissues.items()})
        factors = {} if spec.lesion is None else dict(spec.lesion.factors)
        pinched = {} if spec.compression is None else dict(spec.compression.factors)
        sound = {metric: table.cord(metric) for metric in METRICS}
        damaged = {metric: v * factors.get(metric, 1.0) for metric, v in sound.items()}
        return cls(sound, damaged, {m: pinched.get(m, 1.0) for m in METRICS})

    def at(self, pinch: FloatArray, *, damaged: bool = False) -> dict[str, FloatArray]:
        """Values (n, 36) by metric at degrees of compression (n,)."""
        values = self.damaged if damaged else self.sound
        return {m: values[m] * (1 + (self.pinched[m] - 1) * pinch[:, None]) for m in METRICS}


def value_of(metric: str, values: Mapping[str, FloatArray], transfer: Protocol, gradient_echo: str) -> FloatArray:
    """One metric from tissue values (...): as it stands, or one that follows: AD, RD, R1, MTR.

    MTR is that of the images without noise of a protocol of MT images.
    """
    if metric in values:
        return values[metric]
    if metric == "R1":
        return 1 / values["T1"]
    if metric in {"AD", "RD"}:
        return axial_radial(values["FA"], values["MD"])[metric == "RD"]
    upward = np.array([0.0, 0.0, 1.0])
    images = signal("MTS", values, transfer.take([0, 1]), tangent=upward, gradient_echo=gradient_echo)
    return np.asarray(100 * (1 - images[..., 0] / images[..., 1]))


@dataclass(frozen=True, eq=False)
class Facts:
    """What all truth of a subject is computed from.

    Parameters
    ----------
    spec : PhantomSpec
    body : Body
        Geometry.
    values : RegionValues
        Tissue of the cord.
    lesion : LesionPlace or None
        Damaged ellipsoid.
    transfer : Protocol
        Of the MT images, on which the true MTR depends.
    """

    spec: PhantomSpec
    body: Body
    values: RegionValues
    lesion: LesionPlace | None
    transfer: Protocol

    def value(self, metric: str, values: Mapping[str, FloatArray]) -> FloatArray:
        """One metric from tissue values, see `value_of`."""
        return value_of(metric, values, self.transfer, self.spec.gradient_echo)


def series_truth(facts: Facts, interior: Interior, noise_free: Image, sigma: float, motion: FloatArray) -> SeriesTruth:
    """Truth on the grid of one series.

    Parameters
    ----------
    facts : Facts
        The subject.
    interior : Interior
        Fractions of its voxels.
    noise_free : Image
        The series without noise.
    sigma : float
        Noise.
    motion : (volumes, slices, 2) array
        Shifts [mm].
    """
    grid, entities = noise_free.grid, noise_free.entities
    n_voxels = int(np.prod(grid.shape))

    def image(field: AnyArray, unit: str = "probability", fill: float = 0.0) -> Image:
        full = np.full((n_voxels, *field.shape[1:]), fill, dtype=field.dtype)
        full[interior.voxels] = field
        return Image(full.reshape(*grid.shape, *field.shape[1:]), grid, unit, entities)

    regions = interior.regions
    cord = interior.cord.astype(np.float32)
    levels = np.where(cord > 0, level_numbers(interior.coordinates[:, 2]), 0).astype(np.uint8)
    maps = {
        metric: image(field.astype(np.float32), UNITS.get(metric, "mm2/s"), np.nan)
        for metric, field in _mean_maps(entities.suffix, interior, facts).items()
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
        motion=motion,
    )


def _mean_maps(name: str, interior: Interior, facts: Facts) -> dict[str, FloatArray]:
    """Means over the cord's part of each voxel."""
    height = interior.coordinates[:, 2]
    pinch = facts.body.pinch_at(height)
    share = 1 / np.where(interior.cord > MIN_CORD, interior.regions.sum(axis=1), np.nan)
    total: dict[str, FloatArray] = {}
    for part, damaged in ((interior.sound, False), (interior.damaged, True)):
        if not part.any():
            continue
        known = facts.values.at(pinch, damaged=damaged)
        fields = {metric: facts.value(metric, known) for metric in MAPS[name]}
        if name == "dwi":
            fields["tensor"] = tensor_elements(known["FA"], known["MD"], facts.body.tangent(height)[:, None])
        for metric, field in fields.items():
            mean = np.einsum("nr,nr...->n...", part, field)
            total[metric] = total[metric] + mean if metric in total else mean
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
        ``level area ap rl``: means over the level [mm2, mm], perpendicular to the axis.
    """
    edges = tables.level_edges()
    rows, sizes = [], []
    membership = np.array([[t in members for t in TRACTS] for members in COMBINED.values()], dtype=float)
    for number, level in enumerate(tables.LEVELS[:11]):
        low, high = edges[number + 1], edges[number]
        n = max(2, round((high - low) / SECTION_DISTANCE))
        heights = low + (np.arange(n) + 0.5) / n * (high - low)
        volume = np.zeros(len(TRACTS))
        total = {metric: np.zeros(len(TRACTS)) for metric in TABLE_METRICS}
        for height in heights:
            for weight, known in _section_values(facts, float(height)):
                volume += weight
                for metric in TABLE_METRICS:
                    total[metric] += weight * known[metric][0]
        for metric in TABLE_METRICS:
            combined = (membership @ total[metric]) / (membership @ volume)
            means = [*zip(TRACTS, total[metric] / volume, strict=True), *zip(COMBINED, combined, strict=True)]
            rows += [(name, level, metric, float(value), UNITS[metric]) for name, value in means]
        section = facts.body.shape.at(heights)
        sizes.append((level, *(float(v.mean()) for v in (section.area, section.ap, section.rl))))
    regions = pd.DataFrame(rows, columns=["region", "level", "metric", "value", "unit"])
    return regions, pd.DataFrame(sizes, columns=["level", "area", "ap", "rl"])


def _section_values(facts: Facts, height: float) -> list[tuple[FloatArray, dict[str, FloatArray]]]:
    """Areas (36,) and values (1, 36) of sound and of damaged tissue in one cross-section."""
    points, fractions, pixel = cross_section(facts.body, height, SECTION_STEP)
    pinch = facts.body.pinch_at(np.array([height]))
    hit = np.zeros(len(points), dtype=bool)
    if facts.lesion is not None:
        hit = facts.lesion.holds(np.concatenate([points, np.full((len(points), 1), height)], axis=1))
    found = []
    for damaged, chosen in ((False, ~hit), (True, hit)):
        if chosen.any():
            area = fractions[chosen].sum(axis=0, dtype=float) * pixel
            known = facts.values.at(pinch, damaged=damaged)
            found.append((area, {metric: facts.value(metric, known) for metric in TABLE_METRICS}))
    return found


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
