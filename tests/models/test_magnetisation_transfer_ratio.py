import json
from pathlib import Path

import numpy as np
import pytest

from qcord.core.errors import MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.magnetisation_transfer_ratio import MTR, pair_rows

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "magnetisation_transfer_ratio.json").read_text())
PAIR = Protocol({"MTState": np.array([True, False])})


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: str(c["MTR"]))
def test_reference_values(case):
    signal = MTR.signal(np.array([case["without"], case["MTR"]]), PAIR, np.empty(0))
    np.testing.assert_allclose(signal, [case["with_pulse"], case["without"]], atol=case["tolerance"])
    assert MTR.start is not None
    guess = MTR.start(np.array([case["with_pulse"], case["without"]]), PAIR, np.empty(0))
    np.testing.assert_allclose(guess, [case["without"], case["MTR"]], atol=case["tolerance"])


def test_pair_of_a_triplet_is_told_by_flip_angle_and_repetition_time():
    protocol = Protocol(
        {
            "MTState": np.array([False, False, True]),
            "FlipAngle": [15.0, 9, 9],
            "RepetitionTimeExcitation": [0.015, 0.03, 0.03],
        }
    )
    assert pair_rows(protocol) == (2, 1)


def test_file_numbering_decides_where_the_settings_are_unknown():
    unknown = np.full(3, np.nan)
    protocol = Protocol(
        {
            "MTState": np.array([False, True, False]),
            "FlipAngle": unknown,
            "RepetitionTimeExcitation": unknown,
            "FlipIndex": [2.0, 1.0, 1.0],
        }
    )
    assert pair_rows(protocol) == (1, 2)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"MTState": np.array([True, True])}, "holds 0 pairs"),
        ({"MTState": np.array([True, False, False])}, "holds 2 pairs"),
        ({"MTState": np.array([True, False]), "FlipAngle": [9.0, 15.0]}, "holds 0 pairs"),
        ({"FlipAngle": [9.0, 9.0]}, "MTState is absent"),
    ],
)
def test_no_or_ambiguous_pair_is_an_error(columns, words):
    with pytest.raises(MissingMetadata, match=words):
        pair_rows(Protocol(columns, "images"))
