"""The transmit field as other maps need it: smooth, filled over small gaps, with its error."""

import numpy as np

from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.preprocess.smoothing import Smoothed, smooth

WIDTH = 8.0
"""Full width at half maximum [mm] of the Gaussian: the field varies by some percent over a centimetre of the neck."""


def smooth_field(result: Fit, mask: Image | None = None, *, width: float = WIDTH) -> Smoothed:
    """Smooth the B1 map of a fit, by the error of each voxel.

    Parameters
    ----------
    result : Fit
        Of model ``double-angle`` or ``actual-flip-angle``.
    mask : Image, optional
        Voxels to use; all that were fitted by default.
    width : float
        Full width at half maximum of the Gaussian [mm].

    Returns
    -------
    Smoothed
        Actual over nominal flip angle [1] and its standard error; NaN farther than half the width from any voxel
        with a regular estimate.

    Raises
    ------
    EmptyRegion
        If no voxel has a regular estimate with an error.
    """
    field, error = result["B1"], result.std["B1"]
    regular = np.asarray(result.flag.data) == Flag.OK
    value = np.asarray(field.data, dtype=float)
    if "B1" in result.bias:
        value = value - np.nan_to_num(np.asarray(result.bias["B1"].data))
    return smooth(field.derive(np.where(regular, value, np.nan)), width, mask=mask, std=error)
