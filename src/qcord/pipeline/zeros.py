"""Zeros in maps of other software: a value, or none."""

import warnings

import numpy as np

from qcord.atlas.extract import DESCRIBED
from qcord.atlas.project import Atlas
from qcord.core.errors import ApproximationWarning, QcordWarning, SetApartWarning
from qcord.core.image import Image

NEVER_ZERO = frozenset(
    {
        *("fa", "md", "ad", "rd", "adc", "msd", "s0"),
        *("mtr", "mtsat"),
        *("t1", "r1", "t2", "r2", "t2star", "r2star", "t2ie", "t2b"),
        *("m0", "pd", "b1", "tb1", "gratio"),
    }
)
"""Metrics, in small letters and digits, that no tissue has at exactly 0, so that 0 is what programs write outside their
mask and where their fit failed. Fractions (MWF, ICVF, f), kurtoses, anisotropies that are cut off at 0 and what is
not known by name are not among them: there 0 may be an estimate at its bound."""


def without_false_zeros(value: Image, metric: str, atlas: Atlas) -> tuple[Image, str]:
    """Map of other software with NaN where its 0 stands for no value.

    Parameters
    ----------
    value : Image
        Map that holds 0, or NaN, where it has no value; on the grid of the atlas.
    metric : str
        What it is a map of; capitals and signs do not matter, nor does ``map`` at the end.
    atlas : Atlas
        Where zeros are counted.

    Returns
    -------
    image : Image
        As given where it holds no zero, or its metric may be 0.
    note : str
        One sentence that counts the zeros where the atlas lies, and says what became of them; empty where there are
        none.

    Warns
    -----
    SetApartWarning
        With the sentence, if zeros were taken as missing.
    ApproximationWarning
        With the sentence, if zeros count as values that may be none.
    """
    data = np.asarray(value.data)
    zero = data == 0
    described = np.asarray(atlas.weights.sum(axis=1) >= DESCRIBED)
    here = zero[tuple(atlas.index.T)][described]
    never = _plain(metric) in NEVER_ZERO
    image = value.derive(np.where(zero, np.nan, data)) if never and zero.any() else value
    if not here.any():
        return image, ""
    found = f"{value.label} is 0 in {here.sum()} of {here.size} voxels of the atlas"
    if never:
        note = f"{found}, which {metric} of tissue cannot be; they were taken as missing."
        kind: type[QcordWarning] = SetApartWarning
    else:
        note = f"{found}, and {metric or 'its metric'} may be 0: they count as values; give NaN to voxels without one."
        kind = ApproximationWarning
    warnings.warn(note, kind, stacklevel=3)
    return image, note


def _plain(metric: str) -> str:
    return "".join(c for c in metric.lower().replace("*", "star") if c.isalnum()).removesuffix("map")
