import nibabel as nib
import numpy as np
import pytest

from qcord.estimate.simulate import simulate
from qcord.models.noddi import NODDI, axis_of
from qcord.pipeline.fit import fit

AFFINE = np.diag([-1.0, 1, 5, 1])
THETA = np.array([900.0, 0.6, 0.08, 0.1, 15.0, -20.0])


@pytest.fixture
def scan(tmp_path):
    """Files of a two-shell scan of one tissue; without noise."""
    protocol = NODDI.example()
    path = tmp_path / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    path.parent.mkdir(parents=True)
    signal = simulate(NODDI, THETA, protocol)
    nib.save(nib.Nifti1Image(np.broadcast_to(signal, (3, 4, 2, len(signal))).astype(np.float32), AFFINE), path)
    stem = path.with_name("sub-01_dwi")
    stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in protocol["BValue"]))
    rows = protocol["Direction"] * [-1, 1, 1]  # the determinant of the affine is negative
    stem.with_suffix(".bvec").write_text("\n".join(" ".join(f"{v:.8f}" for v in row) for row in rows.T))
    return path


def test_files_of_two_shells_give_neurite_maps_in_world_axes(scan, tmp_path):
    files = fit("noddi", [scan], tmp_path / "out")
    assert files["ICVF"].name == "sub-01_model-noddi_param-icvf_dwimap.nii.gz"
    for k, name in enumerate(("ICVF", "ODI", "ISOVF"), 1):
        np.testing.assert_allclose(np.asarray(nib.load(files[name]).dataobj), THETA[k], atol=2e-3)
    axis = np.asarray(nib.load(files["V1"]).dataobj)[1, 2, 1]
    np.testing.assert_allclose(axis, axis_of(THETA[4], THETA[5]), atol=1e-3)
    assert (tmp_path / "out" / "sub-01_model-noddi_param-odi_desc-se_dwimap.nii.gz").is_file()


def test_spherical_means_of_files(scan, tmp_path):
    files = fit("smt-mc", [scan], tmp_path / "out")
    assert files["NeuriteFraction"].name == "sub-01_model-smtmc_param-fraction_dwimap.nii.gz"
    fraction = np.asarray(nib.load(files["NeuriteFraction"]).dataobj)
    assert 0.3 < fraction.mean() < 0.7
