import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm, t

from decay_model import DECAY, REFERENCE
from qcord.core.errors import ImplausibleValue, NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import Derived, SignalModel
from qcord.core.noise import Gaussian, Rician
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.intervals import intervals
from qcord.estimate.rician import misfit
from qcord.estimate.simulate import simulate

TIMES = np.arange(1, 7) * 5e-3
ECHOES = Protocol({"EchoTime": TIMES})
LINE = SignalModel(
    "line",
    (Parameter("Height", "1", (-1e6, 1e6), 1.0, "at no echo time"), Parameter("Slope", "1/s", (0.0, 1e6), 1.0, "rise")),
    ("EchoTime",),
    lambda theta, protocol, given: theta[..., :1] + theta[..., 1:2] * protocol["EchoTime"],
    REFERENCE,
    derived=(
        Derived("Sum", "1", lambda theta: theta[..., 0] + 0.01 * theta[..., 1]),
        Derived("Inverse", "s", lambda theta: 1 / theta[..., 1]),
    ),
)


def series_of(measured, protocol=ECHOES):
    shape = (len(measured), 1, 1)
    return Series(Image(np.asarray(measured).reshape(*shape, -1), Grid(shape, np.eye(4))), protocol)


def ends(found, name):
    return found.lower[name].data.ravel().astype(float), found.upper[name].data.ravel().astype(float)


def straight(measured, sigma):
    """Estimates (v, 2) and standard errors (2,) of a straight line."""
    design = np.stack([np.ones(6), TIMES], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    return measured @ design @ inverse, sigma * np.sqrt(np.diag(inverse))


def test_a_straight_line_has_the_intervals_of_linear_regression():
    measured = simulate(LINE, np.broadcast_to([5.0, 400.0], (50, 2)), ECHOES, Gaussian(0.3), seed=1)
    found = intervals(LINE, series_of(measured), noise=Gaussian(0.3), level=0.9)
    estimate, error = straight(measured, 0.3)
    for k, name in enumerate(("Height", "Slope")):
        lower, upper = ends(found, name)
        np.testing.assert_allclose((estimate[:, k] - lower) / error[k], norm.ppf(0.95), atol=0.02)
        np.testing.assert_allclose((upper - estimate[:, k]) / error[k], norm.ppf(0.95), atol=0.02)
    np.testing.assert_allclose(ends(found, "Inverse")[0], 1 / ends(found, "Slope")[1], rtol=1e-6)
    assert np.all(found.flag.data == Flag.OK)


def test_noise_from_residuals_widens_intervals_as_students_t_does():
    measured = simulate(LINE, np.broadcast_to([5.0, 400.0], (50, 2)), ECHOES, Gaussian(0.3), seed=2)
    lower, upper = ends(intervals(LINE, series_of(measured), metrics=["Slope"]), "Slope")
    estimate, unit = straight(measured, 1.0)
    residual = measured - estimate[:, :1] - estimate[:, 1:] * TIMES
    error = unit[1] * np.sqrt((residual**2).sum(axis=1) / 4)
    np.testing.assert_allclose((upper - lower) / 2 / error, t.ppf(0.975, 4), rtol=0.01)


def deviance(measured, height, rate):
    return 2 * misfit(measured / 25, height * np.exp(-rate * TIMES) / 25).sum()


def profile(measured, rate):
    return minimize(lambda x: deviance(measured, x[0], rate), [600.0], method="Nelder-Mead").fun


def test_an_exponential_meets_a_profile_by_another_optimiser():
    measured = simulate(DECAY, np.broadcast_to([600.0, 60.0], (4, 2)), ECHOES, Rician(25.0), seed=3)
    found = intervals(DECAY, series_of(measured), noise=Rician(25.0), metrics=["R2star"])
    for one, *both in zip(measured, *ends(found, "R2star"), strict=True):
        best = minimize(lambda x, m: deviance(m, *x), [600.0, 60.0], (one,), method="Nelder-Mead", tol=1e-9).fun
        roots = np.sqrt([profile(one, end) - best for end in both])
        # the mean of the signed root is taken off: one end is as much farther as the other is nearer
        assert roots.mean() == pytest.approx(1.96, abs=0.05)
        assert abs(roots[0] - roots[1]) / 2 < 0.3


@pytest.mark.parametrize(("slope", "twice_the_error"), [(0.0, 0.975), (10.0, 0.975), (40.0, 0.95)])
def test_intervals_cover_near_a_bound_where_twice_the_error_covers_too_often(slope, twice_the_error):
    truth = [5.0, slope]
    measured = simulate(LINE, np.broadcast_to(truth, (3000, 2)), ECHOES, Gaussian(0.3), seed=4)
    lower, upper = ends(intervals(LINE, series_of(measured), noise=Gaussian(0.3), metrics=["Slope"]), "Slope")
    assert np.all(lower >= 0)
    assert ((lower <= slope) & (upper >= slope)).mean() == pytest.approx(0.95, abs=0.015)
    estimate, error = straight(measured, 0.3)
    clipped = np.maximum(estimate[:, 1], 0.0)
    assert (np.abs(clipped - slope) <= 1.96 * error[1]).mean() == pytest.approx(twice_the_error, abs=0.01)


def test_an_end_that_nothing_rules_out_is_that_of_the_range():
    measured = simulate(LINE, np.broadcast_to([5.0, 2.0], (20, 2)), ECHOES, Gaussian(0.3), seed=5)
    lower, upper = ends(intervals(LINE, series_of(measured), noise=Gaussian(0.3), metrics=["Slope"]), "Slope")
    assert (lower == 0).mean() > 0.8
    assert np.all(upper > lower)


def test_voxels_without_a_value_have_no_interval_and_say_why():
    measured = simulate(DECAY, np.broadcast_to([600.0, 30.0], (4, 2)), ECHOES)
    measured[1, 2], measured[2] = np.nan, 0.0
    series = series_of(measured)
    mask = series.image.derive(np.array([1, 1, 1, 0]).reshape(4, 1, 1), unit="label")
    found = intervals(DECAY, series, mask, noise=Gaussian(5.0))
    assert found.flag.data.ravel().tolist() == [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.OUTSIDE]
    for name in ("S0", "R2star"):
        assert np.isfinite(np.stack(ends(found, name))).all(axis=0).tolist() == [True, False, False, False]


def test_without_noise_and_residuals_there_is_no_interval():
    protocol = Protocol({"EchoTime": TIMES[:2]})
    measured = simulate(DECAY, np.broadcast_to([600.0, 30.0], (3, 2)), protocol, Gaussian(5.0), seed=6)
    found = intervals(DECAY, series_of(measured, protocol))
    assert np.all(found.flag.data == Flag.NO_ERROR)
    assert np.isnan(found.lower["R2star"].data).all()
    known = intervals(DECAY, series_of(measured, protocol), noise=Gaussian(5.0))
    assert np.isfinite(known.lower["R2star"].data).all()


def test_a_held_parameter_narrows_the_interval_of_the_other_and_has_none():
    measured = simulate(DECAY, np.broadcast_to([600.0, 30.0], (30, 2)), ECHOES, Gaussian(20.0), seed=7)
    series = series_of(measured)
    both = intervals(DECAY, series, noise=Gaussian(20.0))
    held = intervals(DECAY, series, noise=Gaussian(20.0), fixed={"S0": 600.0})
    assert set(held.lower) == {"R2star"}
    widths = [np.subtract(*ends(x, "R2star")[::-1]) for x in (held, both)]
    assert np.all(widths[0] < 0.9 * widths[1])


def test_a_higher_level_is_wider_and_threads_change_nothing():
    measured = simulate(DECAY, np.broadcast_to([600.0, 30.0], (3000, 2)), ECHOES, Gaussian(20.0), seed=8)
    series = series_of(measured)
    one, two = (intervals(DECAY, series, noise=Gaussian(20.0), metrics=["R2star"], n_jobs=n) for n in (1, 2))
    for end in ("lower", "upper"):
        np.testing.assert_array_equal(getattr(one, end)["R2star"].data, getattr(two, end)["R2star"].data)
    narrow = intervals(DECAY, series, noise=Gaussian(20.0), metrics=["R2star"], level=0.68)
    assert np.all(narrow.lower["R2star"].data > one.lower["R2star"].data)
    assert np.all(narrow.upper["R2star"].data < one.upper["R2star"].data)
    covered = (narrow.lower["R2star"].data <= 30) & (narrow.upper["R2star"].data >= 30)
    assert covered.mean() == pytest.approx(0.68, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"level": 95}, ImplausibleValue, "expected a chance between 0 and 1"),
        ({"metrics": ["T2"]}, UnknownName, "no value 'T2'"),
        ({"fixed": {"S0": 1.0}, "metrics": ["S0"]}, UnknownName, "leave it out"),
        ({"fixed": {"T2": 1.0}}, UnknownName, "T2"),
        ({"given": {"B1": 1.0}}, UnknownName, "B1"),
    ],
)
def test_wrong_questions_are_refused_in_a_sentence(settings, error, words):
    with pytest.raises(error, match=words):
        intervals(DECAY, series_of(np.ones((1, 6))), **settings)


def test_too_few_measurements_are_refused():
    protocol = Protocol({"EchoTime": TIMES[:1]})
    with pytest.raises(NotIdentifiable):
        intervals(DECAY, series_of(np.ones((1, 1)), protocol))
