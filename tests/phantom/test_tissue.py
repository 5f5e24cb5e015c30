import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcord.core.labels import COMBINED, TRACTS
from qcord.phantom.tissue import BASIC, METRICS, SURROUNDINGS, axial_radial, default_tissues, tissue_frame, tissue_table
from qcord.template import tables


def test_every_tissue_has_every_value_with_its_source():
    frame = tissue_frame(default_tissues())
    assert set(frame["tissue"]) == {*TRACTS, *SURROUNDINGS}
    assert (frame.groupby("tissue")["metric"].nunique() == len(METRICS)).all()
    assert set(frame["trust"]) == {"verified", "computed", "assumed"}
    assert (frame["source"] != "").all()
    cord = frame[frame["tissue"].isin(TRACTS) & frame["metric"].isin(BASIC)]
    assert set(cord["trust"]) == {"verified", "computed"}, "nothing assumed stands for the truth of a tract"


@given(st.floats(0.0, 0.99), st.floats(1e-4, 3e-3))
def test_axial_and_radial_diffusivity_have_the_anisotropy_and_mean(fa, md):
    along, across = axial_radial(np.array(fa), np.array(md))
    values = np.array([along, across, across])
    assert values.mean() == pytest.approx(md)
    found = np.sqrt(1.5 * ((values - values.mean()) ** 2).sum() / (values**2).sum())
    assert found == pytest.approx(fa, abs=1e-7)
    assert across >= 0


def test_white_matter_as_a_whole_has_the_published_mean():
    """Siemens, C2 to C5: FA 0.689, MD 0.993, MTsat 3.66; the parts were chosen so that they mix to it."""
    table = tissue_table(default_tissues())
    area = np.repeat(tables.tract_areas()[1:5].mean(axis=0), 2)
    white = np.isin(TRACTS, COMBINED["white matter"])
    for metric, value in (("FA", 0.689), ("MD", 0.993e-3), ("MTsat", 3.664)):
        mean = np.average(table.cord(metric)[white], weights=area[white])
        assert mean == pytest.approx(value, rel=0.01)
