"""What goes wrong for users: one sentence, exit code, and nothing damaged or half-written."""

import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from qcord.cli.main import main

SUBJECT = "sub-healthy01"


@pytest.fixture
def study(raw, tmp_path):
    """A copy of the diffusion and transfer series of the phantom, that may be spoilt."""
    target = tmp_path / "raw" / SUBJECT
    shutil.copytree(raw / SUBJECT / "dwi", target / "dwi")
    (target / "anat").mkdir()
    for file in (raw / SUBJECT / "anat").glob("*MTS*"):
        shutil.copy(file, target / "anat")
    return tmp_path / "raw"


@pytest.fixture
def earlier(tmp_path):
    """Output folder that holds a file of an earlier run."""
    kept = tmp_path / "out" / SUBJECT / f"{SUBJECT}.html"
    kept.parent.mkdir(parents=True)
    kept.write_text("an earlier report")
    return kept


def call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    shown = capsys.readouterr()
    lines = [x for x in shown.err.strip().splitlines() if x.strip()]
    return ended.value.code, lines, shown.out


def expect_failure(capsys, kept, text, *words):
    out = kept.parents[1]
    code, lines, _ = call(capsys, *words)
    assert code == 1
    assert len(lines) == 1, lines
    assert lines[0].startswith("qcord: ")
    assert text in lines[0]
    assert "Traceback" not in lines[0]
    assert kept.read_text() == "an earlier report"
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and SUBJECT in p.as_posix()}
    assert left == {f"{SUBJECT}/{SUBJECT}.html"}
    assert not [p for p in out.rglob("*") if "partial" in p.name]


def run_words(study, kept, *more):
    return "run", study, kept.parents[1], "--template", "qcord", *more


def labels_with(study, tmp_path, change, name=f"{SUBJECT}_space-orig_label-SC_desc-dwi_mask.nii.gz"):
    image = nib.load(next((study / SUBJECT / "dwi").glob("*.nii.gz")))
    mask = np.zeros(image.shape[:3], np.uint8)
    mask, affine = change(mask, image.affine.copy())
    folder = tmp_path / "labels" / SUBJECT
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(mask, affine), folder / name)
    return tmp_path / "labels"


def test_wrong_number_of_gradients(study, earlier, capsys):
    bval = next((study / SUBJECT / "dwi").glob("*.bval"))
    bval.write_text(" ".join(bval.read_text().split()[:-1]))
    expect_failure(capsys, earlier, "describes 34 volumes, the image has 35", *run_words(study, earlier))


def test_truncated_image(study, earlier, capsys):
    file = next((study / SUBJECT / "dwi").glob("*.nii.gz"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    expect_failure(capsys, earlier, "is truncated or damaged", *run_words(study, earlier))


def test_volume_of_nan(study, earlier, capsys):
    file = next((study / SUBJECT / "dwi").glob("*.nii.gz"))
    image = nib.load(file)
    data = image.get_fdata(dtype=np.float32)
    data[..., 7] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), file)
    expect_failure(capsys, earlier, "Volume 7 of", *run_words(study, earlier))


def test_empty_mask(study, earlier, capsys, tmp_path):
    labels = labels_with(study, tmp_path, lambda mask, affine: (mask, affine))
    expect_failure(capsys, earlier, "holds no voxel above 0.5", *run_words(study, earlier, "--derivatives", labels))


def test_mask_on_another_grid(study, earlier, capsys, tmp_path):
    def shifted(mask, affine):
        mask[40:50, 15:22] = 1
        affine[0, 3] += 7
        return mask, affine

    labels = labels_with(study, tmp_path, shifted)
    expect_failure(capsys, earlier, "expected the same grid", *run_words(study, earlier, "--derivatives", labels))


def test_repetition_time_in_milliseconds(study, earlier, capsys):
    file = next((study / SUBJECT / "anat").glob("*flip-2*.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "RepetitionTimeExcitation": 15}))
    expect_failure(capsys, earlier, "milliseconds given instead of seconds", *run_words(study, earlier))


def test_broken_sidecar(study, earlier, capsys):
    next((study / SUBJECT / "dwi").glob("*.json")).write_text("{")
    expect_failure(capsys, earlier, "cannot be read as JSON", *run_words(study, earlier))


def test_unknown_template_subject_setting_and_folder(study, earlier, capsys, tmp_path):
    words = ("run", study, earlier.parents[1], "--template", "PAM51")
    expect_failure(capsys, earlier, "'PAM51' is neither 'qcord', a folder, nor installed", *words)
    words = run_words(study, earlier, "--participant-label", "nobody")
    expect_failure(capsys, earlier, "sub-nobody is not in the data set", *words)
    config = tmp_path / "settings.toml"
    config.write_text("denoize = true")
    expect_failure(capsys, earlier, "Setting 'denoize'", *run_words(study, earlier, "--config", config))
    expect_failure(capsys, earlier, "does not exist", *run_words(tmp_path / "nowhere", earlier))
    words = run_words(study, earlier, "--disc", "C2/C3=1,2")
    expect_failure(capsys, earlier, "expected C2/C3=x,y,z", *words)


def test_output_folder_that_cannot_be_written(study, capsys, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, lines, _ = call(capsys, "run", study, tmp_path / "file" / "out", "--template", "qcord")
    assert code == 1
    assert len(lines) == 1
    assert "cannot be written to" in lines[0]
    assert (tmp_path / "file").read_text() == "not a folder"


def test_missing_sidecar_field_is_named_by_fit(study, capsys, tmp_path):
    anat = study / SUBJECT / "anat"
    file = next(anat.glob("*flip-2*.json"))
    content = json.loads(file.read_text())
    del content["FlipAngle"]
    file.write_text(json.dumps(content))
    images = sorted(anat.glob("*.nii.gz"))
    code, lines, _ = call(capsys, "fit", "mtsat", *images, "-o", tmp_path / "maps")
    assert code == 1
    assert len(lines) == 1
    assert "FlipAngle" in lines[0]
    assert not list((tmp_path / "maps").rglob("*")) if (tmp_path / "maps").exists() else True
    code, _, out = call(capsys, "fit", "mtr", *images, "-o", tmp_path / "maps")
    assert code == 0
    assert "MTRmap" in out


def test_t1_in_milliseconds(output, capsys, tmp_path):
    folder = output / SUBJECT / "anat"
    image = nib.load(folder / f"{SUBJECT}_T1map.nii.gz")
    wrong = tmp_path / f"{SUBJECT}_T1map.nii.gz"
    nib.save(nib.Nifti1Image(image.get_fdata() * 1000, image.affine), wrong)
    mask = folder / f"{SUBJECT}_space-orig_label-SC_desc-MTS_mask.nii.gz"
    atlas = tmp_path / "registered"
    code, _, _ = call(
        capsys, "register", folder / f"{SUBJECT}_MTRmap.nii.gz", "--mask", mask, "-o", atlas, "--template", "qcord"
    )
    assert code == 0
    fields = next(atlas.rglob("*seg-qcord*_probseg.nii.gz"))
    code, lines, _ = call(capsys, "extract", wrong, fields, "-o", tmp_path / "t.tsv")
    assert code == 1
    assert len(lines) == 1
    assert "T1" in lines[0]
    assert "milliseconds" in lines[0]
    assert not (tmp_path / "t.tsv").exists()
    code, _, _ = call(capsys, "extract", folder / f"{SUBJECT}_T1map.nii.gz", fields, "-o", tmp_path / "t.tsv")
    assert code == 0
    assert "white matter" in (tmp_path / "t.tsv").read_text()


def test_one_bad_subject_does_not_stop_the_others(study, capsys, tmp_path, raw):
    other = study / "sub-second" / "anat"
    other.mkdir(parents=True)
    for file in (raw / SUBJECT / "anat").glob("*T2star*"):
        shutil.copy(file, other / file.name.replace(SUBJECT, "sub-second"))
    file = next((study / SUBJECT / "dwi").glob("*.nii.gz"))
    file.write_bytes(b"")
    code, lines, out = call(capsys, "run", study, tmp_path / "out", "--template", "qcord")
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"qcord: {SUBJECT}:")
    assert "sub-second" in out
    assert (tmp_path / "out" / "sub-second" / "sub-second.html").is_file()
    log = json.loads(next((tmp_path / "out" / "logs").glob("*.json")).read_text())
    assert log["outcomes"]["sub-second"] == "done"


def test_wrong_usage_has_its_own_exit_code(capsys):
    code, lines, _ = call(capsys, "run")
    assert code == 2
    assert "bids" in " ".join(lines).lower()
    code, _, out = call(capsys, "--version")
    assert code == 0
    assert out.strip()


def test_terminal_shows_one_line_and_debug_the_trace(study, tmp_path):
    """In a process of its own, as a user sees it: nothing of logging or warnings gets in between."""
    next((study / SUBJECT / "dwi").glob("*.bval")).unlink()
    words = [sys.executable, "-m", "qcord", "run", str(study), str(tmp_path / "out"), "--template", "qcord"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.strip() == ""
    assert len([x for x in ended.stderr.splitlines() if x.strip()]) == 1
    ended = subprocess.run([*words, "--debug"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "load_diffusion" in ended.stderr


def test_output_folder_that_is_the_data_set(study, capsys):
    before = sorted(study.rglob("*"))
    code, lines, _ = call(capsys, "run", study, study, "--template", "qcord")
    assert code == 1
    assert "is the data set itself, expected another one" in lines[0]
    assert sorted(study.rglob("*")) == before
