import nibabel as nib
import numpy as np

from cord_kurtosis import truth, typical
from qcord.estimate.simulate import simulate
from qcord.models.kurtosis import KURTOSIS, example
from qcord.pipeline.fit import fit

AFFINE = np.diag([-1.0, 1, 5, 1])


def scan(tmp_path):
    """Files of a scan of two shells; without noise."""
    signal = simulate(KURTOSIS, typical("white", 24), example()).reshape(3, 4, 2, -1)
    path = tmp_path / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(signal.astype(np.float32), AFFINE), path)
    stem = path.with_name("sub-01_dwi")
    stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in example()["BValue"]))
    rows = example()["Direction"] * [-1, 1, 1]  # the determinant of the affine is negative
    stem.with_suffix(".bvec").write_text("\n".join(" ".join(f"{v:.7f}" for v in row) for row in rows.T))
    return path


def test_a_scan_of_two_shells_gives_maps_of_kurtosis(tmp_path):
    files = fit("kurtosis", [scan(tmp_path)], tmp_path / "out")
    assert files["MK"].name == "sub-01_model-dki_param-mk_dwimap.nii.gz"
    for name in ("MK", "AK", "RK", "MKT", "FA", "MD"):
        values = np.asarray(nib.load(files[name]).dataobj)
        assert values.shape == (3, 4, 2)
        np.testing.assert_allclose(values, truth(typical("white", 1))[name][0], rtol=1e-3)
    assert (tmp_path / "out" / "sub-01_model-dki_param-mk_desc-se_dwimap.nii.gz").is_file()


def test_and_of_the_mean_signal(tmp_path):
    files = fit("mean-signal-kurtosis", [scan(tmp_path)], tmp_path / "out")
    assert files["MSK"].name == "sub-01_model-msdki_param-msk_dwimap.nii.gz"
    assert 1.0 < np.asarray(nib.load(files["MSK"]).dataobj).mean() < 1.1
