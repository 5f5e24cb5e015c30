"""Values per tract and level of one phantom, in memory: cord, levels, registration, atlas, read-out."""

import numpy as np

from qcord import api
from qcord.anatomy.levels import levels_from_landmarks
from qcord.anatomy.register import PLACEMENT, centerline_of_cord, register, registration_quality
from qcord.anatomy.segment import segment_cord
from qcord.atlas.extract import extract
from qcord.atlas.project import project_atlas
from qcord.maps.mtr import mtr
from qcord.phantom.spec import preset
from qcord.phantom.subject import make_subject
from qcord.preprocess.noise import estimate_noise

subject = make_subject(preset("lesion").replace(series=("MTS",)))
series = subject.series["MTS"]
with_pulse = series.image.derive(series.data[..., np.flatnonzero(series.protocol["MTState"])[0]])
cord = segment_cord(with_pulse, "MTon").probability

discs = subject.landmarks[subject.landmarks["kind"] == "disc"]
points = {name: (x, y, z) for name, x, y, z in discs[["name", "x", "y", "z"]].itertuples(index=False)}
template = api.load_template("qcord")
levels = levels_from_landmarks(centerline_of_cord(cord), points, template)
registration = register(cord, template, levels)
print("registration:", registration_quality(registration, cord).summary)

noise = estimate_noise(series.image)
fit = mtr(series, sigma=noise.sigma)
value = fit["MTR"].derive(fit["MTR"].data - np.nan_to_num(fit.bias["MTR"].data))
table = extract(
    {"MTR": value},
    project_atlas(registration, cord, PLACEMENT),
    std={"MTR": fit.std["MTR"]},
    by=["level"],
    estimators=["map"],
    regions=["white matter", "WM left lateral corticospinal tract", "WM right lateral corticospinal tract"],
    correlation=noise.correlation,
)
print(table[["region", "level", "value", "ci_low", "ci_high", "flag"]].round(1).to_string(index=False))
