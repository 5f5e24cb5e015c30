import numpy as np
import pytest

from qcord.core.errors import GridMismatch, MissingMetadata
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.fit import fit as fit_general
from qcord.estimate.simulate import simulate
from qcord.ingest.nifti import read_image
from qcord.maps.mtr import mtr
from qcord.maps.mtsat import mtsat
from qcord.models.registry import get

TRIPLET = Protocol(
    {
        "FlipAngle": [9.0, 15.0, 9.0],
        "RepetitionTimeExcitation": [0.03, 0.015, 0.03],
        "MTState": np.array([False, False, True]),
    },
    "triplet",
)


def tissue(n, seed=0):
    generator = np.random.default_rng(seed)
    return np.stack([np.full(n, 1000.0), 1 / generator.uniform(0.8, 1.4, n), generator.uniform(2, 6, n)], axis=1)


def series_of(measured, protocol=TRIPLET):
    measured = np.asarray(measured, dtype=float)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def written_out(pd, t1w, mt):
    """MTsat [percent] and T1 [s] from the paper, one voxel at a time, with the settings as plain numbers."""
    a1, a2, tr1, tr2 = np.deg2rad(9.0), np.deg2rad(15.0), 0.03, 0.015
    r1 = 0.5 * (a2 / tr2 * t1w - a1 / tr1 * pd) / (pd / a1 - t1w / a2)
    amplitude = (tr1 * a2 / a1 - tr2 * a1 / a2) * pd * t1w / (tr1 * a2 * t1w - tr2 * a1 * pd)
    return 100 * ((amplitude * a1 / mt - 1) * r1 * tr1 - a1**2 / 2), 1 / r1


def test_maps_are_the_published_formula():
    measured = simulate(get("mtsat-ernst"), tissue(200), TRIPLET)
    fit = mtsat(series_of(measured))
    for v in range(200):
        saturation, t1 = written_out(*measured[v])
        assert float(fit["MTsat"].data[v, 0, 0]) == pytest.approx(saturation, rel=1e-6)
        assert float(fit["T1"].data[v, 0, 0]) == pytest.approx(t1, rel=1e-6)
    assert {k: m.unit for k, m in fit.maps.items()} == {"A": "1", "R1": "1/s", "MTsat": "percent", "T1": "s"}


def test_truth_is_recovered_exactly_from_the_rational_signal_and_nearly_from_the_exact_one():
    theta = tissue(300)
    rational = mtsat(series_of(simulate(get("mtsat"), theta, TRIPLET)))
    np.testing.assert_allclose(rational["T1"].data.ravel(), 1 / theta[:, 1], rtol=1e-6)
    np.testing.assert_allclose(rational["MTsat"].data.ravel(), theta[:, 2], rtol=1e-6)
    exact = series_of(simulate(get("mtsat-ernst"), theta, TRIPLET))
    small, tangent = mtsat(exact), mtsat(exact, half_tangent=True)
    error = small["T1"].data.ravel() * theta[:, 1] - 1
    assert np.all((error > 0.006) & (error < 0.012))
    np.testing.assert_allclose(tangent["T1"].data.ravel(), 1 / theta[:, 1], rtol=1e-4)


def test_transmit_field_is_taken_out_and_its_absence_is_written_down():
    theta = tissue(300)
    field = np.random.default_rng(1).uniform(0.7, 1.3, 300)
    series = series_of(simulate(get("mtsat"), theta, TRIPLET, given=field[:, None]))
    b1 = Image(field.reshape(-1, 1, 1), series.image.grid)
    fit = mtsat(series, b1=b1)
    np.testing.assert_allclose(fit["T1"].data.ravel(), 1 / theta[:, 1], rtol=1e-5)
    np.testing.assert_allclose(fit["MTsat"].data.ravel(), theta[:, 2], rtol=1e-5)
    assert fit["T1"].history[-1].settings["B1"] == "given"
    assert "apparent" in mtsat(series)["T1"].history[-1].settings["B1"]
    plain = mtsat(series, b1=b1, b1_dependence=0.0)
    np.testing.assert_allclose(plain["MTsat"].data.ravel(), theta[:, 2] * (1 - 0.4 * field) / 0.6, rtol=1e-5)


@pytest.mark.parametrize("snr", [20, 30, 60])
def test_intervals_cover_the_truth(snr):
    theta = tissue(20_000, seed=snr)
    sigma = float(simulate(get("mtsat"), theta, TRIPLET)[:, 0].mean()) / snr
    fit = mtsat(series_of(simulate(get("mtsat"), theta, TRIPLET, Rician(sigma), seed=snr)), sigma=sigma)
    truth = {"MTsat": theta[:, 2], "T1": 1 / theta[:, 1], "R1": theta[:, 1], "A": theta[:, 0]}
    for name, exact in truth.items():
        error = fit[name].data.ravel().astype(float) - fit.bias[name].data.ravel() - exact
        std = fit.std[name].data.ravel().astype(float)
        for size in (1, 10, 100):
            mean = error.reshape(-1, size).mean(axis=1)
            covered = np.abs(mean) < 1.96 * np.sqrt((std**2).reshape(-1, size).mean(axis=1) / size)
            assert 0.9 <= covered.mean() <= 0.99, (name, size)


def test_closed_form_equals_the_joint_fit_within_a_small_part_of_its_error():
    theta = tissue(500, seed=5)
    sigma = 1.0
    series = series_of(simulate(get("mtsat"), theta, TRIPLET, Rician(sigma), seed=5))
    closed, joint = mtsat(series, sigma=sigma), fit_general(get("mtsat"), series, noise=Gaussian(sigma))
    for name in ("MTsat", "T1"):
        gap = np.abs(closed[name].data - joint[name].data) / closed.std[name].data
        assert gap.max() < 1e-3
        # the joint fit has terms of second order besides
        wider = joint.std[name].data / closed.std[name].data
        assert wider.min() > 0.999
        assert wider.max() < 1.01


def test_bad_voxels_are_flagged_and_never_zero():
    good = simulate(get("mtsat"), tissue(1)[0], TRIPLET)
    rows = [good, good * [1, 1, 0], good * [np.nan, 1, 1], [100, 400, 50], [100, 30, 50], [100, 166.7, 50]]
    fit = mtsat(series_of(rows), sigma=0.5)
    flags = fit.flag.data.ravel().tolist()
    assert flags[:3] == [Flag.OK, Flag.NO_SIGNAL, Flag.NOT_FINITE]
    assert flags[3:] == [Flag.UNPHYSICAL] * 3
    assert np.isnan(fit["T1"].data.ravel()[1:]).all()
    assert np.isnan(fit.std["MTsat"].data.ravel()[1:]).all()


def test_missing_settings_and_wrong_grids_are_named():
    series = series_of(simulate(get("mtsat"), tissue(4), TRIPLET))
    with pytest.raises(MissingMetadata, match="RepetitionTimeExcitation of some volumes are absent from triplet"):
        mtsat(Series(series.image, TRIPLET.replace(RepetitionTimeExcitation=[0.03, np.nan, 0.03])))
    with pytest.raises(GridMismatch, match="The B1 map"):
        mtsat(series, b1=Image(np.ones((2, 3, 4)), Grid((2, 3, 4), np.eye(4))))


@pytest.mark.real
def test_real_triplet_gives_the_values_of_other_software(data_dir):
    """Means in the rough cord mask: T1 1.112 s, MTsat 4.61 %, MTR 52.5 % there, finite almost everywhere."""
    folder = data_dir / "bids-cord" / "sub-sct019" / "anat"
    names = ("flip-1_mt-off", "flip-2_mt-off", "flip-1_mt-on")
    images = [read_image(folder / f"sub-sct019_{n}_MTS.nii.gz") for n in names]
    mask = read_image(data_dir / "reference" / "sct019_mt_cord.nii.gz")
    series = Series(images[0].derive(np.stack([i.data for i in images], axis=-1)), TRIPLET)
    fit = mtsat(series, mask)
    inside = mask.data > 0.5
    assert np.isfinite(fit["T1"].data[inside]).mean() >= 0.98
    assert np.nanmean(fit["T1"].data[inside]) == pytest.approx(1.1120165, rel=1e-5)
    assert np.nanmean(fit["MTsat"].data[inside]) == pytest.approx(4.6108488, rel=1e-5)
    assert np.nanmean(mtr(series, mask)["MTR"].data[inside]) == pytest.approx(52.533671, rel=1e-5)
