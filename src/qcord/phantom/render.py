"""One series without noise: the neck painted, the dural sac sampled, and what the scanner makes of both."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.image import Image
from qcord.models.registry import get
from qcord.phantom.acquisition import Acquisition
from qcord.phantom.coil import receive_field
from qcord.phantom.contrast import surrounding_signals, tissue_signal
from qcord.phantom.facts import Facts
from qcord.phantom.imaging import Plane, given_fields, image_of, plane_of
from qcord.phantom.interior import Interior, candidates, centres_of, sample_interior
from qcord.phantom.neck import paint_neck
from qcord.phantom.parameters import has_amplitude
from qcord.phantom.spec import SERIES
from qcord.phantom.tissue import SURROUNDINGS
from qcord.phantom.truth import SeriesTruth, series_truth
from qcord.phantom.values import around_tissue, tissue_values
from qcord.template import tables

SCALE = 20.0
"""Scanner units per unit of proton density: white matter then lies between 100 and 1000, as scanners have it."""

SLAB = 60_000
"""Voxels painted at a time: their arrays stay in the cache."""

ROWS = 4000
"""Voxels of the cord whose signal is formed at a time."""

NODES = 1.0
"""Distance [mm] of the heights between which the signal of the cord is linear."""

FINER = 2
"""How much finer than the image the object is whose k-space is truncated."""

NEAR = 25.0
"""Distance [mm] from the axis of the cord up to which the finer object is sampled; beyond, its edges stay blurred."""

TEXTURE = 0.08
"""Relative standard deviation of the texture of the tissues around the cord (assumed)."""

TEXTURE_SIZE = 3.0
"""Distance [mm] of the points between which the texture is interpolated."""


def measure(plan: Acquisition, facts: Facts) -> SeriesTruth:
    """Noise-free series and its truth."""
    scene, interior = _scene(plan, facts)
    plane = plane_of(plan, facts)
    if facts.spec.effects.ringing:
        fine = plan.finer(FINER)
        data = image_of(_finer_scene(scene, plan, fine, facts), fine, plane, FINER)
    else:
        data = image_of(scene, plan, plane, 1)
    image = Image(data, plan.grid, "1", plan.entities.replace(sub=facts.spec.label), (), plan.metadata)
    truth = series_truth(facts, plan, interior, noise_free=image, sigma=_sigma(plan, facts), rest=_rest(plan, plane))
    if plan.formula == "dwi":
        unweighted = image.derive(data[..., 0], metadata={})
        truth = replace(truth, maps={**truth.maps, "S0": unweighted})
    return truth


def _rest(plan: Acquisition, plane: Plane) -> tuple[FloatArray, dict[str, Image]]:
    """Motion and fields of a series as its truth holds them."""
    fields = {
        name: Image(np.asarray(values, dtype=np.float32), plan.grid, unit)
        for name, values, unit in (
            ("B0", plane.static, "Hz"),
            ("displacement", plane.displacement_mm, "mm"),
            ("B1", plane.transmit, "1"),
        )
        if values is not None
    }
    return plane.motion, fields


def _scene(plan: Acquisition, facts: Facts) -> tuple[FloatArray, Interior]:
    """Signal (x, y, z, volumes) of the neck at rest, and what lies in the dural sac."""
    every = np.arange(int(np.prod(plan.grid.shape)))
    data = np.zeros((len(every), len(plan.protocol)), dtype=np.float32)
    return _fill(data, every, plan, facts)


def _finer_scene(scene: FloatArray, plan: Acquisition, fine: Acquisition, facts: Facts) -> FloatArray:
    """The scene on a finer grid: sampled anew near the cord, repeated elsewhere."""
    wide = scene
    for axis in fine.plane:
        wide = np.repeat(wide, FINER, axis=axis)
    centres = centres_of(plan.grid, np.arange(int(np.prod(plan.grid.shape))))
    cord = facts.body.project(centres)
    near = (np.hypot(cord[:, 0], cord[:, 1]) < NEAR).reshape(plan.grid.shape)
    for axis in fine.plane:
        near = np.repeat(near, FINER, axis=axis)
    data = wide.reshape(-1, wide.shape[3])
    return _fill(data, np.flatnonzero(near.ravel()), fine, facts)[0]


def _fill(data: FloatArray, voxels: IntArray, plan: Acquisition, facts: Facts) -> tuple[FloatArray, Interior]:
    """Write the signal of voxels into data (all voxels, volumes); return it as (x, y, z, volumes), and the interior."""
    receive, near = _paint(data, voxels, plan, facts)
    interior = sample_interior(facts.body, plan.grid, plan.parts, facts.lesions, near)
    rows = interior.voxels
    outside = 1 - (interior.cord + interior.fluid)[:, None]
    inside = _scale(plan) * receive[np.searchsorted(voxels, rows), None] * _interior_signal(plan, facts, interior)
    data[rows] = data[rows] * outside + inside
    return data.reshape(*plan.grid.shape, -1), interior


def _scale(plan: Acquisition) -> float:
    return SCALE if not plan.model or has_amplitude(get(plan.model)) else 1.0


def _paint(data: FloatArray, voxels: IntArray, plan: Acquisition, facts: Facts) -> tuple[FloatArray, IntArray]:
    """Paint the neck into some voxels; return their receive field, and those that may touch the dural sac."""
    grid, spec, body = plan.grid, facts.spec, facts.body
    table = tissue_values(spec)
    signals = surrounding_signals({t: around_tissue(table, t) for t in SURROUNDINGS}, plan, spec.gradient_echo)
    receive = np.ones(len(voxels), dtype=np.float32)
    texture = _texture(spec.seed)
    scale = _scale(plan)
    near = []
    for start in range(0, len(voxels), SLAB):
        rows = voxels[start : start + SLAB]
        coordinates = body.project(centres_of(grid, rows))
        field = receive[start : start + SLAB]
        if scale != 1:
            field[:] = receive_field(coordinates)
        block = _painted(coordinates, facts, signals, max(grid.spacing[a] for a in plan.plane))
        block *= (scale * field)[:, None]
        lit = np.flatnonzero(block.any(axis=1))
        block[lit] *= _variation(texture, coordinates[lit])[:, None]
        data[rows] = block
        near.append(rows[candidates(body, grid, coordinates)])
    return receive, np.concatenate(near)


def _painted(coordinates: FloatArray, facts: Facts, signals: dict[str, FloatArray], blur: float) -> FloatArray:
    """Signal (n, volumes) of the neck; of many volumes as the product of the parts of tissues and their signals."""
    shape = facts.body.shape
    matrix = np.stack(list(signals.values())).astype(np.float32)
    if matrix.shape[1] <= len(signals):
        return paint_neck(coordinates, shape, signals, blur)
    parts = paint_neck(coordinates, shape, dict(zip(signals, np.eye(len(signals)), strict=True)), blur)
    block = np.zeros((len(coordinates), matrix.shape[1]), dtype=np.float32)
    lit = np.flatnonzero(parts.any(axis=1))
    # einsum, not @: sums in one order, whatever the number of threads
    block[lit] = np.einsum("nt,tv->nv", parts[lit], matrix)
    return block


def _interior_signal(plan: Acquisition, facts: Facts, interior: Interior) -> FloatArray:
    """Signal (m, volumes) of cord and fluid, each region with its fraction."""
    spec = facts.spec
    fluid = surrounding_signals({"fluid": around_tissue(tissue_values(spec), "fluid")}, plan, spec.gradient_echo)
    total = np.asarray(interior.fluid[:, None] * fluid["fluid"])
    given = given_fields(plan, facts, interior)
    height = interior.coordinates[:, 2]
    for part, shares in enumerate(interior.shares):
        touched = np.flatnonzero(shares.any(axis=1))
        folded = facts.values.fold(shares[touched])
        if given:
            for start in range(0, len(touched), ROWS):
                rows = touched[start : start + ROWS]
                here = {name: field[rows] for name, field in given.items()}
                pure = _cord_signal(plan, facts, height[rows], part, here)
                total[rows] += np.einsum("nt,ntv->nv", folded[start : start + ROWS], pure)
        elif len(touched):
            total[touched] += _between_nodes(plan, facts, height[touched], part, folded)
    return total


def _between_nodes(plan: Acquisition, facts: Facts, height: FloatArray, part: int, folded: FloatArray) -> FloatArray:
    """Signal (m, volumes) from that at heights `NODES` apart."""
    low = np.floor(height.min() / NODES)
    position = height / NODES - low
    nodes = NODES * (low + np.arange(int(position.max()) + 2))
    pure = _cord_signal(plan, facts, nodes, part, {})
    below = position.astype(int)
    share = (position - below)[:, None]
    total = np.empty((len(height), pure.shape[2]))
    for start in range(0, len(height), ROWS):
        rows = slice(start, start + ROWS)
        first = np.einsum("nt,ntv->nv", folded[rows], pure[below[rows]])
        second = np.einsum("nt,ntv->nv", folded[rows], pure[below[rows] + 1])
        total[rows] = (1 - share[rows]) * first + share[rows] * second
    return total


def _cord_signal(
    plan: Acquisition, facts: Facts, height: FloatArray, part: int, given: dict[str, FloatArray]
) -> FloatArray:
    """Signal (n, t, volumes) of pure tissues of the cord."""
    tissue = facts.tissue(height, part)
    tangent = facts.body.tangent(height)
    return tissue_signal(plan, tissue, tangent, gradient_echo=facts.spec.gradient_echo, given=given)


def _texture(seed: int) -> FloatArray:
    return np.random.default_rng([seed, len(SERIES)]).standard_normal((64, 64, 64)).astype(np.float32)


def _variation(texture: FloatArray, coordinates: FloatArray) -> FloatArray:
    """Smooth relative variation (n,) of the tissues around the cord; the same for all series."""
    index = (coordinates / TEXTURE_SIZE).T
    values = ndimage.map_coordinates(texture, index, order=1, mode="grid-wrap", prefilter=False)
    return np.asarray(1 + TEXTURE * values, dtype=np.float32)


def _sigma(plan: Acquisition, facts: Facts) -> float:
    """Noise from the signal of healthy white matter at the disc C3/C4."""
    height = np.array([tables.disc_heights()["C3/C4"]])
    pure = np.abs(_cord_signal(plan, facts.healthy, height, 0, {})[0])
    white = facts.values.unfold(np.moveaxis(pure, 0, -1))[:, :30].mean(axis=1)
    receive = float(receive_field(np.array([[0.0, 0.0, height[0]]]))[0]) if _scale(plan) != 1 else 1.0
    return float(white.max() * _scale(plan) * receive / facts.spec.snr_of(plan.name))
