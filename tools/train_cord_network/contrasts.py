"""Brightness of each tissue: wide ranges for the known families of sequences, and fully random ones."""

import numpy as np
from numpy.typing import NDArray

TISSUES = (
    *("air", "fat", "muscle", "marrow", "cortex", "disc", "ligament", "artery", "vein", "epidural"),
    *("fluid", "white", "gray", "root", "lesion", "brain", "gland"),
)
INDEX = {name: i for i, name in enumerate(TISSUES)}

# Ranges relative to the brightest of cord and fluid. Order of the columns: TISSUES up to "root".
_RANGES: dict[str, str] = {
    # air, fat, muscle, marrow, cortex, disc, ligament, artery, vein, epidural, fluid, white, gray/white, root
    "T2w": "0-.03 .2-1 .05-.4 .08-.6 0-.12 .05-.9 0-.2 0-.4 0-1 .1-.9 .85-1 .12-.65 .95-1.3 .1-.6",
    "T2star": "0-.05 .15-1 .15-.7 .02-.45 0-.2 .1-.8 .05-.4 .2-1.5 .2-1.5 .2-1 .8-1 .25-.8 1-1.35 .3-.9",
    "T1w": "0-.05 .6-2 .35-.9 .2-1.3 0-.25 .2-.7 .1-.5 0-1.8 .1-1.5 .4-1.8 .1-.6 .65-1 .75-1.02 .3-.9",
    "GRE": "0-.05 .3-2.5 .3-1.2 .05-.8 0-.3 .2-.9 .1-.6 .2-2.2 .2-2 .3-1.6 .35-1 .35-1 .85-1.25 .3-1",
    "dwi": "0-.1 .01-.3 .02-.35 .01-.3 0-.1 .01-.4 0-.15 0-.3 0-.4 .02-.5 .03-.45 .8-1 .8-1.25 .2-1",
    "b0": "0-.05 .01-.4 .05-.5 .02-.4 0-.15 .05-.7 0-.3 0-.6 .1-1 .1-.9 .8-1 .3-.9 .95-1.3 .3-1",
    "random": "0-.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1.3 0-1 0-1 .7-1.4 0-1.2",
}
_WEIGHTS = {"T2w": 0.19, "T2star": 0.19, "T1w": 0.12, "GRE": 0.2, "dwi": 0.13, "b0": 0.1, "random": 0.07}
CLEAR = 0.1
"""Least difference between cord and fluid, relative to the brighter one."""


def draw_contrast(rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
    """Family of one random sequence, and the brightness of each of `TISSUES` in it."""
    names = list(_WEIGHTS)
    family = names[int(rng.choice(len(names), p=np.array(list(_WEIGHTS.values()))))]
    bounds = np.array([[float(v) for v in part.split("-")] for part in _RANGES[family].split()])
    while True:
        value = rng.uniform(bounds[:, 0], bounds[:, 1])
        fluid, white = value[INDEX["fluid"]], value[INDEX["white"]]
        if abs(fluid - white) >= CLEAR * max(fluid, white) and max(fluid, white) > 0.25:
            break
    out = np.zeros(len(TISSUES), dtype=np.float32)
    out[: len(value)] = value
    out[INDEX["gray"]] = white * value[INDEX["gray"]]
    if rng.random() < 0.7:
        out[INDEX["root"]] = white * rng.uniform(0.7, 1.3)  # roots are of the same tissue
    out[INDEX["lesion"]] = white * rng.uniform(0.6, 1.0) + fluid * rng.uniform(0.0, 0.6)
    out[INDEX["brain"]] = white * rng.uniform(0.8, 1.4)
    out[INDEX["gland"]] = rng.uniform(0.1, 1.0)
    return family, out
