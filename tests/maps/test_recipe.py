import numpy as np

from cord_diffusion import cord_protocol
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.maps.recipe import RULES, recipe
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


def plan(*protocols):
    return {p.model: p for p in recipe([series_of(p) for p in protocols])}


def test_complete_series_give_all_models():
    planned = plan(cord_protocol(), triplet())
    assert list(planned) == ["tensor", "mtr", "mtsat"]
    assert all(p.possible for p in planned.values())
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


def test_series_without_a_model_are_not_planned():
    assert recipe([series_of(Protocol({"EchoTime": [0.005, 0.01]}))]) == []


def test_rules_name_models_and_maps_that_exist():
    for rule in RULES:
        assert set(rule.metrics) <= set(get(rule.model).units)
        assert rule.model in MODELS
