import numpy as np
import pytest

from qcord.anatomy.levels import levels_assumed
from qcord.anatomy.morphometry import morphometry
from qcord.anatomy.register import centerline_of_cord, register, registration_quality
from qcord.atlas.project import project_atlas
from qcord.core.entities import Entities
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.report import figures
from qcord.report.findings import Located
from straight_template import straight_template


@pytest.fixture(scope="module")
def place():
    """A cord whose right half is bright and whose anterior border is brightest."""
    template = straight_template()
    affine = np.diag([0.9, 0.8, 5.0, 1])
    grid = Grid((41, 37, 6), affine)
    i, j = np.indices(grid.shape[:2])
    x, y = (i - 20) * 0.9, (j - 18) * 0.8
    inside = ((x / 6) ** 2 + (y / 4) ** 2) <= 1
    plane = 100 + 100.0 * (inside & (x > 0)) + 60 * (inside & (y > 2))
    cord = Image(np.repeat(inside[..., None].astype(np.uint8), 6, axis=2), grid)
    image = Image(np.repeat(plane[..., None], 6, axis=2), grid)
    levels = levels_assumed(centerline_of_cord(cord), template, "C4/C5")
    found = register(cord, template, levels)
    quality = registration_quality(found, cord)
    atlas = project_atlas(found, cord)
    return Located("T2w", "anat", Entities(), (), image, cord, "x", found, quality, atlas, morphometry(cord))


def test_right_is_on_the_left_and_anterior_on_top(place):
    shown = figures._oriented(np.asarray(place.image.data[:, :, 2]))  # rows run up, columns to the patient's left
    middle_row, middle_column = shown.shape[0] // 2, shown.shape[1] // 2
    assert shown[middle_row, middle_column - 3] > shown[middle_row, middle_column + 3]
    assert shown[middle_row + 4, middle_column - 1] > shown[middle_row - 4, middle_column - 1]
    left, right, bottom, top = figures._extent(place.image)
    assert left < right
    assert bottom < top
    panel = figures._panel(place, 2)
    np.testing.assert_allclose(np.mean(panel.x), -20 * 0.9, atol=0.5)
    np.testing.assert_allclose(np.mean(panel.y), 18 * 0.8, atol=0.5)


def test_pictures_are_made_of_every_kind(place):
    value = place.image.derive(np.where(np.asarray(place.cord.data) > 0, 0.7, np.nan))
    for picture in (
        figures.cord_figure(place),
        figures.map_figure(place, value, "FA", "1"),
        figures.sagittal_figure(place),
        figures.profile_figure(place),
    ):
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(picture) > 2000
    assert figures.cord_figure(place) == figures.cord_figure(place)


def test_slices_are_chosen_from_the_head_down():
    assert figures.shown_slices([3, 1, 2]) == [3, 2, 1]
    chosen = figures.shown_slices(range(100), most=5)
    assert chosen[0] == 99
    assert chosen[-1] == 0
    assert len(chosen) == 5
