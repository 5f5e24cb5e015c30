"""Linear algebra for many voxels at once; the voxel axis comes last.

One arithmetic operation runs over all voxels of a block, which is several times faster than one LAPACK call a
voxel for the 2 to 22 unknowns of signal models, and gives the same bits on every BLAS.
"""

import numpy as np

from qcord.core.arrays import FloatArray, IntArray

_SERIAL = 262_144
"""Multiplications up to which OpenBLAS keeps a matrix product on one thread. Products are cut into tiles below
it: threads run over blocks of voxels, and threads below threads only wait for each other."""


def packed_pairs(size: int) -> tuple[IntArray, IntArray]:
    """Row and column of each entry of a packed lower triangle."""
    rows, columns = np.tril_indices(size)
    return rows, columns


def unpack(packed: FloatArray, size: int) -> FloatArray:
    """Full symmetric matrices (p, p, v) from packed lower triangles (p (p + 1) / 2, v)."""
    rows, columns = packed_pairs(size)
    full = np.empty((size, size, packed.shape[-1]))
    full[rows, columns] = packed
    full[columns, rows] = packed
    return full


def inverse(matrix: FloatArray) -> FloatArray:
    """Inverse of symmetric positive definite matrices.

    Parameters
    ----------
    matrix : (p, p, v) array
        Only the lower triangle is read.

    Returns
    -------
    (p, p, v) array
        NaN where the matrix is not positive definite.
    """
    size, _, n = matrix.shape
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        root, reciprocal = _cholesky(matrix)
        lower = np.zeros((size, size, n))
        for i in range(size):
            lower[i, i] = reciprocal[i]
            if i:
                lower[i, :i] = np.einsum("kv,kjv->jv", root[i, :i], lower[:i, :i]) * -reciprocal[i]
        result = np.empty((size, size, n))
        for i in range(size):
            result[i, : i + 1] = np.einsum("kv,kjv->jv", lower[i:, i], lower[i:, : i + 1])
            result[: i + 1, i] = result[i, : i + 1]
    return result


def solve(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Solution (p, v) of symmetric positive definite systems (p, p, v) and (p, v); NaN where one is not."""
    size = len(vector)
    result = np.empty_like(vector)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        root, reciprocal = _cholesky(matrix)
        for i in range(size):
            before = np.einsum("kv,kv->v", root[i, :i], result[:i]) if i else 0.0
            result[i] = (vector[i] - before) * reciprocal[i]
        for i in reversed(range(size)):
            after = np.einsum("kv,kv->v", root[i + 1 :, i], result[i + 1 :]) if i + 1 < size else 0.0
            result[i] = (result[i] - after) * reciprocal[i]
    return result


def lower_root(matrix: FloatArray) -> FloatArray:
    """Lower triangular root (p, p, v) of covariances; zero in the rows of values without variance, NaN elsewhere.

    Parameters
    ----------
    matrix : (p, p, v) array
        Symmetric, positive definite but for rows that are zero.
    """
    none = np.einsum("iiv->iv", matrix) == 0
    filled = matrix + np.eye(len(matrix))[:, :, None] * none
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        root, _ = _cholesky(filled)
    return np.asarray(np.where(none[:, None], 0.0, root))


def _cholesky(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower triangular root (p, p, v) and the inverse (p, v) of its diagonal."""
    size, _, n = matrix.shape
    root = np.zeros((size, size, n))
    reciprocal = np.empty((size, n))
    for j in range(size):
        column = matrix[j:, j]
        if j:
            column = column - np.einsum("ikv,kv->iv", root[j:, :j], root[j, :j])
        reciprocal[j] = 1 / np.sqrt(np.where(column[0] > 1e-12 * matrix[j, j], column[0], np.nan))
        root[j:, j] = column * reciprocal[j]
    return root, reciprocal


def multiply(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Matrix times vector, (p, q, v) and (q, v) to (p, v)."""
    return np.asarray(np.einsum("ijv,jv->iv", matrix, vector))


def form(first: FloatArray, matrix: FloatArray, second: FloatArray) -> FloatArray:
    """``first' matrix second`` for each voxel, (p, v), (p, p, v) and (p, v) to (v,)."""
    return np.asarray((first * multiply(matrix, second)).sum(axis=0))


def product(matrix: FloatArray, block: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """``matrix @ block`` for a block (k, v) with many voxels, on the calling thread alone; into ``out`` if given."""
    m, k = matrix.shape
    v = block.shape[1]
    tile = max(16, min(256, _SERIAL // (m * k) // 16 * 16))
    whole = v // tile * tile
    result = np.empty((m, v)) if out is None else out
    if whole:
        np.matmul(matrix, _tiles(block[:, :whole], tile), out=_tiles(result[:, :whole], tile))
    if whole < v:
        result[:, whole:] = matrix @ block[:, whole:]
    return result


def _tiles(block: FloatArray, tile: int) -> FloatArray:
    rows, stride = block.shape[0], block.strides
    shape = (block.shape[1] // tile, rows, tile)
    return np.lib.stride_tricks.as_strided(block, shape, (tile * stride[1], stride[0], stride[1]))
