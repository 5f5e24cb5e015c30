"""From the neck at rest to an image of it: motion, fields, and the finite part of k-space."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.grid import Grid
from qcord.models.registry import get
from qcord.phantom import eddy, physiology
from qcord.phantom.acquisition import Acquisition
from qcord.phantom.distortion import displacement, phase_axis, push
from qcord.phantom.facts import Facts
from qcord.phantom.interior import Interior, centres_of
from qcord.phantom.motion import drift, shift_slices, slice_jitter
from qcord.phantom.parameters import TRANSMIT
from qcord.phantom.ringing import truncate
from qcord.phantom.spec import SERIES, stream
from qcord.phantom.transmit import transmit_field


@dataclass(frozen=True, eq=False)
class Plane:
    """What happens to a series while it is measured.

    Parameters
    ----------
    motion : (volumes, slices, 2) array
        Shift [mm] along the first two voxel axes.
    loss : (volumes, slices) array or None
        Part of the signal that pulsation leaves.
    resonance : (x, y, z, volumes or 1) array or None
        Off-resonance [Hz] of echo-planar series on the grid of the image.
    static : (x, y, z) array or None
        Static field [Hz] where it matters to the series.
    displacement_mm : (x, y, z) array or None
        How far [mm] it moves signal along the phase-encoding axis.
    dephasing : (x, y, z, volumes) array or None
        Part of the signal that the field's gradient across the slice leaves.
    transmit : (x, y, z) array or None
        Transmit field, where the model of the series knows it.
    """

    motion: FloatArray
    loss: FloatArray | None = None
    resonance: FloatArray | None = None
    static: FloatArray | None = None
    displacement_mm: FloatArray | None = None
    dephasing: FloatArray | None = None
    transmit: FloatArray | None = None


def plane_of(plan: Acquisition, facts: Facts) -> Plane:
    """Draw motion and compute fields of a series."""
    effects, spec, grid = facts.spec.effects, facts.spec, plan.grid
    generator = np.random.default_rng([spec.seed, len(SERIES) + 1, stream(plan.name)])
    heights = slice_heights(plan, facts)
    motion, loss = _motion(plan, facts, generator, heights)
    points = centres_of(grid, np.arange(int(np.prod(grid.shape)))).reshape(*grid.shape, 3)
    names = given_names(plan, facts)
    transmit = transmit_at(points, facts) if effects.transmits and TRANSMIT in names else None
    sees_field = plan.echo_planar or plan.formula == "T2star" or bool({"FieldGradient", "B0"} & names)
    static = facts.field.at(points) if facts.field is not None and sees_field else None
    resonance = moved = dephasing = None
    if plan.echo_planar:
        resonance = _resonance(plan, facts, generator, static, points)
        if static is not None:
            axis = _readout(plan, grid)[0]
            moved = _shift(plan, grid, static) * grid.spacing[axis]
    elif static is not None and plan.formula == "T2star" and facts.field is not None:
        across = facts.field.gradient(points, _normal(grid), grid.spacing[2] / 2)[..., None]
        dephasing = np.sinc(across * grid.spacing[2] * plan.protocol["EchoTime"])
    return Plane(motion, loss, resonance, static, moved, dephasing, transmit)


def image_of(scene: FloatArray, fine: Acquisition, plane: Plane, factor: int) -> FloatArray:
    """Image (x, y, z, volumes) of a scene on a grid that is ``factor`` times finer than the image's in the plane."""
    data = scene
    if plane.motion.any():
        data = shift_slices(data, plane.motion / np.array(fine.grid.spacing[:2]))
    if plane.loss is not None:
        data = np.asarray(data * plane.loss.T.astype(np.float32))
    if plane.dephasing is not None:
        data = np.asarray(data * np.abs(_refined(plane.dephasing, factor, fine.plane)).astype(np.float32))
    if plane.resonance is not None:
        # in voxels of the fine grid, of which there are more
        shift = _refined(_shift(fine, fine.grid, plane.resonance), factor, fine.plane)
        data = push(data, shift, _readout(fine, fine.grid)[0])
    if factor > 1:
        data = truncate(data, factor, fine.plane)
    return np.asarray(data, dtype=np.float32)


def _refined(field: FloatArray, factor: int, plane: tuple[int, int]) -> FloatArray:
    """Field on the finer grid, linear between the voxels of the image and constant beyond the outer ones."""
    for axis in plane if factor > 1 else ():
        n = field.shape[axis]
        position = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        below = np.minimum(position.astype(int), max(n - 2, 0))
        shape = [1] * field.ndim
        shape[axis] = -1
        part = (position - below).reshape(shape)
        upper = np.take(field, np.minimum(below + 1, n - 1), axis=axis)
        field = np.take(field, below, axis=axis) * (1 - part) + upper * part
    return field


def slice_heights(plan: Acquisition, facts: Facts) -> FloatArray:
    """Template height [mm] of the cord in each slice."""
    grid = plan.grid
    middle = (np.array(grid.shape[:2]) - 1) / 2
    index = np.array([[middle[0], middle[1], k] for k in range(grid.shape[2])])
    return np.asarray(facts.body.project(grid.world(index))[:, 2])


def _motion(
    plan: Acquisition, facts: Facts, generator: np.random.Generator, heights: FloatArray
) -> tuple[FloatArray, FloatArray | None]:
    """Shift [mm] of each slice of each volume, the first volume at rest, and the signal that pulsation leaves."""
    spec, effects = facts.spec, facts.spec.effects
    n_volumes, n_slices = len(plan.protocol), plan.grid.shape[2]
    shift = slice_jitter(generator, n_volumes, n_slices, spec.motion_mm)
    shift[0] = 0
    if not plan.echo_planar and plan.name != "MTS":
        shift[:] = 0
    if plan.name != "T2w":
        shift += drift(generator, n_volumes, n_slices, effects.drift_mm)
    loss = None
    if plan.echo_planar and (effects.cardiac_mm or effects.pulsation):
        time = physiology.heart_times(generator, n_volumes, n_slices)
        shift[..., 1] += physiology.cord_swing(time, heights, effects.cardiac_mm)
        velocity = physiology.cord_velocity(time)
        tangent = facts.body.tangent(heights)
        loss = physiology.pulsation_loss(plan.protocol, velocity, tangent, effects.pulsation)
    return shift, loss


def _resonance(
    plan: Acquisition, facts: Facts, generator: np.random.Generator, static: FloatArray | None, points: FloatArray
) -> FloatArray | None:
    """Off-resonance (x, y, z, volumes or 1) during the read-out; None if there is none."""
    effects = facts.spec.effects
    if static is None and not effects.breathing_hz and not effects.eddy_hz:
        return None
    total: FloatArray = np.zeros((1, 1, 1, 1)) if static is None else np.asarray(static[..., None], dtype=float)
    if effects.breathing_hz:
        heights = slice_heights(plan, facts)
        total = total + physiology.breathing_field(generator, len(plan.protocol), heights, effects.breathing_hz).T
    if effects.eddy_hz:
        total = total + eddy.eddy_field(plan.protocol, points, effects.eddy_hz, facts.spec.seed)
    return np.broadcast_to(total, (*plan.grid.shape, total.shape[3]))


def _readout(plan: Acquisition, grid: Grid) -> tuple[int, int]:
    """Phase-encoding axis in memory and its sign."""
    return phase_axis(str(plan.metadata["PhaseEncodingDirection"]), grid)


def _shift(plan: Acquisition, grid: Grid, field: FloatArray) -> FloatArray:
    """Shift in voxels of a grid along the phase-encoding axis by a field [Hz]."""
    axis, sign = _readout(plan, grid)
    return displacement(field, float(plan.metadata["EffectiveEchoSpacing"]), grid.shape[axis], sign)


def transmit_at(points: FloatArray, facts: Facts) -> FloatArray:
    """Transmit field (...) of a subject at world points (..., 3)."""
    effects, spec = facts.spec.effects, facts.spec
    return transmit_field(points, effects.transmit, spec.seed, mean=effects.transmit_mean, tesla=spec.tesla)


def given_fields(plan: Acquisition, facts: Facts, interior: Interior) -> dict[str, FloatArray]:
    """Given parameters (m,) of a series' model that the effects make differ from their defaults."""
    names = given_names(plan, facts)
    if not names:
        return {}
    points = centres_of(plan.grid, interior.voxels)
    given = {}
    if facts.spec.effects.transmits and TRANSMIT in names:
        given[TRANSMIT] = transmit_at(points, facts)
    if facts.field is not None and "FieldGradient" in names:
        given["FieldGradient"] = facts.field.gradient(points, _normal(plan.grid), plan.grid.spacing[2] / 2)
    if facts.field is not None and "B0" in names:
        given["B0"] = facts.field.at(points)
    return given


def given_names(plan: Acquisition, facts: Facts) -> set[str]:
    """Parameters of the model behind a series; none where the formula is none of a registered model."""
    if plan.formula and plan.formula != "MTS":
        return set()
    model = get(plan.model or facts.spec.gradient_echo)
    return {p.name for p in (*model.given, *model.free)}


def _normal(grid: Grid) -> FloatArray:
    return np.asarray(grid.affine[:3, 2] / grid.spacing[2])
