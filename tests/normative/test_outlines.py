import numpy as np
import pandas as pd
import pytest

from healthy_people import people
from qcord.normative.adapt import adapt_norm
from qcord.normative.fit import fit_norm
from qcord.normative.norm import Norms
from qcord.normative.outlines import RATIOS, SPREAD, drawn_by, outline_ratio, scaled
from qcord.normative.score import score


def drawn(table, software="SCT 6.1", metric="area T2w"):
    return table.assign(metric=metric, software=software)


@pytest.fixture(scope="module")
def norm():
    return fit_norm(drawn(people(30, 8, seed=1)))


@pytest.mark.parametrize("contrast", RATIOS)
@pytest.mark.parametrize("name", ["area", "diameter_AP", "diameter_RL"])
def test_ratios_of_both_directions_cancel_and_diameters_make_the_area(contrast, name):
    there, error = outline_ratio(f"{name} {contrast}", "qcord 0.1.0", ["SCT"])
    back, same = outline_ratio(f"{name} {contrast}", "SCT 6", ["qcord"])
    assert there > 1
    assert there * back == pytest.approx(1)
    assert error == same > 0
    both = np.prod([outline_ratio(f"{n} {contrast}", "qcord", ["SCT"])[0] for n in ("diameter_AP", "diameter_RL")])
    assert both == pytest.approx(outline_ratio(f"area {contrast}", "qcord", ["SCT"])[0])


@pytest.mark.parametrize(
    ("metric", "software", "programs"),
    [
        ("area T2w", "qcord 0.1.0", []),
        ("area T2w", "", ["SCT"]),
        ("area T2w", "qcord", ["qcord"]),
        ("area T2w", "qcord", ["SCT", "qcord"]),
        ("area T2w", "JIM", ["SCT"]),
        ("area dwi", "qcord", ["SCT"]),
        ("solidity T2w", "qcord", ["SCT"]),
        ("FA", "qcord", ["SCT"]),
    ],
)
def test_nothing_is_changed_where_no_ratio_is_known(metric, software, programs):
    assert outline_ratio(metric, software, programs) == (1.0, 0.0)
    table = pd.DataFrame({"value": [70.0], "software": [software]})
    assert scaled(table, metric, {"software": programs}).rows is table


def test_the_card_names_the_programs_and_travels(norm):
    assert norm.card["software"] == ["SCT"]
    assert Norms.from_json(Norms.of([norm]).to_json())[norm.cell].card["software"] == ["SCT"]
    assert drawn_by(pd.DataFrame({"software": ["qcord 0.1.0", None, "SCT 5", "SCT 6"]})) == ["SCT", "qcord"]


def test_people_whose_outlines_are_wider_are_standard_normal():
    """Unseen sites; ratios of areas spread between people as they do between scans."""
    table = people(70, 8, seed=1)
    unseen = table["site"] >= "s030"
    norm, new = fit_norm(drawn(table[~unseen])), table[unseen]
    ratio = np.exp(np.random.default_rng(3).normal(RATIOS["T2w"][0], SPREAD, len(new)))
    wider = new.assign(value=new["value"] * ratio)
    plain = score(norm, drawn(wider, software=None))["z"]
    z = score(norm, drawn(wider, software="qcord 0.1.0"))["z"]
    assert plain.mean() > 0.4
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.1
    assert score(norm, drawn(new))["z"].std() == pytest.approx(1, abs=0.12)


def test_expected_values_are_on_the_scale_of_the_value(norm):
    one = drawn(people(1, 1, seed=4)).assign(site="elsewhere")
    ratio, _ = outline_ratio("area T2w", "qcord", ["SCT"])
    theirs, own = (
        score(norm, one.assign(value=one["value"] * f, software=s)).iloc[0] for f, s in ((1, "SCT"), (ratio, "qcord"))
    )
    assert own["value"] == pytest.approx(theirs["value"] * ratio)
    assert own["expected"] == pytest.approx(theirs["expected"] * ratio)
    assert own["z_high"] - own["z_low"] > theirs["z_high"] - theirs["z_low"]
    assert abs(own["z"]) <= abs(theirs["z"])
    assert own["z"] * theirs["z"] > 0


def test_people_of_a_site_learnt_by_wider_outlines_are_standard_normal():
    """The site holds the mean ratio; that a person differs from it does not go away."""
    table = people(70, 12, seed=1)
    unseen = table["site"] >= "s030"
    norm, ratio = fit_norm(drawn(table[~unseen])), np.exp(RATIOS["T2w"][0])
    numbers = []
    for seed, (site, part) in enumerate(table[unseen].groupby("site")):
        own = ratio * np.exp(np.random.default_rng(seed).normal(0, SPREAD, len(part)))
        wider = drawn(part.assign(value=part["value"] * own), software="qcord 0.1.0")
        numbers.append(score(adapt_norm(norm, wider[:4], site=str(site)), wider[4:])["z"])
    z = np.concatenate(numbers)
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.15


@pytest.mark.parametrize("site", ["s003", "elsewhere"])
def test_what_a_person_may_differ_by_widens_at_known_sites_too(norm, site):
    one = drawn(people(1, 1, seed=6), software="qcord").assign(site=site, manufacturer="m0", se=0.5)
    ratio, error = outline_ratio("area T2w", "qcord", ["SCT"])
    value = one["value"].iloc[0] / ratio
    same = drawn(one.assign(value=value, se=np.hypot(0.5 / ratio, error * value)))
    for name in ("z", "z_low", "z_high"):
        assert score(norm, one)[name].iloc[0] == pytest.approx(score(norm, same)[name].iloc[0])
