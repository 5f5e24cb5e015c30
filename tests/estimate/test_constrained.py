import numpy as np
from scipy.optimize import nnls

from qcord.estimate.constrained import constrain


def problem(voxels, seed, size=6, count=15):
    """Estimates near the border of a cone about the first axis; some lie outside."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, size))
    rows[:, 0] = np.abs(rows[:, 0]) + 1
    root = generator.normal(size=(voxels, size, size)) * np.geomspace(1, 1e-2, size)[:, None]
    covariance = np.einsum("vij,vkj->ikv", root, root)
    theta = np.einsum("vij,jv->iv", root, generator.normal(size=(size, voxels)))
    theta[0] += 4
    return theta, covariance, rows


def exact(theta, covariance, rows):
    """The quadratic programme through its dual, as non-negative least squares."""
    root = np.linalg.cholesky(covariance)
    a = rows @ root
    # min |x|^2 / 2 with a x >= -rows theta: x = a' u, u from nnls of the homogeneous form (Lawson and Hanson, ch. 23)
    target = np.append(np.zeros(len(theta)), 1.0)
    stacked = np.vstack([a.T, -(rows @ theta)[None]])
    u, _ = nnls(stacked, target, maxiter=10_000)
    residual = stacked @ u - target
    return theta + root @ (-residual[:-1] / residual[-1])


def test_solution_is_that_of_the_quadratic_programme():
    theta, covariance, rows = problem(200, 0)
    found, held = constrain(theta, covariance, rows)
    outside = (rows @ theta < 0).any(axis=0)
    assert 20 < outside.sum() < 199
    assert held.sum() <= outside.sum()
    np.testing.assert_array_equal(found[:, ~held], theta[:, ~held])
    for v in np.flatnonzero(held):
        root = np.linalg.cholesky(covariance[:, :, v])
        error = np.linalg.solve(root, found[:, v] - exact(theta[:, v], covariance[:, :, v], rows))
        assert np.abs(error).max() < 0.05


def test_constraints_hold_within_a_small_part_of_their_error():
    theta, covariance, rows = problem(300, 1)
    found, held = constrain(theta, covariance, rows)
    error = np.sqrt(np.einsum("mi,ijv,mj->mv", rows, covariance, rows))
    satisfied = (rows @ found >= -5e-3 * error).all(axis=0)
    assert satisfied.mean() > 0.98
    assert np.all(satisfied[~held])


def test_what_is_not_known_stays():
    theta, covariance, rows = problem(4, 2)
    theta[:, 0] = np.nan
    covariance[:, :, 1] = np.nan
    found, held = constrain(theta, covariance, rows)
    assert not held[:2].any()
    np.testing.assert_array_equal(found[:, :2], theta[:, :2])
