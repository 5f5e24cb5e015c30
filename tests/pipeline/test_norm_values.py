import json

import numpy as np
import pandas as pd
import pytest

from qcord.atlas.pool import levels_of, pooled, sides_of
from qcord.core.labels import TRACTS, VERTEBRAE
from qcord.core.protocol import Protocol
from qcord.ingest.norm_outputs import read_outputs
from qcord.normative.fingerprint import fingerprint, settings
from qcord.pipeline.norm_values import _differs, described, observed

LEFT, RIGHT = TRACTS[4], TRACTS[5]
CELL = ("FA", "lateral corticospinal tract", "C3:C4")


def atlas(rows):
    table = pd.DataFrame(
        [("FA", "1", r, level, "", "map", v, se, n, se, "dwi") for r, level, v, se, n in rows],
        columns=[
            *("metric", "unit", "region", "level", "slice", "estimator", "value", "se", "n_eff", "se_noise", "source")
        ],
    )
    return pd.concat([table, table.assign(estimator="ml", value=9.0), table.assign(slice="3", value=9.0)])


def shape(values, source="T2w"):
    return pd.DataFrame(
        [(source, "area", "mm2", level, "", v, 1.0, n) for level, v, n in values],
        columns=["source", "metric", "unit", "level", "slice", "value", "se", "n_slices"],
    )


NO_SHAPE = shape([])
FULL = [
    (LEFT, "C3", 0.6, 0.01, 10),
    (RIGHT, "C3", 0.7, 0.01, 10),
    (LEFT, "C4", 0.5, 0.01, 10),
    (RIGHT, "C4", 0.8, 0.01, 30),
]


def test_a_range_of_both_sides_is_the_mean_by_size():
    found = observed(atlas(FULL), NO_SHAPE, [CELL], differs={}, contrasts={})
    assert len(found) == 1
    np.testing.assert_allclose(found["value"], (0.6 * 10 + 0.7 * 10 + 0.5 * 10 + 0.8 * 30) / 60)
    np.testing.assert_allclose(found["se"], 0.01 * np.sqrt(3 * (1 / 6) ** 2 + 0.5**2))
    assert found["source"].tolist() == ["dwi"]


@pytest.mark.parametrize("missing", range(4))
def test_a_range_that_lacks_a_level_or_side_has_no_value(missing):
    rows = [r for n, r in enumerate(FULL) if n != missing]
    assert observed(atlas(rows), NO_SHAPE, [CELL], differs={}, contrasts={}).empty
    gap = [(r, v, np.nan if n == missing else x, se, k) for n, (r, v, x, se, k) in enumerate(FULL)]
    assert observed(atlas(gap), NO_SHAPE, [CELL], differs={}, contrasts={}).empty


def test_values_of_another_definition_are_left_out():
    assert observed(atlas(FULL), NO_SHAPE, [CELL], differs={"dwi": {"FA": "why"}}, contrasts={}).empty
    assert "transmit" in _differs("T1", "mtsat", "measured")
    assert _differs("T1", "mtsat", "not corrected: apparent") == ""
    assert "two flip angles" in _differs("T1", "inversion-recovery", "")
    assert "kurtosis" in _differs("MD", "kurtosis", "")
    assert _differs("MD", "tensor", "") == ""


def test_areas_are_told_apart_by_contrast():
    table = pd.concat([shape([("C2", 80.0, 10), ("C3", 90.0, 30)]), shape([("C2", 70.0, 3)], "T2star")])
    cells = [
        ("area T2w", "spinal cord", "C2:C3"),
        ("area T2star", "spinal cord", "C2"),
        ("area T1w", "spinal cord", "C2"),
    ]
    found = observed(atlas(FULL), table, cells, differs={}, contrasts={"T2w": "T2w", "T2star": "T2star"})
    assert found["metric"].tolist() == ["area T2w", "area T2star"]
    np.testing.assert_allclose(found["value"], [87.5, 70.0])
    np.testing.assert_allclose(found["se"], [np.hypot(0.25, 0.75), 1.0])


def test_names_of_levels_and_sides():
    assert levels_of("C2:C5") == ("C2", "C3", "C4", "C5")
    assert levels_of("T1") == ("T1",)
    assert levels_of("C5:C2") == ()
    assert levels_of("whole") == ()
    assert levels_of(f"{VERTEBRAE[0]}:{VERTEBRAE[-1]}") == VERTEBRAE
    assert sides_of("white matter") == ("white matter",)
    assert sides_of(LEFT) == (LEFT,)
    assert sides_of("dorsal horn") == ("GM left dorsal horn", "GM right dorsal horn")
    assert sides_of("liver") == ()


def test_placement_is_common_to_what_is_pooled():
    rows = pd.DataFrame({"value": [1.0, 3.0], "se": [5.0, 5.0], "se_noise": [3.0, 3.0], "n_eff": [1.0, 1.0]})
    value, se = pooled(rows)
    assert value == 2
    np.testing.assert_allclose(se, np.sqrt(9 / 2 + 16))


def test_protocols_of_a_run_are_those_of_its_raw_scans_with_b_values(output):
    path = output / "sub-healthy01" / "sub-healthy01_desc-atlas_metrics.json"
    stated = {token: own["protocol"] for token, own in json.loads(path.read_text())["Scanners"].items()}
    assert settings(stated["dwi"])["b"] == (0.0, 800.0)
    assert settings(stated["MTS"])["FA"] == (9.0, 15.0)
    raw = {key.split("|")[-1]: str(fingerprint(found)) for key, found in read_outputs(output, None).sidecars.items()}
    assert stated == raw


def test_what_a_protocol_does_not_tell_is_left_to_the_sidecar():
    sidecar = {"Manufacturer": "Siemens", "EchoTime": 0.06}
    assert described(sidecar, None) == sidecar
    protocol = Protocol({"BValue": np.array([0.0, 800.0, 800.0]), "EchoTime": np.full(3, np.nan)})
    assert described(sidecar, protocol) == {**sidecar, "BValue": [0.0, 800.0]}
