import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import GridMismatch, ImplausibleValue, UnitMismatch, UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.maps.g_ratio import Calibration, calibrate, g_ratio

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "g_ratio.json").read_text())


def image(values, unit="1"):
    values = np.asarray(values, dtype=float)
    return Image(values.reshape(-1, 1, 1), Grid((values.size, 1, 1), np.eye(4)), unit=unit)


def flat(one):
    return one.data.ravel().astype(float)


def run(myelin, v_ic, v_iso, calibration, **more):
    return g_ratio(image(myelin, calibration.unit), image(v_ic), image(v_iso), calibration, **more)


@pytest.mark.parametrize("case", REFERENCE)
def test_worked_example(case):
    found = run([case["MVF"] / 0.07], [case["v_ic"]], [case["v_iso"]], Calibration(0.07, 0.0)).fit
    for name in ("MVF", "AVF", "g"):
        assert flat(found[name])[0] == pytest.approx(case[name], abs=case["tolerance"])
        assert found[name].unit == "1"
    assert found.flag.data.ravel()[0] == Flag.NO_ERROR


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 0.6), st.floats(0.1, 0.9), st.floats(0, 0.5))
def test_ratio_in_its_other_form_and_its_limits(mvf, v_ic, v_iso):
    found = run([mvf / 0.1], [v_ic], [v_iso], Calibration(0.1, 0.0)).fit
    avf = flat(found["AVF"])[0]
    assert flat(found["g"])[0] == pytest.approx(np.sqrt(1 / (1 + mvf / avf)), rel=1e-5)
    assert avf + mvf + (1 - mvf) * (1 - (1 - v_iso) * v_ic) == pytest.approx(1, abs=1e-6)
    bare = run([1e-6], [v_ic], [v_iso], Calibration(0.1, 0.0)).fit
    assert flat(bare["g"])[0] == pytest.approx(1, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 8), st.floats(0.2, 0.9), st.floats(0, 0.4), st.floats(0.5, 0.9))
def test_calibration_gives_its_region_the_g_ratio_asked_for(myelin, v_ic, v_iso, g):
    found = run([myelin], [v_ic], [v_iso], calibrate(myelin, v_ic, v_iso, g=g)).fit
    assert flat(found["g"])[0] == pytest.approx(g, rel=1e-5)


def test_error_of_the_calibration_is_that_of_a_simulation():
    means, se = np.array([4.0, 0.55, 0.05]), (0.1, 0.02, 0.01)
    found = calibrate(*means, g=0.7, se=se, g_se=0.02)
    generator = np.random.default_rng(0)
    draws = [
        calibrate(*(means + np.array(se) * generator.normal(size=3)), g=0.7 + 0.02 * generator.normal()).slope
        for _ in range(4000)
    ]
    assert found.se == pytest.approx(np.std(draws), rel=0.06)
    assert calibrate(*means).se == 0


def test_noise_and_calibration_errors_are_those_of_simulations_and_stay_apart():
    n = 20_000
    generator = np.random.default_rng(1)
    truth, std = np.array([4.0, 0.55, 0.12]), np.array([0.25, 0.03, 0.02])
    link = np.array([[1, 0, 0], [0, 1, -0.5], [0, -0.5, 1]])
    noisy = generator.multivariate_normal(truth, link * np.outer(std, std), n)
    scale = Calibration(0.065, 0.006, source="splenium")
    errors = {k: image(np.full(n, s)) for k, s in zip(("myelin", "v_ic", "v_iso"), std, strict=True)}
    found = run(*noisy.T, scale, std=errors, correlation=-0.5)
    exact = run(*truth[:, None], scale)
    higher, lower = (run(*truth[:, None], Calibration(s, 0.0)) for s in (0.0656, 0.0644))
    for name in ("MVF", "AVF", "g"):
        true = flat(exact.fit[name])[0]
        value, se = flat(found.fit[name]), flat(found.fit.std[name])
        assert value.std() / np.sqrt((se**2).mean()) == pytest.approx(1, abs=0.03)
        corrected = value - flat(found.fit.bias[name]) - true
        assert abs(corrected.mean()) < 4 * value.std() / np.sqrt(n)
        covered = np.abs(corrected) < 1.96 * se
        assert 0.94 < covered.mean() < 0.96
        change = (flat(higher.fit[name]) - flat(lower.fit[name]))[0] / 0.0012 * 0.006
        assert flat(exact.systematic[name])[0] == pytest.approx(change, rel=2e-3)
        assert flat(found.systematic[name]).std() < 0.3 * abs(change)  # shared by all voxels
    assert flat(exact.systematic["g"])[0] < 0 < flat(exact.systematic["MVF"])[0]
    assert np.all(found.fit.flag.data == Flag.OK)
    assert found.fit["g"].history[-1].settings["calibration source"] == "splenium"


def test_bias_of_the_inputs_travels():
    scale = Calibration(0.065, 0.0)
    errors = {k: image([s]) for k, s in (("myelin", 0.25), ("v_ic", 0.03), ("v_iso", 0.02))}
    plain = run([4.0], [0.55], [0.06], scale, std=errors)
    moved = run([4.0], [0.55], [0.06], scale, std=errors, bias={"myelin": image([0.1])})
    change = flat(run([4.1], [0.55], [0.06], scale).fit["g"]) - flat(run([4.0], [0.55], [0.06], scale).fit["g"])
    np.testing.assert_allclose(flat(moved.fit.bias["g"]) - flat(plain.fit.bias["g"]), change, rtol=0.02)


def test_missing_and_unphysical_inputs_are_flagged():
    myelin = [4.0, np.nan, 4.0, -1.0, 20.0, 4.0, 4.0, 4.0]
    v_ic = [0.5, 0.5, np.inf, 0.5, 0.5, 1.2, 0.0, 0.5]
    v_iso = [0.1, 0.1, 0.1, 0.1, 0.1, -0.2, 0.1, 1.0]
    errors = {k: image(np.full(8, 0.01)) for k in ("myelin", "v_ic", "v_iso")}
    found = run(myelin, v_ic, v_iso, Calibration(0.065, 0.005), std=errors)
    flags = [Flag.OK, Flag.NOT_FINITE, Flag.NOT_FINITE, *[Flag.UNPHYSICAL] * 5]
    assert flat(found.fit.flag).tolist() == flags
    for group in (found.fit.maps, found.fit.std, found.fit.bias, found.systematic):
        for one in group.values():
            assert np.array_equal(np.isnan(flat(one)), np.array(flags) != Flag.OK)


def test_mistakes_are_named():
    scale = Calibration(0.065, 0.005)
    with pytest.raises(UnitMismatch, match="myelin map .* is in '1', expected 'percent'"):
        g_ratio(image([4.0]), image([0.5]), image([0.1]), scale)
    with pytest.raises(GridMismatch, match="v_ic"):
        run([4.0], [0.5, 0.5], [0.1], scale)
    with pytest.raises(UnknownName, match="no input 'MTsat' of the g-ratio"):
        run([4.0], [0.5], [0.1], scale, std={"MTsat": image([0.1])})
    with pytest.raises(ImplausibleValue, match="correlation"):
        run([4.0], [0.5], [0.1], scale, correlation=2.0)
    for slope, se in ((0.0, 0.1), (-1.0, 0.1), (np.nan, 0.1), (1.0, -0.1)):
        with pytest.raises(ImplausibleValue, match="expected a positive slope"):
            Calibration(slope, se)
    with pytest.raises(ImplausibleValue, match="The reference region has"):
        calibrate(4.0, 0.5, 0.1, g=1.2)
