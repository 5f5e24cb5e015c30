import nibabel as nib
import numpy as np

from qcord.pipeline.fit import fit
from tensor_ensembles import axisymmetric, linear_and_spherical, summed_signal, truth_of, white_matter

AFFINE = np.diag([-1.0, 1, 5, 1])


def scan(tmp_path, tensors):
    """Files of a scan with linear and spherical encoding; without noise."""
    protocol = linear_and_spherical()
    signal = summed_signal(tensors, protocol)
    path = tmp_path / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.broadcast_to(signal, (3, 4, 2, len(signal))).astype(np.float32), AFFINE), path)
    stem = path.with_name("sub-01_dwi")
    stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in protocol["BValue"]))
    rows = protocol["Direction"] * [-1, 1, 1]  # the determinant of the affine is negative
    stem.with_suffix(".bvec").write_text("\n".join(" ".join(f"{v:.7f}" for v in row) for row in rows.T))
    words = np.where(protocol["BDelta"] == 1, "LTE", "STE")
    stem.with_suffix(".bdelta").write_text("\n".join(words))
    return path


def test_a_scan_of_two_shapes_gives_maps_of_microscopic_anisotropy(tmp_path):
    files = fit("mufa", [scan(tmp_path, white_matter())], tmp_path / "out")
    assert {"muFA", "FA", "OP", "C_mu"} <= set(files)
    assert files["muFA"].name == "sub-01_model-mufa_param-mufa_dwimap.nii.gz"
    truth = truth_of(white_matter())
    for name, error in (("muFA", 0.06), ("FA", 0.03), ("OP", 0.1)):
        values = np.asarray(nib.load(files[name]).dataobj)
        assert values.shape == (3, 4, 2)
        np.testing.assert_allclose(values, truth[name], atol=error)
    assert (tmp_path / "out" / "sub-01_model-mufa_param-mufa_desc-se_dwimap.nii.gz").is_file()


def test_the_tensor_of_such_a_scan_knows_the_shapes(tmp_path):
    tensors = axisymmetric([1.7e-3], [0.4e-3], [[0.0, 0.6, 0.8]])
    files = fit("tensor", [scan(tmp_path, tensors)], tmp_path / "out")
    truth = truth_of(tensors)
    for name in ("FA", "MD"):
        np.testing.assert_allclose(np.asarray(nib.load(files[name]).dataobj), truth[name], rtol=1e-4)
    first = np.asarray(nib.load(files["V1"]).dataobj)[0, 0, 0]
    np.testing.assert_allclose(first, [0, 0.6, 0.8], atol=1e-3)
