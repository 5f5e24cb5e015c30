import numpy as np
import pytest

from cord_diffusion import cord_protocol
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.maps.fit import FAST, methods
from qcord.maps.recipe import RULES, recipe
from qcord.models.kurtosis import even_directions
from qcord.models.noddi import NODDI
from qcord.models.registry import MODELS, get


def series_of(protocol):
    return Series(Image(np.ones((2, 3, 4, len(protocol))), Grid((2, 3, 4), np.eye(4))), protocol)


def triplet(**change):
    protocol = Protocol(
        {
            "FlipAngle": [9.0, 9.0, 15.0],
            "RepetitionTimeExcitation": [0.03, 0.03, 0.015],
            "MTState": np.array([True, False, False]),
            "FlipIndex": [1.0, 1.0, 2.0],
        },
        "sub-01_MTS.json",
    )
    return protocol.replace(**change) if change else protocol


def shells(*parts):
    b = np.concatenate([np.full(count, float(level)) for level, count in parts])
    directions = [even_directions(count) * (level > 0) for level, count in parts]
    return Protocol({"BValue": b, "Direction": np.concatenate(directions)})


def plan(*protocols):
    return {p.model: p for p in recipe([series_of(p) for p in protocols])}


def test_complete_series_give_all_models():
    planned = plan(cord_protocol(), triplet())
    assert [name for name, p in planned.items() if p.possible] == ["tensor", "mtr", "mtsat"]
    assert planned["mtsat"].metrics == ("MTsat", "T1")
    assert len(planned["tensor"].series.protocol) == 35


def test_unknown_settings_leave_the_ratio_and_a_reason():
    unknown = np.full(3, np.nan)
    planned = plan(triplet(FlipAngle=unknown, RepetitionTimeExcitation=unknown))
    assert planned["mtr"].possible
    assert not planned["mtsat"].possible
    assert "FlipAngle and RepetitionTimeExcitation of some volumes are absent" in planned["mtsat"].reason
    assert "sub-01_MTS.json" in planned["mtsat"].reason


def test_a_pair_leaves_the_ratio():
    planned = plan(triplet().take([0, 1]))
    assert planned["mtr"].possible
    assert "1 volumes with and 1 without" in planned["mtsat"].reason


def test_too_few_directions_are_a_reason():
    assert "of the 7 unknowns" in plan(cord_protocol().take(np.arange(8)))["tensor"].reason


def test_one_shell_is_a_reason_against_kurtosis():
    planned = plan(cord_protocol())
    assert "has one b-value above 0 (800 s/mm2) with directions, expected two" in planned["kurtosis"].reason
    assert "has the b-values 0, 800 s/mm2, expected b = 0 and two more" in planned["mean-signal-kurtosis"].reason
    assert "has 0 b-values between 0 and 200" in planned["ivim"].reason


@pytest.mark.parametrize("name", ["kurtosis", "mean-signal-kurtosis", "ivim"])
def test_example_protocols_can_be_fitted(name):
    example = get(name).example
    assert plan(example())[name].possible


def test_two_shells_with_few_directions_leave_the_mean_signal():
    protocol = shells((0, 3), (700, 12), (2000, 12))
    planned = plan(protocol)
    assert "has 12 directions, expected at least 15" in planned["kurtosis"].reason
    assert planned["mean-signal-kurtosis"].possible
    half = protocol.take(protocol["Direction"][:, 0] >= 0)
    assert "too few or too uneven" in plan(half)["mean-signal-kurtosis"].reason


def test_directions_of_both_shells_count_together():
    """12 and 18 directions that differ make 30 of which 15 suffice for V; those of one shell repeated do not."""
    assert plan(shells((0, 3), (700, 12), (2000, 18)))["kurtosis"].possible
    few = shells((0, 3), (700, 14), (2000, 14))
    assert "has 14 directions" in plan(few)["kurtosis"].reason


def test_two_shells_give_neurites_and_one_shell_says_why_not():
    planned = plan(NODDI.example())
    assert {"noddi", "smt", "smt-mc"} <= {name for name, p in planned.items() if p.possible}
    assert planned["noddi"].metrics == ("ICVF", "ODI", "ISOVF")
    assert "30 at 800 s/mm2; NODDI takes b = 0 and two shells" in plan(cord_protocol())["noddi"].reason
    weak = plan(NODDI.example().replace(BValue=NODDI.example()["BValue"] * 0.4))
    assert "NODDI takes b = 0 and two shells" in weak["noddi"].reason
    assert "spherical mean technique takes" in weak["smt"].reason


def test_series_without_a_model_are_not_planned():
    assert recipe([series_of(Protocol({"EchoTime": [0.005, 0.01]}))]) == []


def test_a_tensor_leaves_out_shells_at_which_diffusion_is_not_gaussian():
    directions = even_directions(20)
    columns = {
        "BValue": np.concatenate([[0.0], np.full(20, 1000.0), np.full(20, 2000.0)]),
        "Direction": np.concatenate([np.zeros((1, 3)), directions, directions]),
    }
    plans = {p.model: p for p in recipe([series_of(Protocol(columns))])}
    assert plans["tensor"].series.protocol["BValue"].max() == 1000
    assert plans["kurtosis"].series.protocol["BValue"].max() == 2000
    strong = Protocol({k: v[np.r_[0, 21:41]] for k, v in columns.items()})
    assert len(recipe([series_of(strong)])[0].series.protocol) == 21


def test_rules_name_models_and_maps_that_exist():
    for rule in RULES:
        assert set(rule.metrics) <= set(get(rule.model).units)
        assert rule.model in MODELS
        assert rule.model not in FAST or methods(get(rule.model))[0] in FAST[rule.model]
