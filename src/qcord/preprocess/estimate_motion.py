"""Displacement of every slice: within one contrast, of fewer volumes along with more, and between contrasts."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray, IntArray
from qcord.preprocess.along_cord import AVERAGED, SNAPSHOTS, Spread, known, smooth_displacements
from qcord.preprocess.displacement import Frames, Measured, measure
from qcord.preprocess.scene import Scene

COARSE, FINE = 2.0, 0.7
"""Standard deviations [voxel] of the smoothing: the first reaches displacements of three voxels, the second keeps the
edges of the cord while it halves the noise of a voxel."""

SIDED = 1.5
"""Standard deviation [voxel] of the smoothing of what directions explain: a third of the cord."""

NEARBY = 4
"""Diffusion-weighted volumes next in time that tell where a b = 0 volume lay."""

ORDERS = 4
"""Highest power of the reference that may appear in another contrast: enough for a contrast that rises and falls
twice over the tissues around the cord (muscle, cord, fluid, fat)."""


def estimate_displacements(scene: Scene) -> tuple[FloatArray, FloatArray]:
    """Displacement and variance (n, z, 2) [voxel] of all slices."""
    n, z = scene.slices.shape[:2]
    shift, variance = np.zeros((n, z, 2)), np.zeros((n, z, 2))
    base, *others = scene.kinds
    spreads = (Spread(), Spread())
    if len(base) > 1:
        shift[base], variance[base], spreads = _within(scene, base)
    for kind in others:
        if len(base) > 1:
            shift[kind], variance[kind] = _along(scene, kind, shift, spreads)
        else:
            shift[kind], variance[kind] = _between(scene, kind)
    if scene.anchor is not None:
        shift = shift - shift[scene.anchor]
        variance = variance + variance[scene.anchor]
        variance[scene.anchor] = 0
    return shift, variance


def _within(scene: Scene, kind: IntArray) -> tuple[FloatArray, FloatArray, tuple[Spread, Spread]]:
    """Displacement of the volumes of one kind from their mean place."""
    slices, hat = scene.slices[kind], scene.hat
    shift: FloatArray = np.zeros((*slices.shape[:2], 2))
    variance: FloatArray = np.zeros_like(shift)
    spreads = (Spread(), Spread())
    for width, pooled, rounds in ((COARSE, True, 2), (FINE, False, 3)):
        moving = Frames.of(slices, width)
        for _ in range(rounds):
            found = measure(
                moving,
                _own(moving.at(shift), None if pooled else hat),
                scene.weight,
                shift,
                pooled=pooled,
                noise=scene.noise,
            )
            shift, variance, spreads = _regularised(found, scene, (SNAPSHOTS, SNAPSHOTS), pooled)
            shift = shift - shift.mean(axis=0)
    return shift, variance, spreads


def _along(
    scene: Scene, kind: IntArray, shift: FloatArray, spreads: tuple[Spread, Spread]
) -> tuple[FloatArray, FloatArray]:
    """Displacement of the volumes of a smaller kind, which move as those of the largest do around the same time.

    Their own images tell less: fluid that pulsates and flows changes the bright surroundings of the cord from one
    volume to the next as motion would.
    """
    base = scene.kinds[0]
    nearest = np.argsort(np.abs(kind[:, None] - base[None]), axis=1, kind="stable")[:, :NEARBY]
    before = shift[base[nearest]].mean(axis=1)
    total, variance = before, np.zeros_like(before)
    candidates = (known(spreads[0]), known(spreads[1]))
    for width, pooled in ((COARSE, True), (FINE, False), (FINE, False)):
        target = Frames.of(scene.slices[base], width).at(shift[base]).mean(axis=0)
        moving = Frames.of(scene.slices[kind], width)
        seen = moving.at(total)
        mean = Frames.of(Frames.of(scene.slices[kind], 0.0).at(total).mean(axis=0, keepdims=True), width)
        noise = scene.noise / len(kind)
        start = np.zeros_like(total[:1])
        apart = measure(mean, _powers(target, scene.weight)[None], scene.weight, start, pooled=pooled, noise=noise)
        own = Measured(total, np.zeros_like(total))
        if len(kind) > 1:
            own = measure(moving, _own(seen, None), scene.weight, total, pooled=pooled, noise=scene.noise)
        found = Measured(own.shift + apart.shift - before, own.variance + apart.variance)
        rest, variance, _ = _regularised(found, scene, candidates, pooled)
        total = before + rest
    return total, variance


def _between(scene: Scene, kind: IntArray) -> tuple[FloatArray, FloatArray]:
    """Displacement (1, z, 2) of an image of one contrast from one of another, by powers of that other."""
    offset: FloatArray = np.zeros((1, scene.slices.shape[1], 2))
    variance: FloatArray = np.zeros_like(offset)
    for width, pooled in ((COARSE, True), (COARSE, False), (FINE, False), (FINE, False)):
        target = Frames.of(scene.slices[scene.kinds[0]], width).at(np.zeros_like(offset))[0]
        powers = _powers(target, scene.weight)[None]
        moving = Frames.of(scene.slices[kind], width)
        found = measure(moving, powers, scene.weight, offset, pooled=pooled, noise=scene.noise)
        offset, variance, _ = _regularised(found, scene, (AVERAGED, AVERAGED), pooled)
    return offset, variance


def _own(seen: FloatArray, hat: FloatArray | None) -> FloatArray:
    """References for a slice of the same kind: what the other volumes predict, and its square, (n, z, 2, x, y).

    The square lets fluid, brighter than all else, pulsate without the cord changing.
    """
    others = predicted(seen, hat)
    return np.stack([others, others**2], axis=2)


def predicted(seen: FloatArray, hat: FloatArray | None) -> FloatArray:
    """What the other volumes of a kind predict for each, (n, z, x, y).

    Parameters
    ----------
    seen : (n, z, x, y) array
        Slices at their present place.
    hat : (n, n) array or None
        Projection on what directions of diffusion weighting explain; None for volumes that should be equal.
    """
    others: FloatArray = (seen.sum(axis=0, keepdims=True) - seen) / (len(seen) - 1)
    if hat is None:
        return others
    # Fibres that lie aslant brighten one side of the cord in some directions, which would pass for motion. What
    # directions explain varies smoothly in space, unlike its noise.
    own = np.diagonal(hat)[:, None, None, None]
    left_out = (np.tensordot(hat, seen, axes=1) - own * seen) / (1 - own)
    return np.asarray(others + ndimage.gaussian_filter(left_out - others, (0, 0, SIDED, SIDED), mode="nearest"))


def _powers(target: FloatArray, weight: FloatArray) -> FloatArray:
    """Legendre polynomials of the intensities, scaled to -1 .. 1 within the weight, (z, k, x, y)."""
    low, high = np.quantile(target[weight > 0.1 * weight.max()], [0.01, 0.99])
    scaled = np.clip(2 * (target - low) / max(high - low, 1e-30) - 1, -1.2, 1.2)
    basis = np.polynomial.legendre.legvander(scaled, ORDERS)[..., 1:]
    return np.moveaxis(basis, -1, 1)


def _regularised(
    found: Measured, scene: Scene, candidates: tuple[Sequence[Spread], Sequence[Spread]], pooled: bool = False
) -> tuple[FloatArray, FloatArray, tuple[Spread, Spread]]:
    """Combine the slices of each volume along the cord, one axis after the other; lengths in voxels.

    With ``pooled`` all slices carry one and the same value, which counts once.
    """
    rows = slice(0, 1) if pooled else slice(None)
    x, y = (
        smooth_displacements(
            found.shift[:, rows, a] * scene.spacing[a],
            found.variance[:, rows, a] * scene.spacing[a] ** 2,
            scene.height[rows],
            candidate,
        )
        for a, candidate in enumerate(candidates)
    )
    value = np.stack([x.value, y.value], axis=-1) / scene.spacing
    variance = np.stack([x.variance, y.variance], axis=-1) / scene.spacing**2
    shape = found.shift.shape
    return np.broadcast_to(value, shape), np.broadcast_to(variance, shape), (x.spread, y.spread)
