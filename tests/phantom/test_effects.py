"""Each effect can be switched on alone, does what its formula says to a whole series, and leaves the truth alone."""

import numpy as np
import pytest

from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import helms_inverse
from qcord.phantom.distortion import push
from qcord.phantom.effects import USUAL, Effects, usual_effects
from qcord.phantom.facts import Facts
from qcord.phantom.field_strength import at_field
from qcord.phantom.scan import Scan
from qcord.phantom.spec import Compression, PhantomSpec
from qcord.phantom.subject import make_subject
from qcord.phantom.tissue import default_tissues
from qcord.phantom.values import RegionValues
from qcord.template import tables

PLAIN = PhantomSpec(series=("dwi",), seed=11)


@pytest.fixture(scope="module")
def still():
    return make_subject(PLAIN)


def _with(**effects):
    return make_subject(PLAIN.replace(effects=Effects(**effects)))


def test_nothing_is_wrong_unless_asked_for(still):
    assert not still.truth["dwi"].motion.any()
    assert not still.truth["dwi"].fields


@pytest.fixture(scope="module")
def distorted():
    return make_subject(PLAIN.replace(effects=Effects(susceptibility=True), series=("dwi", "epi")))


def test_susceptibility_moves_signal_by_the_field(still, distorted):
    """Image and reversed image are those of the neck at rest, moved by field times read-out time along A."""
    rest = still.truth["dwi"].noise_free.data
    truth = distorted.truth["dwi"]
    shift = truth.fields["B0"].data[..., None] * 0.00094 * 36
    np.testing.assert_allclose(truth.fields["displacement"].data[..., None], -shift * 0.9, atol=1e-4)
    np.testing.assert_allclose(truth.noise_free.data, push(rest, -shift, 1), atol=2e-2)
    reverse = distorted.truth["epi"]
    assert distorted.series["epi"].image.metadata["PhaseEncodingDirection"] == "j"
    assert distorted.series["dwi"].image.metadata["PhaseEncodingDirection"] == "j-"
    np.testing.assert_allclose(reverse.noise_free.data[..., 0], push(rest[..., :1], shift, 1)[..., 0], atol=2e-2)
    inside = truth.mask.data > 0
    assert 0.2 < np.abs(truth.fields["displacement"].data[inside]).mean() < 3


def test_truth_is_that_of_the_undistorted_neck(still, distorted):
    for name, image in still.truth["dwi"].maps.items():
        if name != "S0":
            np.testing.assert_array_equal(image.data, distorted.truth["dwi"].maps[name].data)
    np.testing.assert_array_equal(still.truth["dwi"].mask.data, distorted.truth["dwi"].mask.data)


def test_eddy_currents_spare_unweighted_volumes(still):
    subject = _with(eddy_hz=30.0)
    rest, found = still.truth["dwi"].noise_free.data, subject.truth["dwi"].noise_free.data
    weighted = subject.series["dwi"].protocol["BValue"] > 0
    np.testing.assert_allclose(found[..., ~weighted], rest[..., ~weighted], rtol=1e-5, atol=1e-3)
    assert np.abs(found[..., weighted] - rest[..., weighted]).mean() > 0.02 * rest[..., weighted].mean()


def test_breathing_moves_slices_as_a_whole(still):
    subject = _with(breathing_hz=30.0)
    rest, found = still.truth["dwi"].noise_free.data, subject.truth["dwi"].noise_free.data
    y = np.arange(36)[None, :]
    moved = [
        [(d[30:66, :, k, v] * y).sum() / d[30:66, :, k, v].sum() for v in range(5)]
        for k in (0, 14)
        for d in (found, rest)
    ]
    low, high = np.ptp(np.subtract(moved[0], moved[1])), np.ptp(np.subtract(moved[2], moved[3]))
    assert low > high > 0


def test_heart_moves_the_cord_forwards_and_takes_signal():
    subject = _with(cardiac_mm=1.3, pulsation=0.05)
    shift = subject.truth["dwi"].motion
    assert shift.shape == (35, 15, 2)
    assert not shift[..., 0].any()
    assert 0.9 < shift[..., 1].max() <= 1.3
    assert shift.min() >= 0
    quiet = _with(cardiac_mm=1.3)
    ratio = subject.truth["dwi"].noise_free.data.sum(axis=(0, 1, 2)) / quiet.truth["dwi"].noise_free.data.sum(
        axis=(0, 1, 2)
    )
    weighted = subject.series["dwi"].protocol["BValue"] > 0
    np.testing.assert_allclose(ratio[~weighted], 1, atol=1e-3)
    assert ratio[weighted].min() < 0.99
    upward = np.abs(subject.series["dwi"].protocol["Direction"][:, 2])
    assert np.corrcoef(ratio[weighted], upward[weighted])[0, 1] < -0.5, "gradients along the cord lose most"


def test_drift_starts_at_rest():
    shift = _with(drift_mm=2.0).truth["dwi"].motion
    assert not shift[0].any()
    assert shift[1:].any(axis=(1, 2)).all()


def test_ringing_ripples_beside_the_cord_and_keeps_its_signal(still):
    subject = _with(ringing=True)
    rest, found = (s.truth["dwi"].noise_free.data[..., 0] for s in (still, subject))
    assert found.shape == rest.shape
    pure = still.truth["dwi"].white.data > 0.999
    assert found[pure].mean() == pytest.approx(rest[pure].mean(), rel=0.03)
    assert found[pure].std() > 1.2 * rest[pure].std()
    k = 7
    bright = still.truth["dwi"].fluid.data[:, :, k] > 0.95
    assert found[:, :, k][bright].max() > 1.02 * rest[:, :, k][bright].max(), "edges overshoot"


def test_transmit_field_biases_t1_and_is_undone_by_its_map():
    spec = PhantomSpec(series=("MTS",), effects=Effects(transmit=0.1, transmit_mean=0.9))
    truth = make_subject(spec).truth["MTS"]
    pure = truth.white.data > 0.999
    images = np.moveaxis(truth.noise_free.data[pure].astype(float), -1, 0)
    b1 = truth.fields["B1"].data[pure].astype(float)
    assert b1.std() > 0.01
    angles, times = np.deg2rad([9.0, 9.0, 15.0])[:, None], np.array([0.03, 0.03, 0.015])
    true = truth.maps["T1"].data[pure]
    apparent = 1 / helms_inverse(images, angles, times)[1]
    np.testing.assert_allclose(apparent / b1**2, true, rtol=0.01)
    corrected = helms_inverse(images, angles * b1, times)
    np.testing.assert_allclose(1 / corrected[1], true, rtol=0.01)


def test_channels_lift_the_floor():
    subject = _with(channels=8)
    truth, noisy = subject.truth["dwi"], subject.series["dwi"].data
    dark = truth.noise_free.data < 0.02 * truth.sigma
    if dark.sum() < 500:
        dark = truth.noise_free.data < np.quantile(truth.noise_free.data, 0.01)
    assert noisy[dark].mean() > 3.5 * truth.sigma
    adaptive = _with(channels=8, combination="adaptive").series["dwi"].data
    assert adaptive[dark].mean() < 2 * truth.sigma


def test_same_seed_same_arrays_with_all_effects():
    few = Protocol({"BValue": [0.0, 700, 700], "Direction": [[0, 0, 0], [0, 0, 1], [1, 0, 0]]})
    scans = (Scan("tensor", few, name="few", matrix=(40, 30, 4)), Scan("mtsat", matrix=(44, 44, 4)))
    spec = PLAIN.replace(effects=usual_effects("all"), scans=scans, series=("few", "mtsat"))
    first, again, other = make_subject(spec), make_subject(spec), make_subject(spec.replace(seed=12))
    for name in spec.series:
        np.testing.assert_array_equal(first.series[name].data, again.series[name].data)
        assert (first.series[name].data != other.series[name].data).mean() > 0.99
    assert (first.truth["few"].motion != other.truth["few"].motion).any()
    assert set(first.truth["few"].fields) == {"B0", "displacement"}
    assert set(first.truth["mtsat"].fields) == {"B1"}


def test_choice_of_series_changes_none_of_them():
    spec = PhantomSpec(effects=usual_effects("motion", "eddy"), series=("dwi",))
    both = make_subject(spec.replace(series=("epi", "mtsat", "dwi"), scans=(Scan("mtsat", matrix=(30, 26, 3)),)))
    np.testing.assert_array_equal(make_subject(spec).series["dwi"].data, both.series["dwi"].data)


def test_names_of_effects():
    assert usual_effects() == Effects()
    assert usual_effects("all") == usual_effects(*USUAL)
    assert usual_effects("eddy").eddy_hz > 0
    assert not usual_effects("eddy").ringing


@pytest.mark.parametrize("tesla", [1.5, 7.0])
def test_relaxation_follows_the_field(tesla):
    """T1 by Rooney's power law; the rate of dephasing beyond T2 in proportion to the field."""
    old, new = default_tissues(), at_field(default_tissues(), tesla)
    name = "WM left lateral corticospinal tract"
    before, after = ({m: v.value for m, v in t[name].items()} for t in (old, new))
    assert after["T1"] == pytest.approx(before["T1"] * (tesla / 3) ** 0.38)
    assert (after["T2"] < before["T2"]) == (tesla > 3)
    dephasing = [1 / v["T2star"] - 1 / v["T2"] for v in (before, after)]
    assert dephasing[1] == pytest.approx(dephasing[0] * tesla / 3)
    assert after["MTsat"] == before["MTsat"]
    assert new[name]["T1"].trust == "assumed"
    assert "scaled from 3 T" in new[name]["T1"].source
    assert new["fluid"]["T1"] == old["fluid"]["T1"]
    assert at_field(old, 3.0)[name] == old[name]
    subject = make_subject(PhantomSpec(tesla=tesla, series=("MTS",)))
    values = subject.regions.set_index(["region", "level", "metric"])["value"]
    assert values[name, "C4", "T1"] == pytest.approx(after["T1"])
    assert subject.series["MTS"].image.metadata["MagneticFieldStrength"] == tesla


def test_values_by_level_person_and_disease_multiply():
    spec = PhantomSpec(
        factors={"FA": 0.9},
        levels={"FA": {"C4": 0.8}},
        compression=Compression("C6/C7", factors={"FA": 0.5}),
        series=(),
    )
    facts = Facts.of(spec)
    edges = tables.level_edges()
    middle = {level: (edges[k] + edges[k + 1]) / 2 for k, level in enumerate(tables.LEVELS)}
    heights = np.array([middle["C2"], middle["C4"], (middle["C4"] + middle["C5"]) / 2, tables.disc_heights()["C6/C7"]])
    plain = RegionValues.of(PhantomSpec(), facts.body).at(heights).values["FA"]
    found = facts.tissue(heights).values["FA"]
    np.testing.assert_allclose(found / plain, np.outer([0.9, 0.72, 0.81, 0.45], np.ones(found.shape[1])), rtol=1e-3)
