"""Errors of given maps in the errors of what is computed with them, against simulated truth."""

import numpy as np
import pytest

from decay_model import DECAY
from qcord.atlas.extract import extract
from qcord.atlas.project import Atlas
from qcord.core.errors import GridMismatch, ImplausibleValue, UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.labels import CSF, TRACTS
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.models.registry import get

SMALL = Grid((4, 5, 3), np.diag([1.0, 1.0, 5.0, 1]))


def scan(name, grid, b1, values=None, noise=None, seed=0, protocol=None):
    """One tissue with transmit field ``b1``, and its parameters."""
    model = get(name)
    protocol = protocol or model.example()
    theta = model.theta(values or model.typical[0].values)
    given = np.broadcast_to(np.asarray(b1, dtype=float), grid.shape)[..., None]
    signal = simulate(model, np.broadcast_to(theta, (*grid.shape, theta.size)), protocol, given=given)
    if noise is not None:
        signal = noise.sample(signal, np.random.default_rng(seed))
    return Series(Image(signal, grid), protocol), theta


def arrays_of(result):
    groups = {"map": result.maps, "std": result.std, "bias": result.bias, "noise": result.noise_std}
    groups |= {f"shift {name}": maps for name, maps in result.shifts.items()}
    found = {(group, name): image for group, maps in groups.items() for name, image in maps.items()}
    return found | {("", k): getattr(result, k) for k in ("rmse", "flag", "criterion")}


def test_t1_of_small_flip_angles_goes_with_the_inverse_square_of_the_field():
    small = Protocol({"FlipAngle": [1.0, 3.0, 5.0], "RepetitionTimeExcitation": [0.02, 0.02, 0.02]})
    series, _ = scan("vfa", SMALL, 0.9, {"M0": 1000.0, "R1": 1.0}, protocol=small)
    b1 = Image(np.full(SMALL.shape, 0.9), SMALL)
    for method in ("projection", "nonlinear"):
        result = fit("vfa", series, noise=0.01, given={"B1": b1}, given_std={"B1": 0.018}, method=method)
        ratio = result.shifts["B1"]["T1"].data / result["T1"].data
        np.testing.assert_allclose(ratio, -2 * 0.018 / 0.9, rtol=3e-3)
        np.testing.assert_allclose(result.shifts["B1"]["R1"].data / result["R1"].data, 2 * 0.018 / 0.9, rtol=3e-3)
        total = np.hypot(result.noise_std["T1"].data, result.shifts["B1"]["T1"].data)
        np.testing.assert_allclose(result.std["T1"].data, total, rtol=1e-6)
        assert result["T1"].history[-1].settings["given_std"] == ["B1"]


def test_saturation_goes_with_its_law_of_the_field():
    """MTsat is computed from an apparent one by Helms' law c / (B1^2 (1 - d B1)) with T1 corrected alike."""
    values = {"A": 1000.0, "R1": 1.0, "MTsat": 3.0}
    series, _ = scan("mtsat", SMALL, 1.0, values)
    result = fit("mtsat", series, noise=0.1, given={"B1": 1.0}, given_std={"B1": 0.01})
    apparent = {b1: fit("mtsat", series, noise=0.1, given={"B1": b1})["MTsat"].data for b1 in (0.999, 1.001)}
    slope = (apparent[1.001] - apparent[0.999]) / 0.002
    np.testing.assert_allclose(result.shifts["B1"]["MTsat"].data, 0.01 * slope, rtol=5e-3)
    np.testing.assert_allclose(result.shifts["B1"]["T1"].data / result["T1"].data, -0.02, rtol=1e-3)
    np.testing.assert_allclose(result.shifts["B1"]["A"].data / result["A"].data, -0.01, rtol=1e-3)


def test_what_is_not_touched_by_the_field_has_no_shift():
    series, _ = scan("mpm", SMALL, 1.0, noise=Rician(2.0))
    result = fit("mpm", series, noise=2.0, given_std={"B1": 0.05})  # of the default: a field that was not measured
    np.testing.assert_array_equal(result.shifts["B1"]["R2star"].data, 0)
    np.testing.assert_array_equal(result.std["R2star"].data, result.noise_std["R2star"].data)
    assert np.all(result.std["R1"].data > 0.1 * result["R1"].data * 0.95)
    assert "apparent" in result["R1"].history[-1].settings["B1"]


def test_errors_of_several_given_parameters_add_up_as_squares():
    series, _ = scan_of_inversions()
    errors = {"B1": 0.05, "InversionEfficiency": 0.02}
    given = {"B1": 1.0, "InversionEfficiency": 0.96}
    both = fit("mp2rage", series, noise=1.0, given=given, given_std=errors)
    single = {name: fit("mp2rage", series, noise=1.0, given=given, given_std={name: errors[name]}) for name in errors}
    for name, alone in single.items():
        np.testing.assert_array_equal(both.shifts[name]["T1"].data, alone.shifts[name]["T1"].data)
        assert np.all(np.abs(alone.shifts[name]["T1"].data) > 1e-4)
    square = sum(np.square(m.data, dtype=float) for m in (both.noise_std["T1"], *both.shifts_of("T1")))
    np.testing.assert_allclose(both.std["T1"].data, np.sqrt(square), rtol=1e-6)


def scan_of_inversions():
    model = get("mp2rage")
    theta = model.theta(model.typical[0].values)
    signal = simulate(model, np.broadcast_to(theta, (*SMALL.shape, theta.size)), model.example())
    return Series(Image(signal, SMALL), model.example()), theta


def test_without_errors_of_what_is_given_nothing_changes():
    series, _ = scan("vfa", SMALL, 1.1, noise=Rician(2.0))
    given = {"B1": 1.1}
    plain, empty = fit("vfa", series, noise=2.0, given=given), fit("vfa", series, noise=2.0, given=given, given_std={})
    assert not plain.shifts
    assert not plain.noise_std
    for key, image in arrays_of(plain).items():
        assert image.data.tobytes() == arrays_of(empty)[key].data.tobytes(), key
        assert image.history == arrays_of(empty)[key].history
    carried = fit("vfa", series, noise=2.0, given=given, given_std={"B1": 0.02})
    for name in plain.maps:
        assert plain[name].data.tobytes() == carried[name].data.tobytes()
        assert plain.bias[name].data.tobytes() == carried.bias[name].data.tobytes()
        assert plain.std[name].data.tobytes() == carried.noise_std[name].data.tobytes()


@pytest.mark.parametrize("method", ["projection", "nonlinear"])
def test_threads_do_not_matter(method):
    grid = Grid((20, 17, 9), np.eye(4))
    series, _ = scan("vfa", grid, 1.0, noise=Rician(3.0))
    one, two = (
        arrays_of(fit("vfa", series, noise=3.0, given_std={"B1": 0.02}, method=method, n_jobs=n)) for n in (1, 3)
    )
    for key, image in one.items():
        assert image.data.tobytes() == two[key].data.tobytes(), key


def test_where_one_side_has_no_value_the_other_stands_in_and_without_both_there_is_no_error():
    series, _ = scan("vfa", SMALL, 1.0, {"M0": 1000.0, "R1": 1.0})
    b1, std = np.ones(SMALL.shape), np.full(SMALL.shape, 0.01)
    std[0, 0, 0] = 0.95  # the lower side is below the bound of the field, .1
    std[1, 0, 0] = 5.0  # so are both
    std[2, 0, 0] = np.nan
    std[3, 0, 0] = 0.0
    b1[3, 1, 0] = np.nan
    given, errors = {"B1": Image(b1, SMALL)}, {"B1": Image(std, SMALL)}
    plain = fit("vfa", series, noise=1.0, given=given)
    result = fit("vfa", series, noise=1.0, given=given, given_std=errors)
    np.testing.assert_array_equal(result["T1"].data, plain["T1"].data)
    upper = fit("vfa", series, noise=1.0, given={"B1": 1.95})["T1"].data[0, 0, 0] - plain["T1"].data[0, 0, 0]
    shift = result.shifts["B1"]["T1"].data
    assert shift[0, 0, 0] == pytest.approx(upper, rel=1e-5)
    assert np.isnan(shift[1:3, 0, 0]).all()
    assert np.isnan(result.std["T1"].data[1:3, 0, 0]).all()
    assert (result.flag.data[1:3, 0, 0] == Flag.NO_ERROR).all()
    assert shift[3, 0, 0] == 0
    assert result.std["T1"].data[3, 0, 0] == plain.std["T1"].data[3, 0, 0]
    assert np.isnan(result["T1"].data[3, 1, 0])
    assert result.flag.data[3, 1, 0] == plain.flag.data[3, 1, 0] != Flag.NO_ERROR
    others = np.ones(SMALL.shape, dtype=bool)
    others[:, 0, 0] = others[3, 1, 0] = False
    assert (result.flag.data[others] == Flag.OK).all()


def test_a_shifted_fit_at_a_bound_does_not_halve_the_error():
    """R1 is held at its lower bound on one side, where its map no longer follows the field."""
    low = get("vfa").free[1].bounds[0]
    series, _ = scan("vfa", SMALL, 1.0, {"M0": 1000.0, "R1": 1.1 * low})
    result = fit("vfa", series, noise=1e-3, given={"B1": 1.0}, given_std={"B1": 0.1})
    held = fit("vfa", series, noise=1e-3, given={"B1": 0.9})
    assert (held.flag.data == Flag.AT_BOUND).all()
    upper = fit("vfa", series, noise=1e-3, given={"B1": 1.1})["R1"].data - result["R1"].data
    np.testing.assert_allclose(result.shifts["B1"]["R1"].data, upper, rtol=1e-5)


def test_mistakes_are_named():
    series, _ = scan("vfa", SMALL, 1.0)
    with pytest.raises(UnknownName, match="no given parameter 'B0'"):
        fit("vfa", series, given_std={"B0": 1.0})
    with pytest.raises(ImplausibleValue, match=r"standard error of B1 is negative \(-0.1\)"):
        fit("vfa", series, given_std={"B1": -0.1})
    other = Grid((4, 5, 3), np.diag([2.0, 1.0, 5.0, 1]))
    with pytest.raises(GridMismatch, match="B1 error"):
        fit("vfa", series, given_std={"B1": Image(np.ones(SMALL.shape), other)})
    with pytest.raises(UnknownName, match="no given parameter 'B1'"):
        fit(DECAY, series, given_std={"B1": 0.1})


@pytest.mark.parametrize(("name", "metric", "error"), [("vfa", "T1", 0.03), ("mtsat", "MTsat", 0.05)])
def test_intervals_cover_the_truth_of_voxels_and_regions(name, metric, error):
    """Each slice is a subject whose field was measured with one error for all of its voxels."""
    subjects, names = 500, (TRACTS[0], TRACTS[4], CSF)
    generator = np.random.default_rng(11)
    grid = Grid((10, 6, subjects), np.diag([1.0, 1.0, 5.0, 1]))
    x, y, _ = np.indices(grid.shape)
    b1 = 0.95 + 0.01 * (x - 5) - 0.006 * (y - 3)
    values = {"M0": 1000.0, "R1": 1.1} if name == "vfa" else {"A": 1000.0, "R1": 1.1, "MTsat": 3.0}
    level = 1.5 if name == "vfa" else 0.3
    series, theta = scan(name, grid, b1, values, Rician(level), seed=5)
    measured = {"B1": Image(b1 + error * generator.standard_normal(subjects), grid)}
    method = "half-tangent" if name == "mtsat" else None
    found = fit(name, series, noise=level, given=measured, given_std={"B1": error}, method=method)
    truth = 1 / theta[1] if metric == "T1" else theta[2]
    value = found[metric].derive(found[metric].data - found.bias[metric].data)

    def covered(std):
        return np.mean(np.abs(value.data - truth) < 1.96 * std.data)

    assert 0.92 < covered(found.std[metric]) < 0.97
    assert covered(found.noise_std[metric]) < 0.9

    index = np.stack(np.unravel_index(np.arange(10 * 6 * subjects), grid.shape), -1)
    weights = generator.dirichlet([0.4] * len(names), len(index))
    atlas = Atlas(grid, index, weights, names, ("",) * subjects)
    where = {"by": ["slice"], "estimators": ["wa", "map"], "regions": ["white matter"], "least_cord": 0}
    with_shift = extract(value, atlas, std=found.noise_std[metric], shifts=found.shifts_of(metric), **where)
    without = extract(value, atlas, std=found.noise_std[metric], **where)
    diluted = extract(value, atlas, std=found.std[metric], **where)  # as if the shared part were noise
    for estimator in ("wa", "map"):
        share = {}
        for kind, table in (("with", with_shift), ("without", without), ("diluted", diluted)):
            rows = table[table["estimator"] == estimator]
            share[kind] = np.mean((rows["ci_low"] <= truth) & (truth <= rows["ci_high"]))
        assert 0.92 < share["with"] < 0.97
        assert share["without"] < 0.6
        assert share["diluted"] < 0.8
    np.testing.assert_array_equal(with_shift["se_noise"], without["se_noise"])
