"""Maps of relaxometry and transmit field: recovery, error, bias, coverage, polarity, and what they need."""

import numpy as np
import pytest

from qcord.core.errors import GridMismatch, MissingMetadata, NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit, methods
from qcord.maps.mp2rage import normalised, t1_of_unified, unified_image, with_polarity
from qcord.models.registry import get

MAGNITUDE = ("vfa", "inversion-recovery", "inversion-recovery-tr", "t2", "r2star", "double-angle", "actual-flip-angle")
ALL = (*MAGNITUDE, "mp2rage")


def tissue(name, n, seed=0):
    model = get(name)
    theta = np.tile(model.theta(model.typical[0].values), (n, 1))
    theta[:, -1] *= np.random.default_rng(seed).uniform(0.85, 1.2, n)
    return theta


def series_of(measured, protocol):
    measured = np.asarray(measured)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def column(image):
    return image.data.ravel().astype(float)


@pytest.mark.parametrize("name", ALL)
def test_truth_is_recovered_without_noise(name):
    model, theta = get(name), tissue(name, 300)
    exact = simulate(model, theta, model.example())
    fitted = fit(name, series_of(exact if name == "mp2rage" else np.abs(exact), model.example()))
    without_error = len(model.example()) == len(model.free)
    assert np.isin(column(fitted.flag), [Flag.OK, Flag.NO_ERROR]).all()
    assert (np.isnan(column(fitted.std[model.free[-1].name])) == without_error).all()
    tolerance = 5e-3 if name.startswith("inversion") else 1e-6  # the sign of a signal at its null cannot be told
    for k, parameter in enumerate(model.free):
        np.testing.assert_allclose(column(fitted[parameter.name]), theta[:, k], rtol=tolerance)
    for derived in model.derived:
        np.testing.assert_allclose(column(fitted[derived.name]), 1 / theta[:, -1], rtol=tolerance)
        assert fitted[derived.name].unit == "s"


@pytest.mark.parametrize("snr", [20, 40, 100])
@pytest.mark.parametrize("name", ALL)
def test_intervals_cover_the_truth_and_errors_are_near_the_bound(name, snr):
    model, protocol, theta = get(name), get(name).example(), tissue(name, 6000, seed=snr)
    exact = simulate(model, theta, protocol)
    sigma = float(np.abs(exact).max()) / snr
    noise = Gaussian(sigma) if name == "mp2rage" else Rician(sigma)
    size = exact if name == "mp2rage" else np.abs(exact)
    fitted = fit(name, series_of(noise.sample(size, np.random.default_rng(snr)), protocol), noise=noise)
    truth = {model.free[-1].name: theta[:, -1], **{d.name: d.formula(theta) for d in model.derived}}
    for metric, value in truth.items():
        good = column(fitted.flag) == Flag.OK
        assert good.mean() > 0.995
        error = (column(fitted[metric]) - column(fitted.bias[metric]) - value)[good]
        std = column(fitted.std[metric])[good]
        assert 0.92 <= np.mean(np.abs(error) < 1.96 * std) <= 0.97
        assert abs(error.mean()) < 0.08 * error.std()
        if metric == model.free[-1].name:
            bound = np.sqrt(crlb(model, theta[good], protocol, Gaussian(sigma))[:, -1, -1])
            assert 0.9 < error.std() / np.sqrt((bound**2).mean()) < 1.15


@pytest.mark.parametrize("name", ["t2", "r2star", "inversion-recovery"])
def test_residuals_give_the_error_where_the_noise_is_not_known(name):
    """Their variance is right in the mean over voxels, if not in each."""
    model, theta = get(name), tissue(name, 6000, seed=4)
    exact = simulate(model, theta, model.example())
    sigma = float(np.abs(exact).max()) / 60
    measured = Rician(sigma).sample(np.abs(exact), np.random.default_rng(5))
    fitted = fit(name, series_of(measured, model.example()))
    metric = model.free[-1].name
    error = column(fitted[metric]) - theta[:, -1]
    assert 0.93 < error.std() / np.sqrt((column(fitted.std[metric]) ** 2).mean()) < 1.08
    assert abs(error.mean()) < 0.12 * error.std()


def test_noise_floor_does_not_lengthen_t2star():
    """Echoes at the floor bias a fit that takes them for signal, and not one that knows the noise."""
    protocol = Protocol({"EchoTime": 0.004 * np.arange(1, 13)})
    theta = np.tile([1000.0, 80.0], (4000, 1))
    measured = Rician(60.0).sample(simulate(get("r2star"), theta, protocol), np.random.default_rng(0))
    series = series_of(measured, protocol)
    knowing, naive = fit("r2star", series, noise=60.0), fit("r2star", series)
    assert np.median(column(naive["R2star"])) < 73
    assert np.median(column(knowing["R2star"])) == pytest.approx(80, rel=0.01)


def test_gradient_across_the_slice_is_taken_out():
    model, theta = get("r2star"), tissue("r2star", 50)
    spread = np.linspace(-30, 30, 50)
    exact = simulate(model, theta, model.example(), given=spread[:, None])
    series = series_of(exact, model.example())
    field = Image(spread.reshape(50, 1, 1), series.image.grid, "1/s")
    corrected, plain = fit("r2star", series, given={"FrequencySpread": field}), fit("r2star", series)
    np.testing.assert_allclose(column(corrected["R2star"]), theta[:, -1], rtol=1e-5)
    assert column(plain["R2star"])[0] > 1.3 * theta[0, -1]


@pytest.mark.parametrize("name", ["vfa", "mp2rage"])
def test_transmit_field_is_taken_out_and_its_absence_is_written_down(name):
    model, theta = get(name), tissue(name, 60)
    known = np.tile(model.given_defaults(), (60, 1))
    known[:, 0] = np.linspace(0.7, 1.3, 60)
    series = series_of(simulate(model, theta, model.example(), given=known), model.example())
    field = Image(known[:, 0].reshape(60, 1, 1), series.image.grid)
    corrected, plain = fit(name, series, given={"B1": field}), fit(name, series)
    np.testing.assert_allclose(column(corrected["T1"]), 1 / theta[:, -1], rtol=1e-5)
    assert corrected["T1"].history[-1].settings["B1"] == "given"
    assert "apparent" in plain["T1"].history[-1].settings["B1"]
    apparent = column(plain["R1"]) / theta[:, -1]
    if name == "vfa":  # for small angles the apparent rate goes with one over the square of the field
        np.testing.assert_allclose(apparent, known[:, 0] ** -2, rtol=0.05)
    else:
        assert 0.005 < np.ptp(apparent) < 0.2
    other = Image(np.ones((2, 3, 4)), Grid((2, 3, 4), np.eye(4)))
    with pytest.raises(GridMismatch, match="The B1 map"):
        fit(name, series, given={"B1": other})


def test_transfer_pulses_do_not_enter_flip_angle_maps():
    protocol = Protocol(
        {
            "FlipAngle": np.array([9.0, 9.0, 15.0]),
            "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
            "MTState": np.array([True, False, False]),
        }
    )
    theta = np.array([[1000.0, 1.1, 4.0], [1000.0, 0.8, 2.0]])
    series = series_of(simulate(get("mtsat-ernst"), theta, protocol), protocol)
    fitted = fit("vfa", series, noise=Gaussian(np.array([1.0, 1.0, 1.0])))
    np.testing.assert_allclose(column(fitted["R1"]), theta[:, 1], rtol=1e-6)
    assert np.isfinite(column(fitted.std["R1"])).all()


def test_signs_of_magnitudes_are_restored():
    model, theta = get("inversion-recovery"), tissue("inversion-recovery", 2000)
    exact = simulate(model, theta, model.example())
    series = series_of(np.abs(exact), model.example())
    fitted = fit("inversion-recovery", series)
    np.testing.assert_allclose(column(fitted["R1"]), theta[:, -1], rtol=5e-3)
    np.testing.assert_allclose(
        column(fit("inversion-recovery", series_of(exact, model.example()), method="signed")["R1"]),
        theta[:, -1],
        rtol=1e-6,
    )
    assert methods(model) == ("magnitude", "signed", "nonlinear", "robust")


def test_polarity_of_mp2rage_comes_from_phases_or_ratio_and_is_demanded():
    model, theta = get("mp2rage"), tissue("mp2rage", 40)
    theta[:, -1] = np.linspace(0.5, 2.5, 40)
    exact = simulate(model, theta, model.example())
    assert (exact[:, 0] < 0).any()
    assert (exact[:, 0] > 0).any()
    series = series_of(np.abs(exact), model.example())
    offset = np.random.default_rng(0).uniform(-3, 3, 40)  # receive phase, common to both images

    def phase(column_of):
        return series.image.derive((offset + np.where(column_of < 0, np.pi, 0)).reshape(40, 1, 1))

    ratio = exact[:, 0] * exact[:, 1] / (exact**2).sum(axis=1)
    stored = series.image.derive(np.rint((ratio + 0.5) * 4095).astype(np.int16).reshape(40, 1, 1))
    for known in ({"phases": [phase(exact[:, 0]), phase(exact[:, 1])]}, {"ratio": stored}):
        signed = with_polarity(series, **known)
        np.testing.assert_allclose(np.asarray(signed.data).reshape(40, 2), exact, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(column(fit("mp2rage", signed)["T1"]), 1 / theta[:, -1], rtol=1e-3)
    with pytest.raises(MissingMetadata, match="without polarity, expected part-phase images or UNIT1"):
        with_polarity(series)


def test_t1_of_the_ratio_image_agrees_with_t1_of_both_images():
    model, theta = get("mp2rage"), tissue("mp2rage", 4000, seed=7)
    known = np.tile(model.given_defaults(), (4000, 1))
    known[:, 0] = np.random.default_rng(1).uniform(0.8, 1.2, 4000)
    exact = simulate(model, theta, model.example(), given=known)
    sigma = float(np.abs(exact).max()) / 60
    series = series_of(Gaussian(sigma).sample(exact, np.random.default_rng(8)), model.example())
    field = Image(known[:, 0].reshape(-1, 1, 1), series.image.grid)
    ratio, error = unified_image(series, sigma=sigma)
    alone = t1_of_unified(ratio, model.example(), std=error, b1=field)
    both = fit("mp2rage", series, noise=Gaussian(sigma), given={"B1": field})
    assert (column(alone.flag) == Flag.OK).all()
    np.testing.assert_allclose(column(alone["T1"]), column(both["T1"]), rtol=1e-4)
    np.testing.assert_allclose(column(alone.std["T1"]), column(both.std["T1"]), rtol=2e-3)
    miss = np.abs(column(alone["T1"]) - column(alone.bias["T1"]) - 1 / theta[:, -1])
    assert 0.93 < np.mean(miss < 1.96 * column(alone.std["T1"])) < 0.97
    scaled = t1_of_unified(ratio.derive((ratio.data + 0.5) * 4095), model.example(), b1=field)
    np.testing.assert_allclose(column(scaled["T1"]), column(alone["T1"]), rtol=1e-3)
    assert (column(scaled.flag) == Flag.NO_ERROR).all()


def test_impossible_ratios_are_flagged():
    ratio = Image(np.array([0.2, np.nan, 0.6, -0.499999, 0.4999]).reshape(5, 1, 1), Grid((5, 1, 1), np.eye(4)))
    found = t1_of_unified(ratio, get("mp2rage").example().replace(InversionTime=[1.0, 3.2]), std=0.01)
    assert column(found.flag).tolist() == [Flag.OK, Flag.NOT_FINITE, *[Flag.UNPHYSICAL] * 3]
    assert np.isnan(column(found["T1"])[1:]).all()
    assert column(normalised(ratio.derive(np.array([0, 2047.5, 4095.0, 1, 2]).reshape(5, 1, 1))))[1] == 0


@pytest.mark.parametrize("name", ALL)
def test_bad_voxels_are_flagged_and_never_zero(name):
    model = get(name)
    exact = simulate(model, tissue(name, 1)[0], model.example())
    exact = exact if name == "mp2rage" else np.abs(exact)
    broken = exact.copy()
    broken[0] = np.nan
    sigma = float(np.abs(exact).max()) / 50
    rows = [exact, broken, np.zeros_like(exact), 0.1 * sigma * np.sign(exact + 0.5)]
    fitted = fit(name, series_of(rows, model.example()), noise=sigma)
    flags = column(fitted.flag).tolist()
    assert flags == [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NO_SIGNAL]
    metric = model.free[-1].name
    assert np.isnan(column(fitted[metric])[1:]).all()
    assert np.isnan(column(fitted.std[metric])[1:]).all()


def test_held_parameters_and_too_few_measurements():
    model = get("vfa")
    one = series_of(simulate(model, tissue("vfa", 3), model.example()), model.example()).take([1])
    held = fit("vfa", one, fixed={"R1": 1.2}, noise=1.0)
    assert np.isfinite(column(held["M0"])).all()
    with pytest.raises(NotIdentifiable, match="1 measurements for the 2 parameters"):
        fit("r2star", series_of(np.ones((3, 1)), get("r2star").example().take([0])))


def test_results_do_not_depend_on_threads():
    for name in ("inversion-recovery", "r2star"):
        model = get(name)
        exact = np.abs(simulate(model, tissue(name, 9000), model.example()))
        series = series_of(Rician(20.0).sample(exact, np.random.default_rng(2)), model.example())
        one, two = fit(name, series, noise=20.0, n_jobs=1), fit(name, series, noise=20.0, n_jobs=2)
        np.testing.assert_array_equal(one[model.free[-1].name].data, two[model.free[-1].name].data)


@pytest.mark.real
def test_flip_angle_t1_of_a_real_triplet_is_that_of_the_closed_form_without_its_approximation(data_dir):
    from qcord.ingest.nifti import read_image

    folder = data_dir / "bids-cord" / "sub-sct019" / "anat"
    names = ("flip-1_mt-on", "flip-1_mt-off", "flip-2_mt-off")
    images = [read_image(folder / f"sub-sct019_{n}_MTS.nii.gz") for n in names]
    mask = read_image(data_dir / "reference" / "sct019_mt_cord.nii.gz")
    protocol = Protocol(
        {
            "FlipAngle": np.array([9.0, 9.0, 15.0]),
            "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
            "MTState": np.array([True, False, False]),
        }
    )
    series = Series(images[0].derive(np.stack([i.data for i in images], axis=-1)), protocol)
    exact, closed = fit("vfa", series, mask), fit("mtsat", series, mask, method="half-tangent")
    both = np.isfinite(exact["T1"].data) & np.isfinite(closed["T1"].data) & (mask.data > 0.5)
    assert both.sum() > 0.97 * (mask.data > 0.5).sum()
    np.testing.assert_allclose(exact["T1"].data[both], closed["T1"].data[both], rtol=1e-3)
