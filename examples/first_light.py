"""A phantom's diffusion scan: tensor with errors, cord mask, template."""

from qcord import api
from qcord.anatomy.segment import segment_cord
from qcord.maps.tensor import fit_tensor
from qcord.phantom.spec import preset
from qcord.phantom.subject import make_subject

scan = make_subject(preset("healthy").replace(series=("dwi",))).series["dwi"]
fit = fit_tensor(scan)
mean = scan.image.derive(scan.data[..., scan.protocol["BValue"] > 50].mean(axis=-1))
cord = segment_cord(mean, "dwi").mask.data
print("FA", fit["FA"].data[cord].mean(), "with an error per voxel of", fit.std["FA"].data[cord].mean())
print("template:", api.load_template("qcord").name)
