import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.maps import spherical_mean
from qcord.maps.neurite_errors import intervals, is_wide, reach, signal_and_slopes
from qcord.maps.spherical_mean import fit_spherical_mean
from qcord.maps.spherical_mean_errors import OPEN, curve
from qcord.models.spherical_mean import SMT_MC

NOTHING = np.empty(0)
B = np.array([0.0, 700.0, 1500.0, 2400.0])


def shells(b):
    return Protocol({"BValue": np.array(b), "Volumes": np.ones(len(b), dtype=int)})


def drawn(theta, protocol, sigma, n=2000, seed=3):
    clean = np.broadcast_to(SMT_MC.signal(theta, protocol, NOTHING), (n, 1, 1, len(protocol)))
    noisy = clean + sigma * np.random.default_rng(seed).normal(size=clean.shape)
    return Series(Image(noisy, Grid((n, 1, 1), np.eye(4))), protocol)


def fitted(series, sigma, **more):
    return fit_spherical_mean(series, model="smt-mc", sigma=sigma, **more)


def flat(image):
    return np.asarray(image.data, dtype=float).reshape(-1)


def truth_of(theta):
    values = dict(zip((p.name for p in SMT_MC.free), theta, strict=True))
    return values | {d.name: float(d.formula(theta)) for d in SMT_MC.derived}


def test_signal_and_slopes_are_those_of_the_model():
    fraction, along = np.array([[0.0, 0.3, 0.6, 1.0, 0.999]]), np.array([[1.0e-3, 2.5e-3, 1.7e-3, 2e-3, 4e-3]])
    theta = np.stack([np.ones(5), fraction[0], along[0]], axis=1).astype(complex)
    signal, by_along, by_fraction = signal_and_slopes(B[:, None, None], along, fraction)
    np.testing.assert_allclose(signal[:, 0].T, SMT_MC.signal(theta, shells(B), NOTHING).real, rtol=1e-10)
    for column, slope in ((2, by_along), (1, by_fraction)):
        moved = theta.copy()
        moved[:, column] += 1e-20j
        expected = SMT_MC.signal(moved, shells(B), NOTHING).imag / 1e-20
        np.testing.assert_allclose(slope[:, 0].T, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_intervals_are_the_values_within_the_likelihood_ratio():
    """Against a general optimiser that takes each value to its ends; the curve has the others as normal numbers."""
    sigma = 0.02
    measured = SMT_MC.signal(np.array([1.0, 0.55, 1.8e-3]), shells(B), NOTHING) + sigma * np.array([0.5, -1, 0.3, 0.6])
    nodes = np.linspace(0, 1, 80)[:, None]
    weights = np.full((4, 1), sigma**-2.0)
    start = np.full((80, 1), 1.8e-3)
    path = curve(measured[:, None], weights, B, nodes, start, rounds=8, signal_of=signal_and_slopes)
    found = intervals(path, path.misfit.min(axis=0))

    def misfit(x):
        theta = np.array([x[0], x[1], x[2] * 1e-3])
        return (((SMT_MC.signal(theta, shells(B), NOTHING) - measured) / sigma) ** 2).sum()

    best = minimize(misfit, [1.0, 0.5, 1.5], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    within = {"type": "ineq", "fun": lambda x: 1.959963984540054**2 - (misfit(x) - best.fun)}
    limits = [(0.5, 1.5), (0.0, 1.0), (0.1, 5.0)]
    values = {
        "S0": lambda x: x[0],
        "NeuriteFraction": lambda x: x[1],
        "NeuriteDiffusivity": lambda x: x[2] * 1e-3,
        "ExtraRD": lambda x: (1 - x[1]) * x[2] * 1e-3,
    }

    def end(value, sign):
        size = sign / value(best.x)
        found = minimize(
            lambda x: size * value(x), best.x, bounds=limits, constraints=within, method="SLSQP", options={"ftol": 1e-9}
        )
        return value(found.x)

    for name, value in values.items():
        ends = [end(value, sign) for sign in (1, -1)]
        np.testing.assert_allclose([e[0] for e in found[name]], ends, atol=0.03 * np.ptp(ends))


@given(st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_reach_lies_between_that_of_normal_halves_and_the_farther_end(below, above):
    far = max(below, above)
    found = float(reach(np.array(below), np.array(above)))
    assert 0.5 * (1 + 1.6448536 / 1.9599640) * far * (1 - 1e-6) <= found <= far * (1 + 1e-9)
    assert found == float(reach(np.array(above), np.array(below)))
    assert float(reach(np.array(far), np.array(far))) == pytest.approx(far, rel=1e-9)


def test_the_expansion_stays_where_it_is_small_and_both_ends_are_far():
    fraction = np.array([0.5, 0.5, 0.9, 0.9, 0.1, 1.0, np.nan])
    std = np.array([0.09, 0.11, 0.02, 0.03, 0.03, np.nan, np.nan])
    assert is_wide(fraction, std).tolist() == [False, True, False, True, True, True, False]


@pytest.mark.parametrize(
    ("fraction", "along", "spread"), [(0.35, 1.2e-3, 0.2), (0.5, 2.3e-3, 0.25), (0.6, 1.7e-3, 0.25), (0.8, 2e-3, 0.1)]
)
@pytest.mark.parametrize("b", [(0.0, 800.0, 2500.0), (0.0, 600.0, 1100.0, 2000.0)])
def test_intervals_cover_where_the_likelihood_is_far_from_normal(fraction, along, spread, b):
    """Averages whose noise makes the bound of NeuriteFraction ``spread``: no interval has 95 % by the expansion."""
    theta = np.array([1.0, fraction, along])
    bound = np.sqrt(crlb(SMT_MC, theta, shells(b), Gaussian(0.01))[1, 1])
    sigma = 0.01 * spread / bound
    result = fitted(drawn(theta, shells(b), sigma), sigma)
    for name, truth in truth_of(theta).items():
        middle, std = flat(result[name]) - flat(result.bias[name]), flat(result.std[name])
        assert 0.91 < np.mean(np.abs(middle - truth) <= 1.96 * std) < 0.985
        assert np.all(std > 0)
        assert abs(middle.mean() - truth) < 0.5 * np.median(std)


@pytest.mark.parametrize("theta", [(1.0, 0.92, 1e-3), (1.0, 0.1, 2.2e-3)])
def test_no_end_of_the_range_is_missed_where_the_averages_leave_it_open(theta):
    result = fitted(drawn(np.array(theta), shells((0.0, 700.0, 2000.0)), 0.05), 0.05)
    middle, std = (flat(m) for m in (result["NeuriteFraction"], result.std["NeuriteFraction"]))
    middle = middle - flat(result.bias["NeuriteFraction"])
    assert np.mean(np.abs(middle - theta[1]) <= 1.96 * std) > 0.94
    at_end = np.isin(flat(result["NeuriteFraction"]), [0, 1])
    assert at_end.any()
    assert np.isfinite(std[at_end]).all()
    assert std.max() <= 1
    held = np.minimum(middle + 1.96 * std, 1) - np.maximum(middle - 1.96 * std, 0)
    clear = np.abs(held - OPEN) > 1e-3
    np.testing.assert_array_equal((flat(result.flag) == Flag.UNDETERMINED)[clear], (held > OPEN)[clear])


def test_the_profile_meets_the_expansion_where_noise_is_small(monkeypatch):
    sigma = 0.002
    series = drawn(np.array([1.0, 0.5, 1.8e-3]), shells(B), sigma, n=300)
    expanded = fitted(series, sigma)
    monkeypatch.setattr(spherical_mean, "is_wide", lambda fraction, std: np.isfinite(fraction))
    profiled = fitted(series, sigma)
    for name in SMT_MC.units:
        assert np.any(flat(profiled.std[name]) != flat(expanded.std[name]))
        np.testing.assert_allclose(flat(profiled.std[name]), flat(expanded.std[name]), rtol=0.06)
        np.testing.assert_allclose(flat(profiled.bias[name]), flat(expanded.bias[name]), rtol=1e-5)


def test_errors_do_not_depend_on_threads_or_the_mask():
    series = drawn(np.array([1.0, 0.6, 1.9e-3]), shells(B), 0.03, n=1500)
    one, two = (fitted(series, 0.03, n_jobs=jobs) for jobs in (1, 2))
    mask = Image((np.arange(1500) % 3 > 0).astype(float).reshape(1500, 1, 1), series.image.grid)
    part = fit_spherical_mean(series, mask, model="smt-mc", sigma=0.03)
    inside = mask.data > 0
    for name in SMT_MC.units:
        np.testing.assert_array_equal(one.std[name].data, two.std[name].data)
        np.testing.assert_allclose(part.std[name].data[inside], one.std[name].data[inside], rtol=1e-3)
        assert np.isnan(part.std[name].data[~inside]).all()
