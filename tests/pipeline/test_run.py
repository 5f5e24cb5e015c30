import json
import re

import duckdb
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import map_coordinates

from qcord.core.flags import Flag
from qcord.core.labels import COMBINED, CSF, TRACTS
from qcord.ingest.gradients import read_gradients
from qcord.ingest.nifti import read_image
from qcord.pipeline.run import gather, run
from qcord.pipeline.templates import load_template

SUBJECT = "sub-healthy01"
ATLAS = [
    *("participant_id", "session_id", "metric", "unit", "region", "level", "slice", "estimator"),
    *("value", "se", "ci_low", "ci_high", "n_eff", "n_vox", "flag", "source", "se_noise"),
]
MAPS = [
    *(f"dwi/{SUBJECT}_model-tensor_param-{p}_dwimap" for p in ("fa", "md", "ad", "rd")),
    *(f"dwi/{SUBJECT}_model-tensor_param-{p}_desc-se_dwimap" for p in ("fa", "md", "ad", "rd")),
    *(f"anat/{SUBJECT}_{s}" for s in ("MTRmap", "MTsat", "T1map")),
    *(f"anat/{SUBJECT}_desc-se_{s}" for s in ("MTRmap", "MTsat", "T1map")),
]
TOKENS = ("T2w", "T2star", "dwi", "MTS")


def table(output, name):
    return pd.read_csv(
        output / SUBJECT / f"{SUBJECT}_desc-{name}_metrics.tsv", sep="\t", dtype={"level": str, "slice": str}
    )


def test_all_files_of_the_contract_are_there(output):
    home = output / SUBJECT
    for stem in MAPS:
        assert (home / f"{stem}.nii.gz").is_file(), stem
        sidecar = json.loads((home / f"{stem}.json").read_text())
        assert sidecar["Units"]
        assert sidecar["Sources"]
        assert sidecar["History"]
    for token in TOKENS:
        for label in ("SC", "GM", "WM", "canal"):
            kind = "mask" if label == "SC" else "probseg"
            assert (home / "anat" / f"{SUBJECT}_space-orig_label-{label}_desc-{token}_{kind}.nii.gz").is_file()
        for seg in ("vertebrae", "discs"):
            stem = home / "anat" / f"{SUBJECT}_space-orig_seg-{seg}_desc-{token}_dseg"
            assert stem.with_suffix(".nii.gz").is_file()
            assert {"index", "name"} <= set(pd.read_csv(stem.with_suffix(".tsv"), sep="\t").columns)
        for pair in (f"from-{token}_to-qcord", f"from-qcord_to-{token}"):
            assert (home / "xfm" / f"{SUBJECT}_{pair}_mode-image_xfm.nii.gz").is_file()
    for name in ("atlas", "morphometry", "quality"):
        assert (home / f"{SUBJECT}_desc-{name}_metrics.json").is_file()
    assert (home / f"{SUBJECT}.html").is_file()
    assert json.loads((output / "dataset_description.json").read_text())["GeneratedBy"][0]["Name"] == "qcord"
    assert not list(output.rglob("*.partial*"))
    assert not list(output.rglob(".partial-*"))


def test_atlas_table_is_complete_and_consistent(output):
    found = table(output, "atlas")
    assert list(found.columns) == ATLAS
    assert set(found["metric"]) == {"FA", "MD", "AD", "RD", "MTR", "MTsat", "T1"}
    assert set(found["region"]) == {*TRACTS, CSF, *COMBINED}
    assert set(found["estimator"]) == {"wa", "ml", "map"}
    assert set(found["flag"]) <= {f.word for f in Flag}
    assert {"C3", "C4", "C5"} <= set(found["level"].dropna())
    good = found["value"].notna()
    assert (found.loc[good, "ci_low"] <= found.loc[good, "value"]).all()
    assert (found.loc[~good, "flag"] != "ok").all()
    assert not (found["value"] == 0).any()


def test_values_are_those_of_the_phantom(raw, output):
    truth = pd.read_csv(raw / "derivatives" / "truth" / SUBJECT / f"{SUBJECT}_desc-regions_truth.tsv", sep="\t")
    found = table(output, "atlas")
    found = found[found["slice"].isna() & found["level"].notna() & (found["estimator"] == "map")]
    both = found.merge(truth, on=["region", "level", "metric"], suffixes=("", "_true"))
    tracts = both[both["region"].isin(TRACTS) & (both["n_eff"] >= 10)]
    for metric, least in (("FA", 0.8), ("MTR", 0.75), ("MTsat", 0.75), ("T1", 0.8)):
        part = tracts[tracts["metric"] == metric]
        covered = (part["ci_low"] <= part["value_true"]) & (part["value_true"] <= part["ci_high"])
        assert covered.mean() >= least, metric  # one draw of noise; benchmarks/coverage.py takes fifty
    sizes = pd.read_csv(raw / "derivatives" / "truth" / SUBJECT / f"{SUBJECT}_desc-sizes_truth.tsv", sep="\t")
    shape = table(output, "morphometry")
    own = shape[(shape["source"] == "T2w") & (shape["metric"] == "area") & shape["slice"].isna()]
    joined = own.merge(sizes, on="level")
    joined = joined[joined["level"].isin(["C2", "C3", "C4", "C5", "C6"])]
    np.testing.assert_allclose(joined["value"], joined["area"], rtol=0.06)


def test_masks_overlap_with_the_truth(raw, output):
    for token in TOKENS:
        name = f"{SUBJECT}_space-orig_label-SC_desc-{token}_mask.nii.gz"
        own = np.asarray(nib.load(output / SUBJECT / "anat" / name).dataobj) > 0
        true = np.asarray(nib.load(raw / "derivatives" / "truth" / SUBJECT / "anat" / name).dataobj) > 0
        slices = true.any(axis=(0, 1)) & own.any(axis=(0, 1)) if token != "T2w" else slice(None)
        own, true = own[..., slices], true[..., slices]
        assert 2 * (own & true).sum() / (own.sum() + true.sum()) > 0.9, token


def test_outputs_lie_on_the_grid_of_their_source(raw, output):
    for token, folder, source in (("T2w", "anat", "T2w"), ("dwi", "dwi", "dwi")):
        image = nib.load(raw / SUBJECT / folder / f"{SUBJECT}_{source}.nii.gz")
        mask = nib.load(output / SUBJECT / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-{token}_mask.nii.gz")
        assert mask.shape == image.shape[:3]
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)


def test_transforms_are_read_as_itk_reads_them(output):
    """Resample a mask to the template by the written field alone and compare with the template's cord."""
    template = load_template("qcord")
    field = nib.load(output / SUBJECT / "xfm" / f"{SUBJECT}_from-T2w_to-qcord_mode-image_xfm.nii.gz")
    assert field.header.get_intent()[0] == "vector"
    shift = np.asarray(field.dataobj)[:, :, :, 0, :] * [-1, -1, 1]  # from left-posterior-superior
    index = np.moveaxis(np.indices(field.shape[:3]), 0, -1)
    world = index @ field.affine[:3, :3].T + field.affine[:3, 3] + shift
    mask = read_image(output / SUBJECT / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-T2w_mask.nii.gz")
    places = np.moveaxis(mask.grid.index(world), -1, 0)
    moved = map_coordinates(np.asarray(mask.data, dtype=float), places, order=1) >= 0.5
    start = np.rint(template.grid.index(field.affine[:3, 3])).astype(int)[2]
    cord = template.cord[:, :, start : start + field.shape[2]] >= 0.5
    assert 2 * (moved & cord).sum() / (moved.sum() + cord.sum()) > 0.9


def test_gradients_of_the_cleaned_series_are_those_of_the_raw_one(raw, output):
    own = output / SUBJECT / "dwi" / f"{SUBJECT}_desc-preproc_dwi"
    image = nib.load(own.with_suffix(".nii.gz"))
    first = read_gradients(own.with_suffix(".bval"), own.with_suffix(".bvec"), image.affine, image.shape[3])
    source = raw / SUBJECT / "dwi" / f"{SUBJECT}_dwi"
    affine = nib.load(source.with_suffix(".nii.gz")).affine
    second = read_gradients(source.with_suffix(".bval"), source.with_suffix(".bvec"), affine, image.shape[3])
    np.testing.assert_allclose(first["Direction"], second["Direction"], atol=1e-4)


def test_report_needs_nothing_from_elsewhere(output):
    page = (output / SUBJECT / f"{SUBJECT}.html").read_text(encoding="utf-8")
    links = re.findall(r"(?:src|href)=[\"']([^\"']+)", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "http-equiv" not in page
    assert not re.search(r"(fetch|import|XMLHttpRequest)\(", page)
    for text in ("Tracts by level", "WM left lateral corticospinal tract", "doi:10.1016/j.neuroimage.2015.06.040"):
        assert text in page


def test_second_run_with_other_threads_gives_the_same_tables(raw, output, tmp_path):
    run(raw, tmp_path, derivatives=[raw / "derivatives" / "landmarks"], template="qcord", n_threads=2)
    for name in ("atlas", "morphometry", "quality"):
        file = f"{SUBJECT}_desc-{name}_metrics.tsv"
        assert (tmp_path / SUBJECT / file).read_bytes() == (output / SUBJECT / file).read_bytes(), name
    for file in ("anat/sub-healthy01_MTsat.nii.gz", "dwi/sub-healthy01_model-tensor_param-fa_dwimap.nii.gz"):
        assert (tmp_path / SUBJECT / file).read_bytes() == (output / SUBJECT / file).read_bytes()


def test_group_level_gathers_all_rows(output):
    path = gather(output)
    with duckdb.connect() as base:
        rows = base.execute(f"SELECT count(*), count(DISTINCT region) FROM '{path}'").fetchone()
        kinds = base.execute(f"SELECT typeof(value), typeof(level) FROM '{path}' LIMIT 1").fetchone()
    assert rows == (len(table(output, "atlas")), 43)
    assert kinds == ("DOUBLE", "VARCHAR")


def test_own_outputs_serve_as_derivatives(raw, output, tmp_path):
    outcomes = run(raw, tmp_path, derivatives=[output], template="qcord")
    assert outcomes[0].error == ""
    sidecar = tmp_path / SUBJECT / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-dwi_mask.json"
    assert json.loads(sidecar.read_text())["CordSource"].endswith("label-SC_desc-dwi_mask.nii.gz")
    first, second = (
        pd.read_csv(o / SUBJECT / f"{SUBJECT}_desc-atlas_metrics.tsv", sep="\t") for o in (output, tmp_path)
    )
    keys = ["metric", "region", "level", "slice", "estimator"]
    both = first.merge(second, on=keys, suffixes=("", "_again"))
    chosen = (both["region"] == "white matter") & (both["metric"] == "MTR") & both["slice"].isna()
    np.testing.assert_allclose(both.loc[chosen, "value"], both.loc[chosen, "value_again"], rtol=0.03)


@pytest.mark.parametrize("level", ["participants", ""])
def test_unknown_analysis_level_is_named(raw, tmp_path, level):
    from qcord.core.errors import UnknownName

    with pytest.raises(UnknownName, match="participant or group"):
        run(raw, tmp_path, level)
