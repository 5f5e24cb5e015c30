"""The tensor maps of real scans against DIPY's, on the same voxels with the same weights."""

import numpy as np
import pytest

from qcord.core.series import Series
from qcord.ingest.gradients import read_gradients
from qcord.ingest.nifti import read_image
from qcord.ingest.series import stored_affine
from qcord.maps.tensor import fit_tensor

pytestmark = pytest.mark.real


def load(data_dir, subject):
    base = data_dir / "bids-cord" / f"sub-{subject}" / "dwi" / f"sub-{subject}_dwi"
    image = read_image(base.with_suffix(".nii.gz"))
    protocol = read_gradients(
        base.with_suffix(".bval"), base.with_suffix(".bvec"), stored_affine(image), image.n_volumes
    )
    return Series(image, protocol)


@pytest.fixture(scope="module", params=["sct019", "errsm30"])
def pair(request, data_dir):
    """Our fit and DIPY's on the voxels of a real scan where all signals are positive."""
    dti = pytest.importorskip("dipy.reconst.dti")
    from dipy.core.gradients import gradient_table

    series = load(data_dir, request.param)
    fit = fit_tensor(series)
    voxels = (series.data > 0).all(axis=-1) & np.isfinite(fit["FA"].data)
    table = gradient_table(series.protocol["BValue"], bvecs=series.protocol["Direction"], b0_threshold=50)
    peer = dti.TensorModel(table, fit_method="WLS").fit(series.data[voxels].astype(float))
    return fit, peer, voxels


def test_enough_voxels_are_compared(pair):
    assert pair[2].sum() > 5000


@pytest.mark.parametrize(("name", "attribute"), [("FA", "fa"), ("MD", "md"), ("AD", "ad"), ("RD", "rd")])
def test_scalar_maps_agree(pair, name, attribute):
    """Median relative difference below 1e-6 (single precision of the maps). The few above are radial diffusivities
    near zero, where DIPY puts 6e-10 mm2/s for a negative eigenvalue."""
    fit, peer, voxels = pair
    mine, theirs = fit[name].data[voxels].astype(float), getattr(peer, attribute)
    difference = np.abs(mine - theirs) / np.maximum(np.abs(theirs), 1e-6)
    assert np.median(difference) < 1e-6
    assert np.quantile(difference, 0.999) < 2e-3


def test_first_eigenvectors_agree(pair):
    fit, peer, voxels = pair
    agreement = np.abs((fit["V1"].data[voxels] * peer.evecs[..., 0]).sum(axis=-1))
    assert np.quantile(agreement, 0.01) > 1 - 1e-4


def test_cord_values_are_those_of_other_software(data_dir):
    """Means in a rough cord mask: FA .751, MD 8.54e-4 mm2/s there."""
    reference = data_dir / "reference" / "sct019_dmri_cord.nii.gz"
    mask = read_image(reference)
    fit = fit_tensor(load(data_dir, "sct019"), mask)
    inside = mask.data > 0.5
    assert np.isfinite(fit["FA"].data[inside]).mean() > 0.98
    assert 0.745 < np.nanmean(fit["FA"].data[inside]) < 0.757
    assert 8.4e-4 < np.nanmean(fit["MD"].data[inside]) < 8.7e-4
    upright = np.abs(fit["V1"].data[inside][..., 2])
    assert np.nanmedian(upright) > 0.9
