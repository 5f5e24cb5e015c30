"""The cord network: normalisation of its input and its two views, far and near."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray
from qcord.core.threads import thread_count

EPSILON = 0.05
"""Share of the mean brightness that is added to a divisor, so that empty background stays dark."""


@dataclass(frozen=True)
class View:
    """Pixels that one of the two networks sees.

    Parameters
    ----------
    name : str
        Name of the weights.
    spacing : float
        Pixel size [mm].
    size : int
        Pixels along each side in training; a multiple of 8 at run time.
    window : float
        Standard deviation [mm] of the Gaussian within which brightness is made comparable.
    """

    name: str
    spacing: float
    size: int
    window: float


COARSE = View("far", 2.0, 96, 18.0)
"""Finds the cord in a whole section."""
FINE = View("near", 0.5, 96, 9.0)
"""Draws its edge in the 48 mm around it."""


def normalize(planes: FloatArray, inside: FloatArray, view: View) -> FloatArray:
    """Make brightness comparable between coils and sequences.

    Parameters
    ----------
    planes : (n, x, y) array
        Brightness, 0 outside the field of view.
    inside : (n, x, y) array
        1 inside the field of view, 0 outside.
    view : View
        Far: divided by the mean of the surroundings of each pixel. Near: shifted and scaled by mean and
        standard deviation under a Gaussian at the middle, where the cord is.

    Returns
    -------
    (n, x, y) float32 array
        0 outside the field of view.
    """
    planes = np.maximum(planes, 0).astype(np.float32)
    inside = inside.astype(np.float32)
    if view is COARSE:
        sigma = (0.0, view.window / view.spacing, view.window / view.spacing)
        weight = ndimage.gaussian_filter(inside, sigma, mode="constant", truncate=2.5)
        near = ndimage.gaussian_filter(planes, sigma, mode="constant", truncate=2.5) / (weight + 1e-3)
        whole = planes.sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
        scaled = planes / (near + EPSILON * whole[:, None, None] + 1e-12) - 1
        return np.asarray(np.clip(scaled, -1, 3) * inside, dtype=np.float32)
    x, y = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in planes.shape[1:])
    distance = (x[:, None] ** 2 + y[None] ** 2) * view.spacing**2
    weight = np.exp(-distance / (2 * view.window**2)) * inside
    total = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    mean = (weight * planes).sum(axis=(1, 2), keepdims=True) / total
    spread = np.sqrt((weight * (planes - mean) ** 2).sum(axis=(1, 2), keepdims=True) / total)
    scaled = (planes - mean) / (spread + EPSILON * mean + 1e-12)
    return np.asarray(np.clip(scaled, -3, 4) * inside, dtype=np.float32)


@cache
def _session(name: str) -> Any:
    """Run-time session of one view; a single thread, so that results never depend on the machine's cores."""
    onnxruntime: Any = import_module("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    weights = files("qcord.anatomy").joinpath(f"cord_{name}.onnx").read_bytes()
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def cord_share(planes: FloatArray, view: View, hint: float = 0.0) -> FloatArray:
    """Share of each pixel that is cord: the mean of what the network sees in a section and in its mirror image.

    Parameters
    ----------
    planes : (n, x, y) array
        From `normalize`; x and y multiples of 8.
    view : View
        Which network.
    hint : float
        1 where the cord is known to be brighter than the fluid around it, -1 darker, 0 not known.

    Returns
    -------
    (n, x, y) float32 array
        Between 0 and 1.
    """
    session = _session(view.name)
    step = max(1, int(8 * 96 * 96 / (planes.shape[1] * planes.shape[2])))  # a few MB of activations at a time

    def look(start: int) -> FloatArray:
        block = planes[start : start + step].astype(np.float32)
        both = np.concatenate([block, block[:, ::-1]])
        fed = np.stack([both, np.full_like(both, hint)], axis=1)
        share = session.run(None, {"image": fed})[0][:, 0]
        return np.asarray((share[: len(block)] + share[len(block) :, ::-1]) / 2)

    with ThreadPoolExecutor(thread_count()) as pool:  # chunks are fixed: the number of threads changes no digit
        return np.concatenate(list(pool.map(look, range(0, len(planes), step))))
