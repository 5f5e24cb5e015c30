import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import SetApartWarning
from qcord.normative.adapt import adapt
from qcord.normative.fingerprint import fingerprint, settings
from qcord.normative.fit import fit_norms
from qcord.normative.norm import Norms
from qcord.normative.protocols import deviations, parted, usual_protocols
from qcord.normative.score import score


def protocol(tr, *, angles=(9, 15), maker="GE", field=3):
    shots = [{"FlipAngle": angles[0], "RepetitionTime": tr}, {"FlipAngle": angles[1], "RepetitionTime": 0.015}]
    shared = {"Manufacturer": maker, "ManufacturersModelName": "Signa 7 T-like", "MagneticFieldStrength": field}
    return str(fingerprint([{**shared, "EchoTime": 0.004, "ScanningSequence": "GR", **s} for s in shots]))


def table(times, *, metric="MTR", maker="GE", people=3):
    rows = [(site, metric, maker, protocol(tr, maker=maker)) for site, tr in times.items() for _ in range(people)]
    return pd.DataFrame(rows, columns=["site", "metric", "manufacturer", "protocol"])


def test_settings_are_read_back():
    found = settings(protocol(0.047, field=1.5))
    assert found["TR"] == (0.015, 0.047)
    assert found["FA"] == (9, 15)
    assert found["T"] == (1.5,)
    assert settings("b 800 and TR 0.03 of our own") == {}
    assert settings("Siemens Prisma 3 T, EP, TE 0.06, b 0/800, slice 5 #12345678")["b"] == (0, 800)


def test_settings_of_small_numbers_and_offsets():
    made = fingerprint({"Manufacturer": "GE", "EchoTime": 4.2e-5, "MTOffsetFrequency": -1500})
    found = settings(str(made))
    assert found["TE"] == (4.2e-5,)
    assert found["MT offset"] == (-1500,)


def test_one_that_is_far_from_half_of_the_sites_deviates():
    found = table({"a": 0.035, "b": 0.047, "c": 0.035, "d": 0.108})
    why = deviations(found, usual_protocols(found))
    assert set(found["site"][why != ""]) == {"d"}
    assert why[-1] == "protocol of another kind: TR 0.11, that of GE is usually 0.015 and 0.035"


def test_two_sites_have_no_usual_protocol():
    found = table({"a": 0.035, "d": 0.108})
    assert usual_protocols(found) == {}
    assert not (deviations(found, usual_protocols(found)) != "").any()


def test_rows_not_sites_are_judged():
    found = table({"a": 0.057, "b": 0.057, "c": 0.057}, maker="Philips")
    found.loc[0, "protocol"] = protocol(0.103, maker="Philips")
    why = deviations(found, usual_protocols(found))
    assert (why != "").tolist() == [True, *[False] * 8]
    apart = parted(found, usual_protocols(found))
    assert len(apart.kept) == 8
    assert list(apart.reasons) == ["a"]
    assert apart.reasons["a"].endswith("(1 value)")


@pytest.mark.parametrize("metric", ["area T2w", "FA"])
def test_settings_that_do_not_matter_to_a_metric(metric):
    found = table({"a": 0.035, "b": 0.035, "c": 0.035, "d": 0.108}, metric=metric)
    assert not (deviations(found, usual_protocols(found)) != "").any()


def test_one_image_of_a_usual_protocol_is_usual():
    known = usual_protocols(table({"a": 0.035, "b": 0.035, "c": 0.035}))
    one = str(fingerprint({"Manufacturer": "GE", "FlipAngle": 9, "RepetitionTime": 0.037, "EchoTime": 0.004}))
    rows = pd.DataFrame({"metric": ["MTR"], "manufacturer": ["GE"], "protocol": [one]})
    assert deviations(rows, known).tolist() == [""]
    assert "FA 5" in deviations(rows.assign(protocol=one.replace("FA 9", "FA 5")), known)[0]


def test_other_manufacturers_and_no_protocol_are_not_judged():
    known = usual_protocols(table({"a": 0.035, "b": 0.035, "c": 0.035}))
    rows = pd.DataFrame(
        {
            "metric": "MTR",
            "manufacturer": ["Philips", None, "GE", "GE"],
            "protocol": [protocol(0.2)] * 2 + [None, "ours"],
        }
    )
    assert deviations(rows, known).tolist() == [""] * 4
    assert deviations(rows.drop(columns="protocol"), known).tolist() == [""] * 4


def test_order_of_rows_does_not_matter():
    found = table({"a": 0.035, "b": 0.047, "c": 0.06, "d": 0.108, "e": 0.039})
    mixed = found.sample(frac=1, random_state=np.random.RandomState(3))
    assert usual_protocols(found) == usual_protocols(mixed)


def people(times, seed=0):
    """MTR of sites by repetition time: half the ratio at three times the usual one."""
    rng = np.random.default_rng(seed)
    found = table(times, people=6)
    value = 50 + rng.standard_normal(len(found)) - 20 * found["site"].map(times).gt(0.1)
    ages, sexes = rng.uniform(20, 40, len(found)), rng.choice(["F", "M"], len(found))
    ids = [f"p{k}" for k in range(len(found))]
    cell = {"region": "white matter", "level": "C3", "unit": "percent", "pathology": "HC"}
    return found.assign(value=value, age=ages, sex=sexes, participant_id=ids, **cell)


TIMES = {"a": 0.035, "b": 0.047, "c": 0.035, "d": 0.108}


def test_fit_sets_apart_with_the_reason():
    with pytest.warns(SetApartWarning, match=r"MTR of d: protocol of another kind: TR 0\.11"):
        norms = fit_norms(people(TIMES))
    norm = next(iter(norms))
    assert norm.hierarchy.sites.name == ("a", "b", "c")
    assert norm.card["set apart"]["d"].endswith("(6 values)")
    assert norm.card["protocols"]["GE"]["TR"] == [0.015, 0.035]
    assert Norms.from_json(norms.to_json())[norm.cell].card == norm.card
    alone = people({k: v for k, v in TIMES.items() if k != "d"})
    assert fit_norms(people(TIMES).query("site != 'd'"))[norm.cell].count == len(alone)


def test_score_and_adapt_set_apart_with_the_reason():
    usual = people({"a": 0.035, "b": 0.047, "c": 0.035})
    norms = fit_norms(usual)
    other = people({"x": 0.108})
    found = score(norms, pd.concat([other, usual]))
    assert found["z"].isna().tolist() == [True] * 6 + [False] * 18
    assert found["note"].iloc[0].startswith("protocol of another kind: TR 0.11")
    with pytest.warns(SetApartWarning, match="Controls of x set apart: MTR: protocol of another kind"):
        adapted = adapt(norms, other, site="x")
    norm = next(iter(adapted))
    assert "x" not in norm.hierarchy.sites.name
    assert "TR 0.11" in norm.card["set apart"]["x"]
    blind = adapt(norms, other.drop(columns="protocol"), site="x")
    assert "x" in next(iter(blind)).hierarchy.sites.name
