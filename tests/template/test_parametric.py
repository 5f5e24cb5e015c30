import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from qcord.core.errors import ImplausibleValue
from qcord.core.labels import COMBINED, CSF, DISCS, TRACTS
from qcord.core.template import Template
from qcord.template import tables
from qcord.template.parametric import parametric_template

CERVICAL_TO_T12 = tables.LEVELS[:19]


@pytest.fixture(scope="module")
def areas(template) -> pd.DataFrame:
    """Area [mm2] of each region, cord and fluid: mean over the slices of each level."""
    pixel = template.grid.spacing[0] * template.grid.spacing[1]
    fields = {name: template.region_field(name) for name in template.region_names}
    fields |= {"cord": template.cord, "white": template.white, "gray": template.gray, "fluid": template.fluid}
    per_slice = {name: field.sum(axis=(0, 1)) * pixel for name, field in fields.items()}
    return pd.DataFrame(per_slice).groupby(_levels(template)).mean()


def _levels(template: Template) -> np.ndarray:
    return template.vertebrae.max(axis=(0, 1)).astype(int)


def test_names_numbers_and_landmarks(template):
    assert template.name == "qcord"
    assert template.region_names == (*TRACTS, CSF)
    assert [r.number for r in template.regions] == list(range(37))
    assert list(template.discs) == list(DISCS[:21])
    assert list(template.vertebra_middles) == list(tables.LEVELS)
    # VALUES table of level lengths: C3 18.5 mm, T11 31.5 mm.
    assert template.discs["C2/C3"] - template.discs["C3/C4"] == pytest.approx(18.5)
    assert template.discs["T10/T11"] - template.discs["T11/T12"] == pytest.approx(31.5)
    assert template.discs["C3/C4"] < template.vertebra_middles["C3"] < template.discs["C2/C3"]


def test_levels_lie_between_their_discs(template):
    heights, levels = template.slice_heights, _levels(template)
    for number, name in enumerate(tables.LEVELS, start=1):
        inside = heights[levels == number]
        assert inside.min() >= template.discs[DISCS[number]] - 1e-6
        assert inside.max() < template.discs[DISCS[number - 1]] - 1e-6, name


@pytest.mark.parametrize("level", CERVICAL_TO_T12)
def test_sizes_are_those_of_the_table(template, areas, level):
    row, number = tables.LEVELS.index(level), tables.LEVELS.index(level) + 1
    assert areas["cord"][number] == pytest.approx(tables.CORD_AREA[row], rel=0.02)
    assert areas["fluid"][number] == pytest.approx(tables.FLUID_AREA[row], rel=0.02)
    mask = template.cord[..., _levels(template) == number] >= 0.5
    step = template.grid.spacing[0]
    assert mask.any(axis=0).sum(axis=0).mean() * step == pytest.approx(tables.CORD_AP[row], rel=0.05)
    assert mask.any(axis=1).sum(axis=0).mean() * step == pytest.approx(tables.CORD_RL[row], rel=0.05)


@pytest.mark.parametrize("level", CERVICAL_TO_T12)
def test_tract_areas_are_those_of_the_table(areas, level):
    row = tables.LEVELS.index(level)
    wanted = np.repeat(tables.tract_areas()[row], 2)
    found = areas[list(TRACTS)].to_numpy()[row]
    assert np.abs(found / wanted - 1).max() < 0.15
    assert areas["white"][row + 1] == pytest.approx(wanted[:30].sum(), rel=0.05)
    assert areas["gray"][row + 1] == pytest.approx(wanted[30:].sum(), rel=0.05)


def test_the_conus_tapers_to_nothing(template, areas):
    assert areas["cord"][20] == pytest.approx(tables.CORD_AREA[19], rel=0.05)
    area = template.cord.sum(axis=(0, 1))[_levels(template) == 20]
    assert area[0] < 0.1 * area[-1]
    assert (np.diff(area) > -0.5).all()
    # Where the atlas behind the table already ends, the tracts keep their proportions and fill the cord.
    share = areas[list(TRACTS)].to_numpy()[19]
    wanted = np.repeat(tables.tract_areas()[19], 2)
    large = wanted > 0.1
    assert np.abs(share / share.sum() / (wanted / wanted.sum()) - 1)[large].max() < 0.2


def test_fractions_are_consistent(template):
    weights = template.weights
    assert weights.data.min() > 0
    assert weights.data.max() <= 1
    cord = np.asarray(weights[:, :36].sum(axis=1)).reshape(template.grid.shape)
    np.testing.assert_allclose(cord, template.cord, atol=1e-5)
    np.testing.assert_allclose(template.white + template.gray, template.cord, atol=1e-5)
    assert (template.cord + template.fluid).max() <= 1 + 1e-5
    ring = template.region_field(CSF)
    assert (ring <= template.fluid + 1e-5).all()


def test_left_is_the_patients_left_and_mirrors_the_right(template):
    assert template.grid.axes == "RAS"
    x = template.grid.affine[0, 3] + template.grid.spacing[0] * np.arange(template.grid.shape[0])
    for left, right in zip(TRACTS[0::2], TRACTS[1::2], strict=True):
        a, b = template.region_field(left), template.region_field(right)
        assert (a.sum(axis=(1, 2)) * x).sum() < 0 < (b.sum(axis=(1, 2)) * x).sum()
        np.testing.assert_allclose(a, b[::-1], atol=1e-6)


def test_anatomy_of_a_cervical_slice(template):
    k = int(np.argmin(np.abs(template.slice_heights - template.vertebra_middles["C4"])))
    x, y = (template.grid.affine[a, 3] + template.grid.spacing[a] * np.arange(template.grid.shape[a]) for a in (0, 1))

    def centre(name):
        field = template.region_field(name)[..., k]
        return (field.sum(axis=1) * x).sum() / field.sum(), (field.sum(axis=0) * y).sum() / field.sum()

    white = {name: centre(f"WM right {name}") for name in tables.HALF_TRACTS[:15]}
    gracilis, cuneatus = white["fasciculus gracilis"], white["fasciculus cuneatus"]
    lateral = white["lateral corticospinal tract"]
    assert 0 < gracilis[0] < cuneatus[0] < lateral[0]
    assert gracilis[1] < -1
    assert white["rubrospinal tract"][1] > lateral[1]
    assert white["ventral spinocerebellar tract"][0] == max(c[0] for c in white.values())
    assert white["spinal lemniscus (spinothalamic and spinoreticular tracts)"][1] > white["rubrospinal tract"][1]
    assert white["ventral corticospinal tract"][1] > 2
    assert centre("GM right dorsal horn")[1] < 0 < centre("GM right intermediate zone")[1]
    assert centre("GM right ventral horn")[1] > centre("GM right intermediate zone")[1]
    cord = template.cord[..., k]
    assert abs((cord.sum(axis=0) * y).sum() / cord.sum()) < 0.05
    assert ndimage.label(template.gray[..., k] > 0.5)[1] == 1, "the halves of the gray matter meet at the commissure"


@pytest.mark.parametrize("spacing", [0.8, 1.0])
def test_other_spacings_have_the_same_areas(areas, spacing):
    coarse = parametric_template(spacing=spacing)
    assert coarse.grid.spacing == pytest.approx((spacing,) * 3)
    volume = {name: coarse.region_field(name).sum() * spacing**3 for name in TRACTS}
    cord = coarse.cord.sum() * spacing**3
    lengths = -np.diff(tables.level_edges())
    assert cord == pytest.approx((areas["cord"].to_numpy() * lengths).sum(), rel=0.01)
    for name in TRACTS[:10]:
        assert volume[name] == pytest.approx((areas[name].to_numpy() * lengths).sum(), rel=0.05), name


def test_same_numbers_each_time(template):
    again = parametric_template()
    np.testing.assert_array_equal(again.weights.data, template.weights.data)


@pytest.mark.parametrize("spacing", [0.0, -1.0, 5.0, np.nan])
def test_impossible_spacing(spacing):
    with pytest.raises(ImplausibleValue, match=r"expected 0\.2 to 2 mm"):
        parametric_template(spacing=spacing)


def test_combined_regions_match_their_parts(template):
    for name in ("white matter", "gray matter"):
        total = sum(template.region_field(part) for part in COMBINED[name])
        expected = template.white if name == "white matter" else template.gray
        np.testing.assert_allclose(total, expected, atol=1e-5)


def test_arrays_are_single_precision_and_sparse(template):
    dense = (template.cord, template.white, template.gray, template.fluid)
    assert all(a.dtype == np.float32 for a in dense)
    assert template.weights.nnz < 1_000_000
