import numpy as np
import pytest

from qcord.estimate.voxelwise import form, inverse, multiply, packed_pairs, product, unpack


@pytest.mark.parametrize("size", [1, 2, 7, 11])
def test_inverse_agrees_with_lapack(size):
    root = np.random.default_rng(size).normal(size=(size, size + 4, 130))
    matrix = np.einsum("ikv,jkv->ijv", root, root)
    expected = np.moveaxis(np.linalg.inv(np.moveaxis(matrix, -1, 0)), 0, -1)
    np.testing.assert_allclose(inverse(matrix), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_what_is_not_positive_definite_becomes_nan_alone():
    matrix = np.stack([np.eye(3), np.diag([1.0, -1, 1]), np.ones((3, 3)), np.zeros((3, 3))], axis=-1)
    result = inverse(matrix)
    np.testing.assert_allclose(result[..., 0], np.eye(3))
    assert np.isnan(result[..., 1:]).any(axis=(0, 1)).all()


@pytest.mark.parametrize("voxels", [1, 15, 256, 257, 1000])
@pytest.mark.parametrize("rows", [1, 7, 28, 300])
def test_tiled_product_is_the_product(voxels, rows):
    generator = np.random.default_rng(0)
    matrix, block = generator.normal(size=(rows, 35)), generator.normal(size=(35, voxels))
    np.testing.assert_allclose(product(matrix, block), matrix @ block, rtol=1e-10, atol=1e-11)


def test_packing_forms_and_products():
    generator = np.random.default_rng(1)
    full = generator.normal(size=(4, 4, 9))
    full = full + full.transpose(1, 0, 2)
    rows, columns = packed_pairs(4)
    np.testing.assert_array_equal(unpack(full[rows, columns], 4), full)
    a, b = generator.normal(size=(2, 4, 9))
    np.testing.assert_allclose(multiply(full, a), np.einsum("ijv,jv->iv", full, a))
    np.testing.assert_allclose(form(a, full, b), np.einsum("iv,ijv,jv->v", a, full, b))
