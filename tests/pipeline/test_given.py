"""Given maps and their standard errors from files, in `qcord fit` and `qcord extract`."""

import json

import nibabel as nib
import numpy as np
import pytest

from qcord import api
from qcord.cli.main import app
from qcord.core.entities import Entities
from qcord.core.errors import GridMismatch, ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.estimate.simulate import simulate
from qcord.ingest.nifti import read_image
from qcord.models.registry import get
from qcord.pipeline.field import field_for
from qcord.pipeline.given import find_std, read_given, read_transmit_field
from qcord.report.findings import Field

SHAPE = (12, 10, 3)
AFFINE = np.diag([-0.9, 0.9, 5.0, 1])
GENERATED = {"GeneratedBy": [{"Name": "qcord", "Version": "0"}]}


def write(path, data, affine=AFFINE, **sidecar):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def loaded(path):
    return np.asarray(nib.load(path).dataobj, dtype=float)


def beside(path, kind):
    return path.with_name(path.name.replace("_T1map", f"_desc-{kind}_T1map"))


@pytest.fixture
def angles(tmp_path):
    """Files of three flip angles; the true field is 1.1."""
    model = get("vfa")
    theta = np.broadcast_to(model.theta({"M0": 1000.0, "R1": 1.1}), (*SHAPE, 2))
    signal = Rician(1.0).sample(simulate(model, theta, model.example(), given=[1.1]), np.random.default_rng(0))
    return [
        write(
            tmp_path / "sub-01" / "anat" / f"sub-01_flip-{k + 1}_VFA.nii.gz",
            signal[..., k],
            FlipAngle=float(angle),
            RepetitionTimeExcitation=0.02,
        )
        for k, angle in enumerate(model.example()["FlipAngle"])
    ]


def fitted(angles, out, **more):
    return api.fit("vfa", angles, out, noise=1.0, **more)["T1"]


def test_the_error_of_a_field_reaches_the_maps_as_number_file_or_neighbour(angles, tmp_path):
    field = write(tmp_path / "fmap" / "sub-01_TB1map.nii.gz", np.full(SHAPE, 110.0))
    error = write(tmp_path / "elsewhere" / "error.nii.gz", np.full(SHAPE, 3.3))
    plain = fitted(angles, tmp_path / "plain", b1=field)
    assert not beside(plain, "shiftB1").exists()
    number = fitted(angles, tmp_path / "number", b1=field, b1_std=3.3)
    np.testing.assert_array_equal(loaded(number), loaded(plain))
    shift = loaded(beside(number, "shiftB1"))
    np.testing.assert_allclose(shift / loaded(number), -2 * 0.03, rtol=0.05)
    total = np.hypot(loaded(beside(plain, "se")), shift)
    np.testing.assert_allclose(loaded(beside(number, "se")), total, rtol=1e-5)
    sidecar = json.loads(beside(number, "se").with_name("sub-01_desc-se_T1map.json").read_text())
    assert sidecar["Description"] == "standard error, by noise and by that of the given B1"
    assert sidecar["History"][-1]["Settings"]["given_std"] == ["B1"]
    file = fitted(angles, tmp_path / "file", b1=field, b1_std=error)
    write(tmp_path / "fmap" / "sub-01_desc-se_TB1map.nii.gz", np.full(SHAPE, 3.3), **GENERATED)
    found = fitted(angles, tmp_path / "found", b1=field)
    for one in (file, found):
        np.testing.assert_allclose(loaded(beside(one, "shiftB1")), shift, rtol=1e-5)
    none = fitted(angles, tmp_path / "none", b1=field, b1_std=0)
    assert not beside(none, "shiftB1").exists()
    assert beside(none, "se").read_bytes() == beside(plain, "se").read_bytes()


def test_the_command_takes_errors_also_of_a_field_that_was_not_measured(angles, tmp_path, capsys):
    files = [str(f) for f in angles]
    app(
        ["fit", "vfa", *files, "-o", str(tmp_path / "a"), "--noise", "1", "--b1-std", "0.1"],
        result_action="return_value",
    )
    app(
        ["fit", "vfa", *files, "-o", str(tmp_path / "b"), "--noise", "1", "--given-std", "B1=0.1"],
        result_action="return_value",
    )
    assert "T1: " in capsys.readouterr().out
    one, two = (
        next((tmp_path / "a").glob("*shiftB1_T1map.nii.gz")),
        next((tmp_path / "b").glob("*shiftB1_T1map.nii.gz")),
    )
    assert np.median(loaded(one)) == pytest.approx(-0.2 * 1.21 / 1.1, rel=0.05)
    assert one.read_bytes() == two.read_bytes()


def test_only_errors_that_qcord_wrote_are_taken(tmp_path):
    field = write(tmp_path / "sub-01_acq-a_TB1map.nii.gz", np.ones(SHAPE))
    assert find_std(field) is None
    error = write(tmp_path / "sub-01_acq-a_desc-se_TB1map.nii.gz", np.full(SHAPE, 0.02), Description="by others")
    assert find_std(field) is None
    write(error, np.full(SHAPE, 0.02), **GENERATED)
    assert find_std(field) == error
    assert find_std(error) is None
    assert find_std("1.1") is None
    like = read_image(field)
    known, errors = read_given({"B1": field, "R1": 1.0}, {"R1": "0.1"}, like)
    np.testing.assert_array_equal(known["B1"].data, 1)
    np.testing.assert_allclose(errors["B1"].data, 0.02, rtol=1e-6)
    assert (known["R1"], errors["R1"]) == (1.0, 0.1)
    assert read_given({"B1": field}, {"B1": 0}, like)[1] == {}


def test_smoothing_counts_voxels_by_their_errors_and_shrinks_them(tmp_path):
    generator = np.random.default_rng(2)
    spread = np.where(np.arange(SHAPE[0])[:, None, None] % 2, 20.0, 4.0) * np.ones(SHAPE)
    field = write(tmp_path / "b1.nii.gz", 100 + spread * generator.standard_normal(SHAPE))
    error = write(tmp_path / "se.nii.gz", spread)
    like = read_image(field)
    smoothed, std = read_transmit_field(field, error, like, 8.0)
    plain, single = read_transmit_field(field, 2.0, like, 8.0)
    assert np.median(std.data) < 0.02
    assert np.abs(smoothed.data - 1).mean() < np.abs(plain.data - 1).mean()
    assert np.mean(np.abs(smoothed.data - 1) < 1.96 * std.data) > 0.8
    assert single == pytest.approx(0.02)
    other = write(tmp_path / "other.nii.gz", np.ones((4, 4, 3)), np.diag([2.0, 2, 5, 1]))
    with pytest.raises(GridMismatch):
        read_transmit_field(field, other, like, 8.0)


def test_a_negative_error_is_named(angles, tmp_path):
    with pytest.raises(ImplausibleValue, match="standard error of B1 is negative"):
        fitted(angles, tmp_path / "out", b1_std=-0.1)


def test_extract_reads_the_shared_error_of_files(angles, tmp_path):
    plain = fitted(angles, tmp_path / "plain", given={"B1": 1.1})
    path = fitted(angles, tmp_path / "out", given={"B1": 1.1}, given_std={"B1": 0.05})
    fields = np.zeros((*SHAPE, 1), dtype=np.float32)
    fields[2:9, 2:8] = 1
    atlas = write(tmp_path / "atlas_probseg.nii.gz", fields)
    atlas.with_name("atlas_probseg.tsv").write_text("index\tname\tmapping\n0\tWM left fasciculus gracilis\t0\n")
    chosen = {"by": ["all"], "estimator": ["wa"], "region": ["WM left fasciculus gracilis"]}
    before = api.extract(plain, atlas, std=beside(plain, "se"), **chosen).iloc[0]
    row = api.extract(path, atlas, std=beside(path, "se"), **chosen).iloc[0]
    blind = api.extract(path, atlas, std=beside(path, "se"), shift=[], **chosen).iloc[0]
    shift = loaded(beside(path, "shiftB1"))[2:9, 2:8].mean()
    assert row["se_noise"] == pytest.approx(before["se_noise"], rel=1e-3)
    assert row["se"] == pytest.approx(np.hypot(before["se"], shift), rel=1e-3)
    assert blind["se"] < row["se"] / 3
    assert row["value"] == before["value"]


def test_the_field_of_a_visit_comes_with_its_error_on_the_grid_of_the_series():
    coarse = Grid((6, 5, 3), np.diag([2.0, 2.0, 5.0, 1]))
    x = np.indices(coarse.shape)[0]
    image, std = Image(1 + 0.01 * x, coarse), Image(0.02 + 0.001 * x, coarse)
    field = Field("TB1DAM", Entities.of("TB1DAM", sub="01"), (), image, std)
    like = Image(np.zeros((9, 7, 3)), Grid((9, 7, 3), np.diag([1.0, 1.0, 5.0, 1])))
    inside = np.zeros(like.grid.shape, dtype=bool)
    inside[2:6, 2:5] = True
    known = field_for("vfa", field, inside, like)
    assert set(known.given) == set(known.std) == {"B1"}
    np.testing.assert_allclose(known.std["B1"].data[2:6, 3, 1], 0.02 + 0.0005 * np.arange(2, 6), rtol=1e-5)
    assert known.note == "Corrected by the transmit field of TB1DAM."
    assert field_for("t2", field, inside, like).given == {}
    assert field_for("vfa", Field("TB1DAM", field.entities, (), image, None), inside, like).std == {}
    hidden = Field("TB1DAM", field.entities, (), image.derive(np.where(x > 1, np.nan, image.data)), std)
    refused = field_for("vfa", hidden, inside, like)
    assert refused.given == refused.std == {}
    assert "not used" in refused.note
