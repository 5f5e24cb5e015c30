import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import NotIdentifiable
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.models.ivim import IVIM, example, require_segments

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "ivim.json").read_text())
NONE = np.empty(0)


def theta_of(tissue, s0=1000.0):
    return IVIM.theta({**next(t.values for t in IVIM.typical if t.tissue.startswith(tissue)), "S0": s0})


def scan(theta, count, sigma, seed):
    measured = simulate(IVIM, np.tile(theta, (count, 1)), example(), Gaussian(sigma) if sigma else None, seed)
    return Series(Image(measured.reshape(count, 1, 1, -1), Grid((count, 1, 1), np.eye(4))), example())


def flat(image):
    return image.data.ravel().astype(float)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    found = IVIM.signal(IVIM.theta(case["theta"]), Protocol({"BValue": case["BValue"]}), NONE)
    np.testing.assert_allclose(found, case["signal"], rtol=case["tolerance"])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(5e-3, 0.2), st.floats(1e-4, 3e-3), st.floats(0.5, 2000))
def test_signal_is_the_mean_of_two_decays_and_its_slope_that_of_the_mean(f, fast, slow, s0):
    theta = np.array([s0, f, fast, slow])
    signal = IVIM.signal(theta, Protocol({"BValue": [0.0, 1e-4, 700.0]}), NONE)
    assert signal[0] == pytest.approx(s0)
    assert (signal[0] - signal[1]) / (1e-4 * s0) == pytest.approx(f * fast + (1 - f) * slow, rel=1e-3)
    parts = [IVIM.signal(np.array([s0, k, fast, slow]), Protocol({"BValue": [700.0]}), NONE)[0] for k in (0, 1)]
    assert signal[2] == pytest.approx((1 - f) * parts[0] + f * parts[1], rel=1e-9)


@pytest.mark.parametrize("f", [0.03, 0.08, 0.15, 0.3])
@pytest.mark.parametrize("fast", [8e-3, 0.02, 0.06])
def test_start_is_near_without_noise_and_the_fit_exact(f, fast):
    theta = np.array([700.0, f, fast, 1e-3])
    assert IVIM.start is not None
    s0, fraction, _, slow = IVIM.start(IVIM.signal(theta, example(), NONE)[None], example(), NONE)[0]
    assert s0 == pytest.approx(700, rel=0.02)
    assert fraction == pytest.approx(f, abs=(0.25 if fast > 0.01 else 0.6) * f + 0.005)
    assert slow == pytest.approx(1e-3, rel=0.15 if fast > 0.01 else 0.5)  # slow blood is left at b = 200
    result = fit("ivim", scan(theta, 2, 0.0, 0))
    for name, value in zip(("S0", "f", "Dstar", "D"), theta, strict=True):
        np.testing.assert_allclose(flat(result[name]), value, rtol=1e-4)


def test_start_never_raises_and_stays_within_bounds():
    measured = np.random.default_rng(0).normal(size=(200, 78))
    measured[:3] = [[0.0], [-1.0], [1e-30]]
    assert IVIM.start is not None
    found = IVIM.start(measured, example(), NONE)
    low, high = np.array([p.bounds for p in IVIM.free]).T
    assert np.isfinite(found).all()
    assert np.all((found >= low) & (found <= high))


@pytest.mark.parametrize("tissue", ["white", "gray"])
def test_spread_meets_the_bound_and_intervals_cover_the_truth(tissue):
    theta, sigma = theta_of(tissue), 1000 / 100
    result = fit("ivim", scan(theta, 1500, sigma, 1), noise=Gaussian(sigma))
    bound = np.sqrt(np.diag(crlb(IVIM, theta, example(), Gaussian(sigma))))
    for k, name in enumerate(("S0", "f", "Dstar", "D")):
        error = flat(result[name]) - flat(result.bias[name]) - theta[k]
        assert 0.9 < flat(result[name]).std() / bound[k] < 1.15
        assert 0.92 < np.mean(np.abs(error) < 1.96 * flat(result.std[name])) < 0.97


def test_low_signal_is_flagged_where_the_blood_cannot_be_told():
    theta, sigma = theta_of("white"), 1000 / 15
    result = fit("ivim", scan(theta, 400, sigma, 2), noise=Gaussian(sigma))
    flags = result.flag.data.ravel()
    odd = (flat(result["Dstar"]) >= 0.1999) | (flat(result["Dstar"]) <= 5.001e-3) | (flat(result["f"]) <= 0)
    assert odd.sum() > 20
    assert np.all(flags[odd] != 0)


def test_protocols_without_both_segments_are_named():
    require_segments(example())
    for levels, found in (([0, 500, 800], "0 b-values"), ([0, 20, 50, 100, 150, 190], "and 0 from")):
        with pytest.raises(NotIdentifiable, match=found):
            require_segments(Protocol({"BValue": np.repeat(np.array(levels, dtype=float), 4)}, "x.bval"))
