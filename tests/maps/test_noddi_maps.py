import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from qcord.core.errors import NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import delta
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.noddi import UNKNOWN, fit_noddi
from qcord.maps.noddi_ascent import ascend
from qcord.maps.noddi_likelihood import evaluate, expected, noise_bias
from qcord.maps.noddi_signal import bent, frame, moments_of, prepare, slopes, terms
from qcord.models.noddi import NODDI, axis_of, tilt_of

PROTOCOL = NODDI.example()
S0 = 1000.0
FRACTIONS = ("ICVF", "ODI", "ISOVF")


def truths(n, seed, icvf=(0.3, 0.8), odi=(0.03, 0.4), isovf=(0.05, 0.4)):
    """Theta (n, 6) with axes all over the sphere."""
    generator = np.random.default_rng(seed)
    axis = generator.normal(size=(n, 3))
    axis *= np.sign(axis[:, 2:]) / np.linalg.norm(axis, axis=1, keepdims=True)
    fractions = [generator.uniform(*r, n) for r in (icvf, odi, isovf)]
    return np.column_stack([np.full(n, S0), *fractions, *tilt_of(axis.T)])


def scan(theta, snr=np.inf, seed=0, protocol=PROTOCOL, shape=None, given=None):
    noise = Rician(S0 / snr) if np.isfinite(snr) else None
    measured = simulate(NODDI, theta, protocol, noise, seed, given=given)
    shape = shape or (len(theta), 1, 1)
    return Series(Image(measured.reshape(*shape, -1), Grid(shape, np.diag([0.9, 0.9, 5, 1]))), protocol)


def flat(image):
    return np.asarray(image.data, dtype=float).reshape(-1)


def state_of(theta, sigma=1.0):
    return np.concatenate([theta[:, :4].T / np.array([sigma, 1, 1, 1])[:, None], axis_of(*theta[:, 4:].T).T])


def test_noise_free_truth_is_recovered():
    theta = truths(504, 0, odi=(0.02, 0.7), isovf=(0.0, 0.7))
    result = fit_noddi(scan(theta, shape=(7, 8, 9)), sigma=1e-3)
    for k, name in enumerate(("S0", *FRACTIONS, "TiltRight", "TiltAnterior")):
        assert np.abs(flat(result[name]) - theta[:, k]).max() < {"S0": 0.1}.get(name, 0.02 if k > 3 else 2e-4)
    agreement = np.abs((result["V1"].data.reshape(-1, 3) * axis_of(*theta[:, 4:].T)).sum(axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-6)
    assert np.isin(result.flag.data, [Flag.OK, Flag.AT_BOUND]).all()


def test_kernel_agrees_with_the_model_and_its_derivatives():
    theta = truths(60, 1, icvf=(0.02, 0.98), odi=(0.01, 0.95), isovf=(0, 0.95))
    design, state = prepare(PROTOCOL, *np.array([1.7e-3, 3e-3])), state_of(theta)
    np.testing.assert_allclose(expected(design, state).T, simulate(NODDI, theta, PROTOCOL), atol=1e-3)

    def moved(step):
        right, front = frame(state[4:])
        axis = state[4:] + step[4] * right + step[5] * front
        return np.concatenate([state[:4] + step[:4], axis / np.linalg.norm(axis, axis=0)])

    generator = np.random.default_rng(2)
    root = generator.normal(size=(6, 6, 60)) * np.array([100, 0.1, 0.1, 0.1, 0.1, 0.1])[:, None, None]
    curve = -12 * expected(design, state)
    for column in np.moveaxis(root, 1, 0):
        curve += expected(design, moved(1e-3 * column)) + expected(design, moved(-1e-3 * column))
    covariance = np.einsum("ikv,jkv->ijv", root, root)
    moments = moments_of(state[2], design.series.shape[1])
    for shell in design.shells:
        parts = terms(design, shell, state, moments)
        _, slope = slopes(parts, state)
        for k in range(6):
            step = np.zeros((6, 60))
            step[k] = 1e-5 * (S0 if k == 0 else 1)
            rise = expected(design, moved(step)) - expected(design, moved(-step))
            np.testing.assert_allclose(slope[k], rise[shell.rows] / (2 * step[k]), atol=1e-4 * S0 ** (k > 0))
        exact = bent(parts, state, slope, covariance)
        np.testing.assert_allclose(exact, curve[shell.rows] / 1e-6, atol=2e-4 * np.abs(exact).max() + 0.02)


def test_gradient_and_information_are_those_of_the_rician_likelihood():
    theta, sigma = truths(20, 3), S0 / 15
    design = prepare(PROTOCOL, *np.array([1.7e-3, 3e-3]))
    measured = simulate(NODDI, theta, PROTOCOL, Rician(sigma), 4).T / sigma
    state = state_of(theta, sigma)
    value = evaluate(design, measured, state, magnitude=True)
    for k in range(4):
        step = np.zeros(state.shape)
        step[k] = 1e-4 * state[k]
        likelihood = [
            stats.rice.logpdf(measured, expected(design, s)).sum(axis=0) for s in (state + step, state - step)
        ]
        slope = (likelihood[0] - likelihood[1]) / (2 * step[k])
        np.testing.assert_allclose(value[1 + k], slope, atol=2e-3 * np.sqrt(value[7 + k * (k + 3) // 2]).max())
    bound = crlb(NODDI, theta, PROTOCOL, Rician(sigma))
    normal = np.zeros((20, 6, 6))
    normal[:, *np.tril_indices(6)] = value[7:28].T
    normal = normal + np.swapaxes(np.tril(normal, -1), 1, 2)
    inverse = np.linalg.inv(normal)
    for k in (1, 2, 3):
        np.testing.assert_allclose(inverse[:, k, k], bound[:, k, k], rtol=5e-3)


def test_the_estimate_is_the_highest_maximum():
    """Starting from the truth never finds a much higher likelihood."""
    theta, sigma = truths(600, 5, icvf=(0.2, 0.95), odi=(0.02, 0.8), isovf=(0, 0.7)), S0 / 25
    series = scan(theta, 25, 5)
    result = fit_noddi(series, sigma=sigma)
    design, measured = prepare(PROTOCOL, *np.array([1.7e-3, 3e-3])), series.data.reshape(600, -1).T / sigma
    _, best, _ = ascend(design, measured, state_of(theta, sigma), magnitude=True)
    found = np.concatenate(
        [np.stack([flat(result[n]) for n in ("S0", *FRACTIONS)]), result["V1"].data.reshape(-1, 3).T]
    )
    found[0] /= sigma
    mine = evaluate(design, measured, found, magnitude=True)
    assert np.mean(mine[0] - best[0] > 0.02) < 0.01
    assert (mine[0] - best[0]).mean() < 0.01


def test_least_squares_agrees_with_the_general_fit():
    theta = truths(80, 6)
    series = scan(theta, 40, 6)
    own = fit("noddi", series, noise=Gaussian(S0 / 40))
    general = fit("noddi", series, method="nonlinear", noise=Gaussian(S0 / 40))
    inside = (flat(own.flag) == Flag.OK) & (flat(general.flag) == Flag.OK)
    assert inside.mean() > 0.9
    for name in ("S0", *FRACTIONS, "INVF"):
        apart = np.abs(flat(own[name]) - flat(general[name])) / flat(general.std[name])
        assert apart[inside].max() < 0.02
        # the general fit has terms of second order besides
        wider = flat(general.std[name])[inside] / flat(own.std[name])[inside]
        assert wider.min() > 0.98
        assert wider.max() < 1.15
        assert np.median(wider) < 1.02
        difference = (flat(own.bias[name]) - flat(general.bias[name])) / flat(general.std[name])
        assert np.median(np.abs(difference[inside])) < 0.02


@pytest.mark.parametrize("snr", [20, 50, 100])
def test_spread_is_the_bound_and_intervals_cover(snr):
    theta = np.tile([S0, 0.55, 0.12, 0.25, 8.0, -15.0], (1500, 1))
    result = fit_noddi(scan(theta, snr, snr), sigma=S0 / snr)
    covariance = crlb(NODDI, theta[0], PROTOCOL, Rician(S0 / snr))
    bound = dict(zip((p.name for p in NODDI.free), np.sqrt(np.diag(covariance)), strict=True))
    bound["INVF"] = delta(NODDI.derived[0], theta[0], covariance)[1]
    truth = dict(zip((p.name for p in NODDI.free), theta[0], strict=True)) | {"INVF": 0.75 * 0.55}
    for name, least in bound.items():
        value = flat(result[name]) - (flat(result.bias[name]) if name in result.bias else 0)
        assert 0.9 < value.std() / least < 1.15
        assert abs(value.mean() - truth[name]) < 0.2 * least
        assert 0.92 < np.mean(np.abs(value - truth[name]) < 1.96 * flat(result.std[name])) < 0.975


def test_bias_takes_back_what_bounds_do():
    """No free water: half of the voxels are held at 0, so the mean of the map is too large, not that of map - bias."""
    theta = np.tile([S0, 0.6, 0.06, 0.0, 5.0, 5.0], (2000, 1))
    result = fit_noddi(scan(theta, 30, 7), sigma=S0 / 30)
    held = flat(result.flag) == Flag.AT_BOUND
    assert 0.35 < held.mean() < 0.65
    for k, name in enumerate(FRACTIONS, 1):
        value, std = flat(result[name]), flat(result.std[name])
        plain, corrected = value.mean() - theta[0, k], (value - flat(result.bias[name])).mean() - theta[0, k]
        assert abs(corrected) < 0.1 * std.mean()
        assert name != "ISOVF" or plain > 0.3 * std.mean()
        covered = np.abs(value - flat(result.bias[name]) - theta[0, k]) < 1.96 * std
        assert 0.92 < covered.mean() < 0.975


def test_without_a_noise_level_the_residuals_give_it():
    theta = truths(1000, 8)
    series = scan(theta, 25, 8)
    known, unknown = fit_noddi(series, sigma=S0 / 25), fit_noddi(series)
    ratio = np.median(flat(unknown.std["ICVF"]) / flat(known.std["ICVF"]))
    assert ratio == pytest.approx(1, abs=0.03)
    for name in FRACTIONS:
        z = (flat(unknown[name]) - flat(unknown.bias[name]) - theta[:, FRACTIONS.index(name) + 1]) / flat(
            unknown.std[name]
        )
        assert 0.91 < np.mean(np.abs(z) < 1.96) < 0.975
    holes = np.full(1000, S0 / 25)
    holes[::2] = np.nan
    mixed = fit_noddi(series, sigma=Image(holes.reshape(1000, 1, 1), series.image.grid))
    np.testing.assert_allclose(flat(mixed["ODI"])[::2], flat(unknown["ODI"])[::2], atol=2e-3)
    np.testing.assert_allclose(flat(mixed["ODI"])[1::2], flat(known["ODI"])[1::2], atol=2e-3)


def test_residuals_beyond_the_given_noise_widen_the_errors():
    theta = np.tile([S0, 0.55, 0.12, 0.25, 8.0, -15.0], (1500, 1))
    series = scan(theta, 25, 31)
    low, right = fit_noddi(series, sigma=S0 / 50), fit_noddi(series, sigma=S0 / 25)
    for name, truth in (("ICVF", 0.55), ("ODI", 0.12), ("ISOVF", 0.25)):
        assert np.median(flat(low.std[name]) / flat(right.std[name])) == pytest.approx(1, abs=0.05)
        assert 0.9 < np.mean(np.abs(flat(low[name]) - truth) < 1.96 * flat(low.std[name])) < 0.98
    bound = np.sqrt(np.diag(crlb(NODDI, theta[0], PROTOCOL, Rician(S0 / 25))))
    assert np.mean(flat(right.std["ICVF"]) > 1.35 * bound[1]) < 0.02


def test_the_noise_floor_is_taken_off():
    theta = np.tile([S0, 0.4, 0.15, 0.5, 5.0, 5.0], (1500, 1))
    series = scan(theta, 15, 9)
    magnitudes, normal = (fit("noddi", series, noise=n(S0 / 15)) for n in (Rician, Gaussian))
    error = [abs((flat(f["ICVF"]) - flat(f.bias["ICVF"])).mean() - 0.4) for f in (magnitudes, normal)]
    assert error[0] < 0.02
    assert error[1] > 4 * error[0]


def test_what_the_data_do_not_tell_is_flagged_and_wide():
    water = np.tile([S0, 0.5, 0.3, 0.995, 5.0, 5.0], (300, 1))
    empty = np.tile([S0, 0.0, 0.3, 0.1, 5.0, 5.0], (300, 1))
    result = fit_noddi(scan(np.concatenate([water, empty]), 30, 10), sigma=S0 / 30)
    flag = flat(result.flag)
    assert np.mean(flag[:300] == Flag.UNDETERMINED) > 0.95
    assert np.mean(flag[300:] == Flag.UNDETERMINED) > 0.6
    assert np.median(flat(result.std["ICVF"])[:300]) > UNKNOWN
    assert np.median(flat(result.std["ODI"])[300:]) > UNKNOWN
    assert np.abs(flat(result["ISOVF"])[:300].mean() - 0.995) < 0.02
    assert np.median(flat(result.std["ISOVF"])[:300]) < 0.03
    for name in result.std:
        assert np.isfinite(flat(result.std[name])).all()


def test_voxels_without_a_value_are_nan_and_say_why():
    series = scan(truths(40, 11), 30, 11)
    data = np.array(series.data)
    data[0], data[1, 0, 0, 5], data[2], data[3] = (
        0,
        np.nan,
        Rician(30.0).sample(np.zeros(67), np.random.default_rng(0)),
        -5,
    )
    result = fit_noddi(Series(series.image.derive(data), PROTOCOL), sigma=30.0)
    assert flat(result.flag)[:4].tolist() == [Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NO_SIGNAL]
    for group in (result.maps, result.std, result.bias):
        for image in group.values():
            values = np.asarray(image.data).reshape(40, -1)
            assert np.isnan(values[:4]).all()
            assert np.isfinite(values[4:]).all()


def test_hostile_measurements_never_raise_and_do_not_touch_others():
    generator = np.random.default_rng(12)
    good = scan(truths(4, 12), 30, 12).data.reshape(4, -1)
    odd = [np.full(67, 1e30), np.full(67, 1e-30), np.arange(67) * 1e6, *np.abs(generator.standard_cauchy((20, 67)))]
    data = np.concatenate([good, np.stack(odd)])
    for sigma in (None, 30.0):
        grid = Grid((len(data), 1, 1), np.eye(4))
        every = fit_noddi(Series(Image(data.reshape(len(data), 1, 1, -1), grid), PROTOCOL), sigma=sigma)
        alone = fit_noddi(Series(Image(good.reshape(4, 1, 1, -1), Grid((4, 1, 1), np.eye(4))), PROTOCOL), sigma=sigma)
        np.testing.assert_allclose(flat(every["ODI"])[:4], flat(alone["ODI"]), atol=1e-6)


def test_threads_masks_and_memory_order_do_not_change_a_bit():
    theta = truths(19 * 16 * 15, 13)
    series = scan(theta, 25, 13, shape=(19, 16, 15))
    turned = Series(series.image.derive(np.asfortranarray(series.data)), PROTOCOL)
    first = fit_noddi(series, n_jobs=1, sigma=S0 / 25)
    for other in (fit_noddi(series, n_jobs=3, sigma=S0 / 25), fit_noddi(turned, n_jobs=2, sigma=S0 / 25)):
        for group in ("maps", "std", "bias"):
            for name, image in getattr(first, group).items():
                assert getattr(other, group)[name].data.tobytes() == image.data.tobytes()
    inside = np.random.default_rng(1).random((19, 16, 15)) > 0.7
    masked = fit_noddi(series, Image(inside.astype(float), series.image.grid), sigma=S0 / 25)
    np.testing.assert_allclose(masked["ICVF"].data[inside], first["ICVF"].data[inside], atol=1e-5)
    assert np.isnan(masked["ICVF"].data[~inside]).all()
    assert np.all(masked.flag.data[~inside] == Flag.OUTSIDE)


def test_turning_directions_turns_the_axis_and_nothing_else():
    theta = truths(150, 14)
    series = scan(theta, 30, 14)
    turn = Rotation.random(random_state=1).as_matrix()
    turned = Series(series.image, PROTOCOL.replace(Direction=PROTOCOL["Direction"] @ turn.T))
    one, other = fit_noddi(series, sigma=S0 / 30), fit_noddi(turned, sigma=S0 / 30)
    for name in FRACTIONS:
        np.testing.assert_allclose(flat(one[name]), flat(other[name]), atol=0.02 * flat(one.std[name]).max())
        np.testing.assert_allclose(flat(one.std[name]), flat(other.std[name]), rtol=0.02)
    v, w = (f["V1"].data.reshape(-1, 3) for f in (one, other))
    assert np.abs(((v @ turn.T) * w).sum(axis=1)).min() > 0.9999
    np.testing.assert_allclose(
        np.stack(tilt_of(w.T)), [flat(other["TiltRight"]), flat(other["TiltAnterior"])], atol=1e-3
    )


def test_axis_error_is_that_of_repeats():
    theta = np.tile([S0, 0.6, 0.1, 0.1, 20.0, 35.0], (1500, 1))
    result = fit_noddi(scan(theta, 30, 15), sigma=S0 / 30)
    for name in ("TiltRight", "TiltAnterior"):
        assert flat(result.std[name]).mean() == pytest.approx(flat(result[name]).std(), rel=0.06)
    spread = result["V1"].data.reshape(-1, 3).std(axis=0)
    np.testing.assert_allclose(result.std["V1"].data.reshape(-1, 3).mean(axis=0), spread, rtol=0.06)


def test_given_diffusivities_may_be_numbers_or_maps():
    theta = truths(300, 16)
    given = np.column_stack([np.where(np.arange(300) % 2, 2.1e-3, 1.7e-3), np.full(300, 3e-3)])
    series = scan(theta, given=given)
    image = Image(given[:, 0].reshape(300, 1, 1), series.image.grid)
    result = fit("noddi", series, noise=0.01, given={"ParallelDiffusivity": image})
    np.testing.assert_allclose(flat(result["ICVF"]), theta[:, 1], atol=5e-4)
    one = fit("noddi", series, noise=0.01, given={"ParallelDiffusivity": 2.1e-3})
    np.testing.assert_allclose(flat(one["ICVF"])[1::2], theta[1::2, 1], atol=5e-4)
    assert np.median(flat(one["ICVF"])[::2] - theta[::2, 1]) > 0.03
    assert np.median(flat(one["ODI"])[::2] - theta[::2, 2]) > 0.005
    assert one["ICVF"].history[-1].settings["ParallelDiffusivity"] == 2.1e-3
    assert result["ICVF"].history[-1].settings["ParallelDiffusivity"] == "map"


def test_b_values_may_vary_within_a_shell():
    b = PROTOCOL["BValue"] * np.where(PROTOCOL["BValue"] > 0, np.random.default_rng(2).uniform(0.98, 1.02, 67), 1)
    theta = truths(60, 17)
    result = fit_noddi(scan(theta, protocol=PROTOCOL.replace(BValue=b)), sigma=0.01)
    np.testing.assert_allclose(flat(result["ODI"]), theta[:, 2], atol=5e-4)


def test_maps_carry_units_shapes_and_history():
    result = fit_noddi(scan(truths(24, 18), 30, 18, shape=(2, 3, 4)))
    assert set(result.maps) == set(result.std) == {*NODDI.units, "V1"}
    assert set(result.bias) == {"S0", *FRACTIONS, "INVF"}
    assert result["V1"].data.shape == (2, 3, 4, 3)
    assert {n: result[n].unit for n in ("ICVF", "TiltRight")} == {"ICVF": "1", "TiltRight": "deg"}
    step = result["ODI"].history[-1]
    assert step.name == "fit_noddi"
    assert step.settings["distribution"] == "rician"
    assert "10.1016/j.neuroimage.2012.03.072" in step.references[0]
    assert result.measurements == 67
    np.testing.assert_allclose(flat(result["INVF"]), flat(result["ICVF"]) * (1 - flat(result["ISOVF"])), rtol=1e-5)
    whole = fit_noddi(
        Series(Image(np.round(scan(truths(4, 19), 30).data).astype(np.int16), Grid((4, 1, 1), np.eye(4))), PROTOCOL)
    )
    assert np.isfinite(whole["ICVF"].data).all()


def test_residuals_are_reported_in_the_unit_of_the_signal():
    result = fit_noddi(scan(truths(400, 20), 40, 20), sigma=S0 / 40)
    assert np.sqrt((flat(result.rmse) ** 2).mean()) == pytest.approx(S0 / 40 * np.sqrt(61 / 67), rel=0.03)


def test_single_shell_series_are_refused():
    series = scan(truths(3, 21))
    one = series.take(np.flatnonzero(PROTOCOL["BValue"] < 1000))
    with pytest.raises(NotIdentifiable, match="NODDI takes b = 0 and two shells"):
        fit_noddi(one)


def test_bias_of_normal_noise_is_that_of_box():
    """Against simulation: gaussian noise, low ratio, so that the second order is seen."""
    theta = np.tile([S0, 0.5, 0.2, 0.35, 5.0, 5.0], (6000, 1))
    measured = simulate(NODDI, theta, PROTOCOL, Gaussian(S0 / 15), 22)
    series = Series(Image(measured.reshape(6000, 1, 1, -1), Grid((6000, 1, 1), np.eye(4))), PROTOCOL)
    result = fit("noddi", series, noise=Gaussian(S0 / 15))
    for name, truth in (("ICVF", 0.5), ("ODI", 0.2)):
        raw, stated = flat(result[name]).mean() - truth, flat(result.bias[name]).mean()
        assert abs(raw - stated) < 0.35 * abs(raw) + 3 * flat(result[name]).std() / np.sqrt(6000)


def test_noise_bias_of_nothing_is_nothing():
    design = prepare(PROTOCOL, *np.array([1.7e-3, 3e-3]))
    state = state_of(truths(5, 23), 10.0)
    bias, signal = noise_bias(design, state, np.zeros((6, 6, 5)), magnitude=True)
    assert np.all(bias == 0)
    np.testing.assert_allclose(signal, expected(design, state))


def test_protocol_of_one_direction_set_for_all_shells_is_enough():
    q = PROTOCOL["Direction"][31:]
    b = np.r_[0, 0, np.full(36, 700.0), np.full(36, 2000.0)]
    protocol = Protocol({"BValue": b, "Direction": np.r_[np.zeros((2, 3)), q, q]})
    theta = truths(50, 24)
    result = fit_noddi(scan(theta, protocol=protocol), sigma=0.01)
    np.testing.assert_allclose(flat(result["ISOVF"]), theta[:, 3], atol=5e-4)
