"""One series without noise: the neck painted, the dural sac sampled, both seen by the coil."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.entities import Entities
from qcord.core.image import Image
from qcord.phantom.acquisition import Acquisition
from qcord.phantom.body import Body
from qcord.phantom.contrast import signal, surrounding_signals
from qcord.phantom.interior import Interior, candidates, centres_of, sample_interior
from qcord.phantom.neck import paint_neck
from qcord.phantom.spec import SERIES, PhantomSpec
from qcord.phantom.tissue import SURROUNDINGS, tissue_table
from qcord.phantom.truth import Facts, SeriesTruth, series_truth
from qcord.template import tables

SCALE = 20.0
"""Scanner units per unit of proton density: white matter then lies between 100 and 1000, as scanners have it."""

SLAB = 60_000
"""Voxels painted at a time: their arrays stay in the cache."""

ROWS = 4000
"""Voxels of the cord whose signal is formed at a time."""

COIL_DEPTH, COIL_RADIUS = 55.0, 50.0
"""Distance [mm] of the coil behind the cord, and over which its sensitivity halves (assumed)."""

TEXTURE = 0.08
"""Relative standard deviation of the texture of the tissues around the cord (assumed)."""

TEXTURE_SIZE = 3.0
"""Distance [mm] of the points between which the texture is interpolated."""


def measure(plan: Acquisition, facts: Facts) -> SeriesTruth:
    """Noise-free series and its truth."""
    spec, body, grid = facts.spec, facts.body, plan.grid
    data, receive, voxels = _paint(plan, spec, body)
    interior = sample_interior(body, grid, plan.parts, facts.lesion, voxels)
    rows = interior.voxels
    outside = 1 - (interior.cord + interior.fluid)[:, None]
    inside = _interior_signal(plan, facts, interior)
    data[rows] = data[rows] * outside + SCALE * receive[rows, None] * inside
    data = data.reshape(*grid.shape, -1)
    motion = _motion(plan, spec)
    if spec.motion_mm > 0:
        data = _shift(data, motion / np.array(grid.spacing[:2]))
    image = Image(data, grid, "1", Entities.of(plan.name, sub=spec.label), (), plan.metadata)
    truth = series_truth(facts, interior, image, _sigma(plan, facts), motion)
    if plan.name == "dwi":
        unweighted = image.derive(data[..., 0], metadata={})
        truth = replace(truth, maps={**truth.maps, "S0": unweighted})
    return truth


def _paint(plan: Acquisition, spec: PhantomSpec, body: Body) -> tuple[FloatArray, FloatArray, IntArray]:
    """Signal (voxels, volumes) of the neck, receive field (voxels,), and the voxels that may touch the dural sac."""
    grid = plan.grid
    table = tissue_table({n: dict(v) for n, v in spec.tissues.items()})
    around = {tissue: table.around(tissue) for tissue in SURROUNDINGS}
    signals = surrounding_signals(around, plan.name, plan.protocol, spec.gradient_echo)
    n_voxels = int(np.prod(grid.shape))
    data = np.empty((n_voxels, len(plan.protocol)), dtype=np.float32)
    receive = np.empty(n_voxels, dtype=np.float32)
    texture = _texture(spec.seed)
    near = []
    for start in range(0, n_voxels, SLAB):
        rows = slice(start, min(start + SLAB, n_voxels))
        coordinates = body.project(centres_of(grid, np.arange(rows.start, rows.stop)))
        receive[rows] = _receive(coordinates)
        block = paint_neck(coordinates, body.shape, signals, max(grid.spacing[:2]))
        block *= (SCALE * receive[rows])[:, None]
        lit = np.flatnonzero(block.any(axis=1))
        block[lit] *= _variation(texture, coordinates[lit])[:, None]
        data[rows] = block
        near.append(start + np.flatnonzero(candidates(body, grid, coordinates)))
    return data, receive, np.concatenate(near)


def _interior_signal(plan: Acquisition, facts: Facts, interior: Interior) -> FloatArray:
    """Signal (m, volumes) of cord and fluid, each region with its fraction."""
    spec, body = facts.spec, facts.body
    table = tissue_table({n: dict(v) for n, v in spec.tissues.items()})
    fluid = surrounding_signals({"fluid": table.around("fluid")}, plan.name, plan.protocol, spec.gradient_echo)["fluid"]
    total = np.asarray(interior.fluid[:, None] * fluid)
    height = interior.coordinates[:, 2]
    for part, damaged in ((interior.sound, False), (interior.damaged, True)):
        touched = np.flatnonzero(part.any(axis=1))
        for start in range(0, len(touched), ROWS):
            rows = touched[start : start + ROWS]
            known = facts.values.at(body.pinch_at(height[rows]), damaged=damaged)
            tangent = body.tangent(height[rows])[:, None]
            pure = signal(plan.name, known, plan.protocol, tangent=tangent, gradient_echo=spec.gradient_echo)
            total[rows] += np.einsum("nr,nrv->nv", part[rows], pure)
    return total


def _texture(seed: int) -> FloatArray:
    return np.random.default_rng([seed, len(SERIES)]).standard_normal((64, 64, 64)).astype(np.float32)


def _variation(texture: FloatArray, coordinates: FloatArray) -> FloatArray:
    """Smooth relative variation (n,) of the tissues around the cord; the same for all series."""
    index = (coordinates / TEXTURE_SIZE).T
    values = ndimage.map_coordinates(texture, index, order=1, mode="grid-wrap", prefilter=False)
    return np.asarray(1 + TEXTURE * values, dtype=np.float32)


def _receive(coordinates: FloatArray) -> FloatArray:
    """Receive field (n,) of a coil behind the neck, 1 in the cord at the middle of C4 (assumed)."""
    edges = tables.level_edges()
    middle = (edges[3] + edges[4]) / 2
    depth = np.maximum(coordinates[:, 1] + COIL_DEPTH, 0)
    across = (1 + (COIL_DEPTH / COIL_RADIUS) ** 2) / (1 + (depth / COIL_RADIUS) ** 2)
    below = np.minimum(coordinates[:, 2] - middle, 0)
    above = np.maximum(coordinates[:, 2] - middle, 0)
    along = np.exp(-((below / 120) ** 2) - (above / 160) ** 2)
    return np.asarray(across * along, dtype=np.float32)


def _sigma(plan: Acquisition, facts: Facts) -> float:
    """Noise from the signal of white matter at the disc C3/C4."""
    spec, body = facts.spec, facts.body
    height = np.array([tables.disc_heights()["C3/C4"]])
    known = {metric: v[:, :30].mean(axis=1) for metric, v in facts.values.at(np.zeros(1)).items()}
    pure = signal(plan.name, known, plan.protocol, tangent=body.tangent(height), gradient_echo=spec.gradient_echo)
    receive = _receive(np.array([[0.0, 0.0, height[0]]]))
    return float(pure.max() * SCALE * receive[0] / spec.snr[plan.name])


def _motion(plan: Acquisition, spec: PhantomSpec) -> FloatArray:
    """Shift [mm] of each slice of each volume, the first volume at rest."""
    n_slices, n_volumes = plan.grid.shape[2], len(plan.protocol)
    generator = np.random.default_rng([spec.seed, len(SERIES) + 1, SERIES.index(plan.name)])
    shift = spec.motion_mm * generator.standard_normal((n_volumes, n_slices, 2))
    shift[0] = 0
    if plan.name not in {"dwi", "MTS"}:
        shift[:] = 0
    return shift


def _shift(data: FloatArray, shift: FloatArray) -> FloatArray:
    """Move each slice of each volume by a number of voxels, by cubic splines."""
    moved = np.empty_like(data)
    for v in range(data.shape[3]):
        for k in range(data.shape[2]):
            plane = ndimage.shift(data[:, :, k, v], shift[v, k], order=3, mode="nearest")
            moved[:, :, k, v] = np.maximum(plane, 0)
    return moved
