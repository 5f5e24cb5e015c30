"""Voxels in blocks that fit the cache, worked on by threads; results do not depend on the number of threads."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.core.flags import Flag
from qcord.core.grid import Grid, require_same_grid
from qcord.core.image import Image
from qcord.core.threads import thread_count

_CACHED = 131_072
"""Measurements a block: a megabyte, of the order of a core's second cache."""

_LARGEST = 31 << 20
"""Bytes up to which the C library of Linux learns to keep freed memory for the next array."""

Work = Callable[[FloatArray, Mapping[str, FloatArray]], Mapping[str, AnyArray]]


@dataclass(frozen=True)
class Output:
    """One map to be made.

    Parameters
    ----------
    name : str
        Key in what the work returns.
    components : int
        Values a voxel; 1 makes a 3-D map.
    """

    name: str
    components: int = 1


def run_blocks(
    work: Work,
    data: AnyArray,
    mask: BoolArray,
    outputs: Sequence[Output],
    *,
    extra: Mapping[str, AnyArray] | None = None,
    copies: int = 1,
    block: int | None = None,
    n_jobs: int | None = None,
) -> dict[str, AnyArray]:
    """Apply a function to all voxels of a mask, block by block.

    Parameters
    ----------
    work : callable
        ``work(signals, extra)`` with signals (n, v) and extra arrays (k, v), float64, finite or not; returns
        ``flag`` (v,) and for each output (v,) or (components, v).
    data : (x, y, z, n) array
        Measurements.
    mask : (x, y, z) array of bool
        Voxels to work on.
    outputs : sequence of Output
        Maps to make.
    extra : mapping of str to (x, y, z) or (x, y, z, k) array, optional
        Further values a voxel.
    copies : int
        Numbers that the work holds for each measurement; more of them make smaller blocks.
    block : int, optional
        Voxels a block, where work is known to run best with that many.
    n_jobs : int, optional
        Threads; all processors by default.

    Returns
    -------
    dict of str to array
        Each output as float32, NaN outside the mask, and ``flag`` as uint8, OUTSIDE there.
    """
    # freed at once and never touched: from then on temporary arrays are not mapped anew, page by page, each time
    np.empty(_LARGEST, dtype=np.uint8)
    spatial = data.shape[:3]
    volumes = data.reshape(-1, data.shape[3])
    further = {k: np.asarray(v).reshape(volumes.shape[0], -1) for k, v in (extra or {}).items()}
    voxels = np.flatnonzero(mask.reshape(-1))
    whole = voxels.size == mask.size
    size = block or max(256, min(4096, _CACHED // (copies * data.shape[3]) // 128 * 128))
    maps: dict[str, AnyArray] = {
        o.name: np.full((volumes.shape[0], o.components), np.nan, dtype=np.float32) for o in outputs
    }
    flags = np.full(volumes.shape[0], int(Flag.OUTSIDE), dtype=np.uint8)

    def do(first: int) -> None:
        rows = slice(first, first + size) if whole else voxels[first : first + size]
        signals = np.ascontiguousarray(volumes[rows].T, dtype=float)
        given = {k: np.ascontiguousarray(v[rows].T, dtype=float) for k, v in further.items()}
        result = work(signals, given)
        flags[rows] = result["flag"]
        with np.errstate(over="ignore"):  # beyond single precision: infinite
            for name, values in maps.items():
                values[rows] = np.reshape(result[name], (values.shape[1], -1)).T

    jobs = max(1, n_jobs if n_jobs is not None else thread_count())
    starts = range(0, voxels.size, size)
    if jobs == 1 or len(starts) == 1:
        for first in starts:
            do(first)
    else:
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(do, starts):
                pass
    shaped = {k: v.reshape(spatial if v.shape[1] == 1 else (*spatial, v.shape[1])) for k, v in maps.items()}
    return {**shaped, "flag": flags.reshape(spatial)}


def given_maps(given: Mapping[str, Image | float] | None, grid: Grid) -> dict[str, AnyArray]:
    """Arrays of images that must share the grid, and of single values.

    Raises
    ------
    GridMismatch
        If an image does not.
    """
    arrays: dict[str, AnyArray] = {}
    for name, value in (given or {}).items():
        if isinstance(value, Image):
            require_same_grid(value.grid, grid, f"The {name} map ({value.label})", "the series")
            arrays[name] = value.data
        else:
            arrays[name] = np.broadcast_to(np.float64(value), grid.shape)
    return arrays


def noise_map(sigma: Image | float | Sequence[float] | AnyArray | None, grid: Grid, n: int) -> AnyArray | None:
    """Standard deviation of the noise for each voxel, (x, y, z, 1), or for each measurement, (x, y, z, n).

    Parameters
    ----------
    sigma : Image, array, float, sequence of float or None
        A map (one volume, or one a measurement), one value, or one value a measurement.
    grid : Grid
        Grid of the series.
    n : int
        Number of measurements.

    Raises
    ------
    GridMismatch
        If the map lies on another grid.
    ImplausibleValue
        If the number of values is neither 1 nor n.
    """
    if sigma is None:
        return None
    if isinstance(sigma, Image):
        values = given_maps({"noise": sigma}, grid)["noise"].reshape(*grid.shape, -1)
    elif np.ndim(sigma) >= 3:
        values = _on_grid(np.asarray(sigma, dtype=float), grid)
    else:
        values = np.broadcast_to(np.atleast_1d(np.asarray(sigma, dtype=float)), (*grid.shape, np.size(sigma)))
    if values.shape[3] not in {1, n}:
        raise ImplausibleValue(
            f"The noise is given for {values.shape[3]} measurements, expected 1 or {n}; give one value or one each."
        )
    return values


def _on_grid(values: AnyArray, grid: Grid) -> AnyArray:
    if values.shape[:3] != grid.shape:
        raise ImplausibleValue(
            f"The noise is given for {values.shape[:3]} voxels, expected {grid.shape}; "
            "give it on the grid of the series."
        )
    return values.reshape(*grid.shape, -1)
