import numpy as np
import pandas as pd
import pytest

from qcord.anatomy.centerline import curve_through
from qcord.anatomy.morphometry import morphometry, shape_table
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.ingest.nifti import read_image

A_RL, A_AP = 6.2, 3.7


def cylinder(grid, direction, fine=4, half=(A_RL, A_AP)):
    """Fraction of each voxel inside an elliptic cylinder along a direction through the middle of the grid."""
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    anterior = np.array([0, 1.0, 0]) - direction[1] * direction
    anterior /= np.linalg.norm(anterior)
    right = np.cross(anterior, direction)
    middle = grid.world((np.array(grid.shape) - 1) / 2)
    total = np.zeros(grid.shape)
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    for sub in np.ndindex(fine, fine):
        offset = np.array([*(np.array(sub) + 0.5) / fine - 0.5, 0])
        local = grid.world(index + offset) - middle
        total += (local @ right / half[0]) ** 2 + (local @ anterior / half[1]) ** 2 <= 1
    axis = curve_through(middle + np.linspace(-30, 30, 13)[:, None] * direction)
    return Image(total / fine**2, grid), axis


@pytest.mark.parametrize("lean", [(0, 0, 1), (0, 0.5, 1), (0.15, -0.6, 1)])
@pytest.mark.parametrize("spacing", [(0.5, 0.5, 5.0), (0.9, 0.7, 3.0)])
def test_leaning_ellipse_is_measured_across_its_axis(lean, spacing):
    grid = Grid((41, 45, 7), np.diag([*spacing, 1]))
    image, axis = cylinder(grid, lean)
    found = morphometry(image, centerline=axis).metrics
    inner = slice(1, -1)
    np.testing.assert_allclose(found["area"][inner], np.pi * A_RL * A_AP, rtol=0.01)
    np.testing.assert_allclose(found["diameter_RL"][inner], 2 * A_RL, rtol=0.01)
    np.testing.assert_allclose(found["diameter_AP"][inner], 2 * A_AP, rtol=0.01)
    np.testing.assert_allclose(found["chord_AP"][inner], 2 * A_AP, rtol=0.025)
    np.testing.assert_allclose(found["eccentricity"][inner], np.sqrt(1 - (A_AP / A_RL) ** 2), atol=0.01)
    assert (found["solidity"][inner] > 0.97).all()
    np.testing.assert_allclose(found["angle_RL"][inner], np.degrees(np.arctan(lean[1])), atol=0.5)
    np.testing.assert_allclose(found["angle_AP"][inner], -np.degrees(np.arctan(lean[0])), atol=0.5)


def test_masks_are_as_good_as_fractions_on_average():
    generator = np.random.default_rng(11)
    found = []
    for _ in range(30):
        affine = np.diag([0.9, 0.9, 5.0, 1])
        grid = Grid((23, 21, 3), affine)
        half = np.array([A_RL, A_AP]) * generator.uniform(0.9, 1.1)
        shift = generator.uniform(-0.5, 0.5, 2)
        i, j = np.indices(grid.shape[:2])
        inside = ((i - 11 - shift[0]) * 0.9 / half[0]) ** 2 + ((j - 10 - shift[1]) * 0.9 / half[1]) ** 2 <= 1
        shape = morphometry(Image(np.repeat(inside[..., None], 3, axis=2).astype(np.uint8), grid)).metrics
        found.append([shape["diameter_RL"][1] / half[0] / 2, shape["diameter_AP"][1] / half[1] / 2])
    np.testing.assert_allclose(np.mean(found, axis=0), 1, atol=0.005)


def test_oblique_grid_gives_the_same_shape(oblique_grid):
    affine = oblique_grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] / np.array(oblique_grid.spacing) * np.array([0.6, 0.6, 4.0])
    grid = Grid((37, 33, 9), affine)
    image, axis = cylinder(grid, (0, 0, 1))
    found = morphometry(image, centerline=axis).metrics
    np.testing.assert_allclose(found["area"][2:-2], np.pi * A_RL * A_AP, rtol=0.015)


def test_turned_cord_reports_its_orientation():
    grid = Grid((41, 45, 5), np.diag([0.5, 0.5, 5.0, 1]))
    i, j = np.indices(grid.shape[:2]) * 0.5
    angle = np.deg2rad(12)  # right side lies more anterior
    x, y = i - 10, j - 11
    inside = ((np.cos(angle) * x + np.sin(angle) * y) / 6) ** 2 + ((-np.sin(angle) * x + np.cos(angle) * y) / 3.5) ** 2
    image = Image(np.repeat((inside <= 1).astype(float)[..., None], 5, axis=2), grid)
    np.testing.assert_allclose(morphometry(image).metrics["orientation"], -12, atol=1)


def test_slices_without_cord_are_missing_not_zero():
    grid = Grid((41, 45, 7), np.diag([0.5, 0.5, 5.0, 1]))
    image, _ = cylinder(grid, (0, 0, 1))
    data = image.data.copy()
    data[:, :, 3] = 0
    table = shape_table(morphometry(image.derive(data)), lambda k: "C4" if k < 5 else "C3")
    row = table[(table.metric == "area") & (table.slice == "3")].iloc[0]
    assert np.isnan(row.value)
    assert row.flag == "no_data"
    level = table[(table.metric == "area") & (table.level == "C4") & (table.slice == "")].iloc[0]
    assert level.n_slices == 4
    np.testing.assert_allclose(level.value, np.pi * A_RL * A_AP, rtol=0.01)


def test_cord_cut_by_the_field_of_view_is_flagged():
    grid = Grid((12, 45, 5), np.diag([0.5, 0.5, 5.0, 1]))
    image, axis = cylinder(grid, (0, 0, 1))
    assert morphometry(image, centerline=axis).touches_edge.all()


@pytest.mark.real
@pytest.mark.parametrize(
    ("mask", "table"),
    [("t2_t2_seg-manual", "csa_testing_t2_perslice"), ("t2s_t2s_seg", "csa_testing_t2s_perslice")],
)
def test_against_another_tool(data_dir, mask, table):
    # The other tool cuts masks at one half after upsampling and measures the ellipse of the binary result: 2 %.
    found = morphometry(read_image(data_dir / "crops" / f"{mask}.nii.gz")).metrics
    other = pd.read_csv(data_dir / "reference" / f"{table}.csv")
    same = {
        "area": "area",
        "diameter_AP": "diameter_AP_ellipse",
        "diameter_RL": "diameter_RL",
        "chord_AP": "diameter_AP",
        "eccentricity": "eccentricity",
        "solidity": "solidity",
    }
    for own, column in same.items():
        gap = np.abs(found[own] / other[f"MEAN({column})"].to_numpy() - 1)
        assert np.nanmedian(gap) < 0.02, own
    assert np.nanmedian(np.abs(found["orientation"] - other["MEAN(orientation)"])) < 1
    assert np.nanmedian(np.abs(found["angle_RL"] - other["MEAN(angle_RL)"])) < 1.5
    assert np.nanmedian(np.abs(found["length"] / other["SUM(length)"] - 1)) < 0.01
