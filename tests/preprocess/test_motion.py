"""Motion correction: known displacements, rest, contrasts, hostile inputs, real scans."""

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from painted_scans import PIXEL, diffusion, image_of, protocol_of, rician, scan, transfer
from qcord.core.errors import EmptyRegion, GridMismatch, ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.preprocess.motion import apply_shifts, correct_motion
from qcord.preprocess.scene import kinds_of
from qcord.preprocess.translate import translate_slices

SHAPE = (44, 32, 8)


def breathing(n, slices, seed=0, size=(0.3, 1.0)):
    """Displacement (n, z, 2) [mm]: smooth along the cord, irregular in time, with a slow drift."""
    generator = np.random.default_rng(seed)
    phase = 2 * np.pi * np.cumsum(0.3 + 0.5 * generator.random(n))
    height = np.arange(slices) * 5.0
    profile = 0.3 + 0.7 * np.exp(-(((height - height.max() / 3) / 35) ** 2))
    time = np.linspace(-1, 1, n)
    wave = np.sin(phase)[:, None] * profile
    return np.stack([s * wave + 0.5 * s * (time**2 + 0.5 * time)[:, None] for s in size], axis=-1)


def moved_like(true, stays=None):
    """Displacements of a painted object that moves as a whole, canal and muscle too."""
    still = diffusion(SHAPE, seed=3)
    data = translate_slices(still.series.data, true.transpose(1, 0, 2) / PIXEL)
    return np.nan_to_num(data), still.series.protocol


def found(result, n, slices):
    table = result.shifts
    return table[["x", "y"]].to_numpy().reshape(n, slices, 2), table[["x_se", "y_se"]].to_numpy().reshape(n, slices, 2)


@pytest.fixture(scope="module")
def moving():
    true = breathing(35, SHAPE[2])
    data, protocol = moved_like(true)
    return true, data, protocol


@pytest.mark.parametrize(("snr", "limit"), [(20, 0.12), (10, 0.15)])
def test_known_motion_is_found_to_a_tenth_of_a_voxel(moving, snr, limit):
    true, data, protocol = moving
    series = Series(image_of(rician(data, 1 / snr, 1)), protocol)
    result = correct_motion(series)
    measured, error = found(result, 35, SHAPE[2])
    weighted = protocol["BValue"] > 0
    true = true - true[weighted].mean(axis=0)
    wrong = (measured - true)[weighted]
    before = np.sqrt((true[weighted] ** 2).mean(axis=(0, 1)))
    assert (np.sqrt((wrong**2).mean(axis=(0, 1))) < limit * PIXEL).all()
    assert (np.sqrt((wrong**2).mean(axis=(0, 1))) < 0.5 * before).all()
    assert 0.6 < np.sqrt((wrong**2 / error[weighted] ** 2).mean()) < 2.2
    assert result.quality["variation_after"] < result.quality["variation_before"]


def test_volumes_without_weighting_follow_the_others(moving):
    true, data, protocol = moving
    result = correct_motion(Series(image_of(rician(data, 0.05, 1)), protocol))
    measured, _ = found(result, 35, SHAPE[2])
    weighted = protocol["BValue"] > 0
    wrong = (measured - true + true[weighted].mean(axis=0))[~weighted]
    assert np.sqrt((wrong**2).mean()) < 0.25 * PIXEL


def test_large_motion_is_within_reach():
    true = breathing(35, SHAPE[2], seed=2, size=(1.5, 2.5))
    data, protocol = moved_like(true)
    measured, _ = found(correct_motion(Series(image_of(rician(data, 0.05, 1)), protocol)), 35, SHAPE[2])
    weighted = protocol["BValue"] > 0
    wrong = (measured - true + true[weighted].mean(axis=0))[weighted]
    assert np.abs(true).max() > 2.5
    assert np.sqrt((wrong**2).mean()) < 0.2 * PIXEL


def test_a_still_object_is_left_untouched():
    still, _ = moved_like(np.zeros((35, SHAPE[2], 2)))
    plain = still.mean(axis=-1, keepdims=True) * np.ones(35)
    series = Series(image_of(rician(plain, 0.05, 1).astype(np.float32)), Protocol({"BValue": np.full(35, 800.0)}))
    result = correct_motion(series)
    assert result.quality["moved_slices"] < 0.06
    assert result.quality["motion_max"] < 0.1 * PIXEL
    same = (result.series.data == series.data).all(axis=(0, 1))
    assert same.mean() == pytest.approx(1 - result.quality["moved_slices"])


def test_a_still_person_with_aslant_fibres_and_pulsating_fluid_hardly_moves():
    painted = diffusion(SHAPE, seed=4, pulsation=0.2)
    series = Series(image_of(rician(painted.series.data, 0.1, 1).astype(np.float32)), painted.series.protocol)
    result = correct_motion(series)
    assert np.hypot(result.quality["motion_x"], result.quality["motion_y"]) < 0.15 * PIXEL
    assert result.quality["variation_after"] < 1.001 * result.quality["variation_before"]


def test_pulsating_fluid_does_not_pass_for_motion_of_b0():
    painted = diffusion(SHAPE, seed=4, pulsation=0.4)
    series = Series(image_of(rician(painted.series.data, 0.05, 1)), painted.series.protocol)
    measured, _ = found(correct_motion(series), 35, SHAPE[2])
    assert np.abs(measured[painted.series.protocol["BValue"] == 0]).max() < 0.15


def test_correction_brings_the_volumes_together(moving):
    true, data, protocol = moving
    result = correct_motion(Series(image_of(data), protocol))
    still = diffusion(SHAPE, seed=3).series.data
    weighted = protocol["BValue"] > 0
    middle = np.s_[12:32, 10:22]
    before = (data - still)[middle][..., weighted]
    centre = np.nan_to_num(
        translate_slices(still, np.broadcast_to(true[weighted].mean(axis=0)[:, None], (8, 35, 2)) / PIXEL)
    )
    after = (result.series.data - centre)[middle][..., weighted]
    assert np.nanstd(after) < 0.4 * before.std()


def test_voxels_from_outside_the_field_are_nan_not_zero():
    true = np.zeros((35, SHAPE[2], 2))
    true[10] = [2.7, 0]
    data, protocol = moved_like(true)
    result = correct_motion(Series(image_of(data + 5), protocol))
    volume = result.series.data[..., 10]
    assert np.isnan(volume[-2:]).all()
    assert np.isfinite(volume[:-5]).all()
    assert not (result.series.data == 0).any()


def test_contrasts_that_invert_are_tied_to_each_other():
    shift = np.zeros((3, 5, 2))
    shift[0] = [0.9, -0.45]
    shift[2] = [-0.45, 1.35]
    noisy, _, _ = scan(transfer((96, 96, 5), shift=shift), 0.03, seed=1)
    protocol = Protocol({"MTState": np.array([False, True, False]), "FlipAngle": np.array([9.0, 9.0, 15.0])})
    result = correct_motion(Series(image_of(noisy), protocol))
    measured, _ = found(result, 3, 5)
    assert (measured[1] == 0).all()
    assert np.abs(measured[0] - shift[0]).max() < 0.1 * PIXEL
    assert np.abs(measured[2] - shift[2]).max() < 0.1 * PIXEL
    assert np.array_equal(result.series.data[..., 1], noisy[..., 1].astype(np.float32))


def test_still_contrasts_stay_still():
    noisy, _, _ = scan(transfer((96, 96, 5)), 0.03, seed=1)
    protocol = Protocol({"MTState": np.array([False, True, False])})
    result = correct_motion(Series(image_of(noisy), protocol))
    assert result.quality["moved_slices"] == 0
    assert np.isnan(result.quality["variation_before"])


def test_reference_volume_stays_in_place(moving):
    true, data, protocol = moving
    result = correct_motion(Series(image_of(data), protocol), reference=7)
    measured, _ = found(result, 35, SHAPE[2])
    assert (measured[7] == 0).all()
    assert np.sqrt(((measured - true + true[7])[protocol["BValue"] > 0] ** 2).mean()) < 0.2 * PIXEL


def test_weight_decides_what_is_followed():
    painted = diffusion(SHAPE, seed=5, shift=breathing(35, SHAPE[2]))
    true = breathing(35, SHAPE[2])
    series = Series(image_of(rician(painted.series.data, 0.05, 1)), painted.series.protocol)
    weighted = painted.series.protocol["BValue"] > 0
    true = true - true[weighted].mean(axis=0)
    measured, _ = found(correct_motion(series, weight=image_of(painted.cord)), 35, SHAPE[2])
    assert np.sqrt(((measured - true)[weighted] ** 2).mean()) < 0.25 * PIXEL


def test_shifts_apply_to_other_data_of_the_same_volumes(moving):
    _, data, protocol = moving
    series = Series(image_of(data), protocol)
    result = correct_motion(series)
    again = apply_shifts(series, result.shifts.sample(frac=1, random_state=1))
    assert np.array_equal(again.data, result.series.data, equal_nan=True)
    with pytest.raises(GridMismatch, match=r"280 rows, expected 24"):
        apply_shifts(series.take([0, 1, 2]), result.shifts)


def test_kinds_of_volumes():
    b = np.array([0, 748, 752, 5, 1500, 745, 1505, 0, 755])
    series = Series(image_of(np.ones((5, 6, 2, 9))), Protocol({"BValue": b}))
    kinds, anchor = kinds_of(series, None)
    assert [list(k) for k in kinds] == [[1, 2, 5, 8], [0, 3, 7], [4, 6]]
    assert anchor is None
    images = Series(image_of(np.ones((5, 6, 2, 3))), Protocol({"MTState": np.array([False, False, True])}))
    kinds, anchor = kinds_of(images, None)
    assert anchor == 2
    assert list(kinds[0]) == [2]


def test_kinds_are_told_apart_by_the_shape_of_encoding():
    columns = {"BValue": [0, 700.0, 700, 700, 700], "BDelta": [1.0, 0, 1, 1, -0.5], "Direction": np.eye(3)[[0] * 5]}
    kinds, _ = kinds_of(Series(image_of(np.ones((5, 6, 2, 5))), Protocol(columns)), None)
    assert [list(k) for k in kinds] == [[2, 3], [0], [1], [4]]


def test_same_result_twice(moving):
    _, data, protocol = moving
    series = Series(image_of(rician(data, 0.1, 1)), protocol)
    assert correct_motion(series).shifts.equals(correct_motion(series).shifts)


def test_threads_of_the_linear_algebra_library_do_not_matter(moving):
    _, data, protocol = moving
    series = Series(image_of(rician(data, 0.1, 1)), protocol)
    with threadpool_limits(1):
        one = correct_motion(series)
    with threadpool_limits(2):
        two = correct_motion(series)
    assert one.shifts.equals(two.shifts)
    assert np.array_equal(one.series.data, two.series.data, equal_nan=True)


def test_unit_of_signal_does_not_matter(moving):
    _, data, protocol = moving
    one = correct_motion(Series(image_of(data), protocol))
    thousand = correct_motion(Series(image_of(1000 * data), protocol))
    assert np.allclose(one.shifts["y"], thousand.shifts["y"], atol=0.01)


def test_missing_voxels_and_single_volumes(moving):
    _, data, protocol = moving
    spoilt = data.copy()
    spoilt[:3] = np.nan
    spoilt[20, 20, 3, 4] = np.nan
    result = correct_motion(Series(image_of(spoilt), protocol))
    assert np.isnan(result.series.data[20, 20, 3, 4]) or np.isnan(result.series.data[18:23, 18:23, 3, 4]).any()
    single = Series(image_of(data[..., :1]), protocol.take([0]))
    assert np.array_equal(correct_motion(single).series.data, data[..., :1].astype(np.float32))


def test_hostile_inputs(moving):
    _, data, protocol = moving
    series = Series(image_of(data), protocol)
    with pytest.raises(ImplausibleValue, match=r"reference volume is 40, expected 0 to 34"):
        correct_motion(series, reference=40)
    with pytest.raises(EmptyRegion, match="leaves no voxel"):
        correct_motion(series, weight=image_of(np.zeros(SHAPE)))
    with pytest.raises(GridMismatch):
        correct_motion(series, weight=image_of(np.ones((9, 8, 7))))
    with pytest.raises(EmptyRegion):
        correct_motion(Series(image_of(np.zeros((20, 21, 3, 35))), protocol))
    dead = data.copy()
    dead[..., 6] = np.nan
    with pytest.raises(ImplausibleValue, match="Volume 6 "):
        correct_motion(Series(image_of(dead), protocol))


def test_volumes_of_pure_noise_do_not_fly_away():
    protocol = protocol_of(12, 2)
    data = np.abs(np.random.default_rng(0).standard_normal((30, 28, 4, 14)))
    result = correct_motion(Series(image_of(data), protocol))
    assert result.quality["motion_max"] < 1.0


def test_history_and_directions(moving):
    _, data, protocol = moving
    result = correct_motion(Series(image_of(data), protocol))
    assert result.series.image.history[-1].name == "correct_motion"
    assert result.series.protocol is protocol


def load(path):
    file = nib.as_closest_canonical(nib.load(path))
    return file.get_fdata().astype(np.float32), Grid(file.shape[:3], file.affine)


@pytest.mark.real
@pytest.mark.parametrize("name", ["sct019", "errsm30"])
def test_real_diffusion_gets_steadier_not_worse(data_dir, name):
    folder = data_dir / "bids-cord" / f"sub-{name}" / "dwi"
    data, grid = load(folder / f"sub-{name}_dwi.nii.gz")
    b = np.loadtxt(folder / f"sub-{name}_dwi.bval")
    directions = np.loadtxt(folder / f"sub-{name}_dwi.bvec").reshape(3, -1).T
    result = correct_motion(Series(Image(data, grid), Protocol({"BValue": b, "Direction": directions})))
    assert result.quality["variation_after"] <= result.quality["variation_before"]
    assert result.quality["motion_max"] < 2.5
    mean = np.nan_to_num(data[..., b > 50].mean(axis=-1))
    centre = [s // 2 for s in mean.shape]
    near = np.s_[centre[0] - 15 : centre[0] + 15, 5:30]
    bright = mean[near] > 0.6 * mean[near].max(axis=(0, 1))
    for rows in (b > 50, b <= 50):
        before, after = data[near][..., rows][bright], result.series.data[near][..., rows][bright]
        steady = [np.median(v.mean(axis=-1) / v.std(axis=-1, ddof=1)) for v in (before, after)]
        assert steady[1] > 0.95 * steady[0]


@pytest.mark.real
def test_real_contrasts_a_known_displacement_is_found(data_dir):
    folder = data_dir / "bids-cord" / "sub-unf05" / "anat"
    off, grid = load(folder / "sub-unf05_flip-1_mt-off_MTS.nii.gz")
    on, _ = load(folder / "sub-unf05_flip-1_mt-on_MTS.nii.gz")
    window = np.s_[64:192, 64:192, 5:12]
    protocol = Protocol({"MTState": np.array([False, True])})
    grid = grid.crop([64, 64, 5], [192, 192, 12])
    added = np.array([0.7, -1.1])
    moved = translate_slices(off, np.broadcast_to(added / grid.spacing[:2], (off.shape[2], 2)))
    first, second = (
        found(correct_motion(Series(Image(np.stack([i[window], on[window]], axis=-1), grid), protocol)), 2, 7)[0][0]
        for i in (off, moved)
    )
    assert np.abs(second - first - added).max() < 0.1
