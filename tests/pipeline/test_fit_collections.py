"""``qcord fit`` on files of quantitative collections."""

import json

import nibabel as nib
import numpy as np
import pytest

from qcord import api
from qcord.cli.main import app
from qcord.core.entities import Entities
from qcord.core.errors import EmptyRegion, ImplausibleValue, MissingMetadata, UnknownName
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.estimate.simulate import simulate
from qcord.models.registry import get
from qcord.pipeline.outputs import write_fit

SHAPE = (40, 44, 4)
AFFINE = np.diag([-0.9, 0.9, 5.0, 1])


def write(path, data, **sidecar):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), AFFINE), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def scans(name, protocol, noise, known=None, seed=0):
    """Two tissues side by side, (x, y, z, n), and the truth of the last parameter."""
    model = get(name)
    theta = np.tile(model.theta(model.typical[0].values), (*SHAPE, 1))
    theta[20:, :, :, -1] *= 0.85
    signal = simulate(model, theta, protocol, given=known)
    return noise.sample(np.abs(signal) if isinstance(noise, Rician) else signal, np.random.default_rng(seed)), theta


def loaded(path):
    return np.asarray(nib.load(path).dataobj, dtype=float)


def check(paths, metric, truth, suffix, unit, tolerance):
    value, error = loaded(paths[metric]), loaded(str(paths[metric]).replace(f"_{suffix}", f"_desc-se_{suffix}"))
    assert str(paths[metric]).endswith(f"_{suffix}.nii.gz")
    assert json.loads(str_of(paths[metric]).read_text())["Units"] == unit
    assert np.median(value[:18]) == pytest.approx(truth[:18].mean(), rel=tolerance)
    assert np.median(value[22:]) == pytest.approx(truth[22:].mean(), rel=tolerance)
    covered = np.abs(value - truth) < 1.96 * error
    assert covered.mean() > 0.9
    return value, error


def str_of(path):
    return path.with_name(path.name.replace(".nii.gz", ".json"))


def test_flip_angles_with_a_transmit_field_in_percent(tmp_path):
    protocol = get("vfa").example()
    data, theta = scans("vfa", protocol, Rician(1.5), known=[1.15])
    files = [
        write(
            tmp_path / "sub-01" / "anat" / f"sub-01_flip-{k + 1}_VFA.nii.gz",
            data[..., k],
            FlipAngle=float(protocol["FlipAngle"][k]),
            RepetitionTime=0.02,
        )
        for k in range(3)
    ]
    noisy = 115 * (1 + 0.05 * np.random.default_rng(1).standard_normal(SHAPE))
    field = write(tmp_path / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz", noisy)
    maps = api.fit("vfa", files, tmp_path / "out", b1=field, b1_width=12.0)
    assert set(maps) == {"M0", "R1", "T1"}
    check(maps, "T1", 1 / theta[..., 1], "T1map", "second", 0.03)
    sidecar = json.loads(str_of(maps["T1"]).read_text())
    assert sidecar["FlipAngle"] == [5, 12, 28]
    assert sidecar["RepetitionTimeExcitation"] == 0.02
    assert sidecar["Sources"] == [f.name for f in files]
    assert any(h["Settings"].get("B1") == "given" for h in sidecar["History"])
    without = api.fit("vfa", files, tmp_path / "without", noise=1.5)
    assert np.median(loaded(without["T1"])[:18]) == pytest.approx(0.876 * 1.15**2, rel=0.05)
    held = api.fit("vfa", files, tmp_path / "held", fixed={"R1": 1.1415}, given={"B1": 1.15}, noise="residuals")
    assert np.median(loaded(held["M0"])[:18]) == pytest.approx(1000, rel=0.02)
    with pytest.raises(UnknownName, match="no given parameter 'B0'"):
        api.fit("vfa", files, tmp_path / "bad", given={"B0": 1.0}, noise=1.0)


def test_intervals_lie_beside_their_maps(tmp_path):
    protocol = get("t2").example()
    data, theta = scans("t2", protocol, Rician(15.0))
    times = [float(t) for t in protocol["EchoTime"]]
    files = [
        write(tmp_path / f"sub-01_echo-{k + 1}_MESE.nii.gz", data[..., k], EchoTime=t) for k, t in enumerate(times)
    ]
    inside = np.zeros(SHAPE)
    inside[15:25, 20:24, 1] = 1
    mask = write(tmp_path / "sub-01_mask.nii.gz", inside)
    out = tmp_path / "out"
    app(
        ["fit", "t2", *map(str, files), "-o", str(out), "--mask", str(mask), "--noise", "15", "--intervals"],
        result_action="return_value",
    )
    value = loaded(out / "sub-01_T2map.nii.gz")
    lower, upper = (loaded(out / f"sub-01_desc-{end}_T2map.nii.gz") for end in ("lower", "upper"))
    where = inside > 0
    assert np.all((lower[where] < value[where]) & (value[where] < upper[where]))
    assert np.isnan(lower[~where]).all()
    truth = 1 / theta[..., 1]
    assert ((lower <= truth) & (truth <= upper))[where].mean() > 0.85
    sidecar = json.loads((out / "sub-01_desc-upper_T2map.json").read_text())
    assert sidecar["Description"] == "upper end of the 95% interval by the likelihood"
    assert sidecar["Units"] == "second"


def test_echoes_in_one_file_and_the_dephasing_of_a_field_map(tmp_path):
    protocol = get("r2star").example()
    slope = 4.0  # Hz/mm along the slices
    data, theta = scans("r2star", protocol, Rician(15.0), known=[slope * 5.0])
    times = protocol["EchoTime"].tolist()
    file = write(tmp_path / "sub-01_MEGRE.nii.gz", data, EchoTime=times, SliceThickness=5.0)
    field = write(tmp_path / "B0.nii.gz", np.broadcast_to(slope * 5.0 * np.arange(4), SHAPE))
    maps = api.fit("r2star", [file], tmp_path / "out", field_map=field)
    check(maps, "R2star", theta[..., 1], "R2starmap", "1/second", 0.02)
    check(maps, "T2star", 1 / theta[..., 1], "T2starmap", "second", 0.03)
    blind = api.fit("r2star", [file], tmp_path / "blind")
    assert np.median(loaded(blind["R2star"])) > 1.15 * np.median(loaded(maps["R2star"]))


def test_spin_echoes_of_files_with_odd_names(tmp_path):
    protocol = get("t2").example()
    data, theta = scans("t2", protocol, Rician(12.0))
    files = [
        write(tmp_path / f"{k:02d} scan e{k}.nii.gz", data[..., k], EchoTime=float(protocol["EchoTime"][k]))
        for k in range(8)
    ]
    maps = api.fit("t2", files, tmp_path / "out", noise=12.0)
    assert set(maps) == {"R2", "T2"}
    value = loaded(maps["T2"])
    assert np.median(value[:18]) == pytest.approx(0.073, rel=0.01)
    assert np.median(value[22:]) == pytest.approx(0.073 / 0.85, rel=0.01)
    assert theta[0, 0, 0, 1] == pytest.approx(1 / 0.073)


def test_magnitudes_of_an_inversion_recovery(tmp_path):
    protocol = get("inversion-recovery").example()
    data, theta = scans("inversion-recovery", protocol, Rician(15.0))
    files = [
        write(
            tmp_path / f"sub-01_inv-{k + 1}_IRT1.nii.gz",
            data[..., k],
            InversionTime=float(protocol["InversionTime"][k]),
            RepetitionTime=3.5,
        )
        for k in range(7)
    ]
    for noise in (None, "residuals"):
        maps = api.fit("inversion-recovery", files, tmp_path / str(noise), noise=noise)
        assert np.median(loaded(maps["T1"])[:18]) == pytest.approx(0.876, rel=0.02)
    check(api.fit("inversion-recovery", files, tmp_path / "out"), "T1", 1 / theta[..., 2], "T1map", "second", 0.02)


def inversion_files(folder, data, protocol, **more):
    return [
        write(
            folder / f"sub-01_inv-{k + 1}_part-mag_MP2RAGE.nii.gz",
            np.abs(data[..., k]),
            InversionTime=float(protocol["InversionTime"][k]),
            FlipAngle=float(protocol["FlipAngle"][k]),
            RepetitionTime=5.0,
            RepetitionTimeExcitation=0.0068,
            **more,
        )
        for k in range(2)
    ]


def test_mp2rage_takes_its_polarity_from_phases_or_from_the_ratio_image(tmp_path):
    protocol = get("mp2rage").example()
    data, theta = scans("mp2rage", protocol, Gaussian(0.7))
    files = inversion_files(tmp_path, data, protocol, NumberShots=[32, 48])
    phase = [
        write(
            tmp_path / f"sub-01_inv-{k + 1}_part-phase_MP2RAGE.nii.gz",
            np.where(data[..., k] < 0, 2048, 0) + 700,
            InversionTime=float(protocol["InversionTime"][k]),
        )
        for k in range(2)
    ]
    ratio = data[..., 0] * data[..., 1] / (data**2).sum(axis=-1)
    unified = write(tmp_path / "sub-01_UNIT1.nii.gz", np.rint((ratio + 0.5) * 4095))
    found = {}
    for name, more in (("phase", phase), ("ratio", [unified])):
        maps = api.fit("mp2rage", [*files, *more], tmp_path / name, noise=0.7)
        found[name], _ = check(maps, "T1", 1 / theta[..., 1], "T1map", "second", 0.02)
        assert maps["T1"].name == "sub-01_T1map.nii.gz"
    np.testing.assert_allclose(found["phase"], found["ratio"], rtol=0.02)
    with pytest.raises(MissingMetadata, match="without polarity, expected part-phase images or UNIT1"):
        api.fit("mp2rage", files, tmp_path / "none", noise=0.7)
    lacking = inversion_files(tmp_path / "lacking", data, protocol)
    with pytest.raises(
        MissingMetadata, match=r"NumberShots is absent from the sidecar of sub-01_inv-1_part-mag_MP2RAGE"
    ):
        api.fit("mp2rage", [*lacking, *phase], tmp_path / "none", noise=0.7)
    assert not (tmp_path / "none").exists() or not any((tmp_path / "none").iterdir())


def test_transmit_field_is_written_in_percent_and_read_again(tmp_path):
    protocol = get("double-angle").example()
    data, theta = scans("double-angle", protocol, Rician(10.0))
    files = [
        write(tmp_path / f"sub-01_flip-{k + 1}_TB1DAM.nii.gz", data[..., k], FlipAngle=60.0 * (k + 1)) for k in range(2)
    ]
    maps = api.fit("double-angle", files, tmp_path / "out", noise=10.0)
    check(maps, "B1", 100 * theta[..., 1], "TB1map", "percent", 0.01)
    afi = get("actual-flip-angle").example()
    data, theta = scans("actual-flip-angle", afi, Rician(1.0))
    files = [
        write(
            tmp_path / f"sub-01_acq-tr{k + 1}_TB1AFI.nii.gz",
            data[..., k],
            FlipAngle=60,
            RepetitionTimeExcitation=float(afi["RepetitionTimeExcitation"][k]),
        )
        for k in range(2)
    ]
    maps = api.fit("actual-flip-angle", files, tmp_path / "afi", noise=1.0)
    assert maps["B1"].name == "sub-01_TB1map.nii.gz"
    check(maps, "B1", 100 * theta[..., 1], "TB1map", "percent", 0.01)


def test_a_triplet_gives_flip_angle_t1_as_well(tmp_path):
    protocol = Protocol(
        {
            "FlipAngle": np.array([9.0, 9.0, 15.0]),
            "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
            "MTState": np.array([True, False, False]),
        }
    )
    signal = simulate(get("mtsat-ernst"), np.broadcast_to([1000.0, 1.1, 4.0], (*SHAPE, 3)), protocol)
    names = ("flip-1_mt-on", "flip-1_mt-off", "flip-2_mt-off")
    files = [
        write(
            tmp_path / f"sub-01_{name}_MTS.nii.gz",
            signal[..., k],
            FlipAngle=float(protocol["FlipAngle"][k]),
            RepetitionTime=float(protocol["RepetitionTimeExcitation"][k]),
        )
        for k, name in enumerate(names)
    ]
    maps = api.fit("vfa", files, tmp_path / "out", noise=0.01)
    np.testing.assert_allclose(loaded(maps["T1"]), 1 / 1.1, rtol=1e-4)
    with pytest.raises(MissingMetadata, match="EchoTime is absent"):
        api.fit("r2star", files, tmp_path / "none", noise=0.01)


def test_noise_that_cannot_be_estimated_is_asked_for(tmp_path):
    flat = np.zeros((6, 6, 2))
    files = [write(tmp_path / f"sub-01_echo-{k}_MESE.nii.gz", flat, EchoTime=0.01 * k) for k in (1, 2, 3)]
    with pytest.raises(EmptyRegion, match="give a larger mask, or the noise level itself"):
        api.fit("t2", files, tmp_path / "out")


def test_command_takes_held_and_given_values(tmp_path, capsys):
    data, _ = scans("t2", get("t2").example(), Rician(5.0))
    times = get("t2").example()["EchoTime"].tolist()
    file = write(tmp_path / "sub-01_MESE.nii.gz", data, EchoTime=times)
    line = ["fit", "t2", str(file), "-o", str(tmp_path / "out"), "--noise", "5", "--fixed", "S0=1000"]
    app(line, result_action="return_value")
    assert "T2: " in capsys.readouterr().out
    written = loaded(tmp_path / "out" / "sub-01_T2map.nii.gz")
    assert np.median(written[:18]) == pytest.approx(0.073, rel=0.01)
    with pytest.raises(ImplausibleValue, match="--fixed S0 has no value, expected NAME=VALUE"):
        app([*line[:-1], "S0"], result_action="return_value")


def test_flags_lie_beside_the_maps_with_their_meaning(tmp_path):
    protocol = get("t2").example()
    data, _ = scans("t2", protocol, Rician(12.0))
    data[0, 0, 0] = np.nan
    files = [
        write(tmp_path / f"{k:02d} scan e{k}.nii.gz", data[..., k], EchoTime=float(protocol["EchoTime"][k]))
        for k in range(8)
    ]
    api.fit("t2", files, tmp_path / "out", noise=12.0)
    path = next((tmp_path / "out").glob("*desc-flag*.nii.gz"))
    flags = loaded(path)
    assert flags[0, 0, 0] == Flag.NOT_FINITE
    assert (flags[1:] == Flag.OK).mean() > 0.9
    assert json.loads(str_of(path).read_text())["Levels"][str(int(Flag.NOT_FINITE))] == Flag.NOT_FINITE.sentence


def test_a_run_writes_factors_in_percent_as_a_fit_does(tmp_path):
    shape, grid = (2, 2, 2), Grid((2, 2, 2), AFFINE)
    maps = {"MWF": Image(np.full(shape, 0.1, dtype=np.float32), grid, unit="1")}
    std = {"MWF": Image(np.full(shape, 0.02, dtype=np.float32), grid, unit="1")}
    flag = Image(np.zeros(shape, dtype=np.uint8), grid, unit="label")
    done = Fit("myelin-water", maps, std, rmse=flag, flag=flag, criterion=flag)
    write_fit(done, Entities.parse("sub-01_MESE.nii.gz"), ["bids:raw:sub-01_MESE.nii.gz"], tmp_path)
    for name, value in (("sub-01_MWFmap", 10.0), ("sub-01_desc-se_MWFmap", 2.0), ("sub-01_desc-flag_MWFmap", 0.0)):
        path = tmp_path / "anat" / f"{name}.nii.gz"
        assert loaded(path)[0, 0, 0] == pytest.approx(value)
    assert json.loads(str_of(tmp_path / "anat" / "sub-01_MWFmap.nii.gz").read_text())["Units"] == "percent"
