"""The transmit field as other maps need it: smooth, filled over small gaps, with its error."""

import numpy as np

from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.series import Series
from qcord.maps.relaxation import fit_relaxation
from qcord.preprocess.smoothing import Smoothed, smooth

WIDTH = 8.0
"""Full width at half maximum [mm] of the Gaussian: the field varies by some percent over a centimetre of the neck."""


FAINT = 8.0
"""Signal over noise below which a voxel does not enter: its estimate, and the error that comes with it, are chance."""


def transmit_field(
    series: Series, sigma: Image, *, model: str, width: float = WIDTH, n_jobs: int | None = None
) -> Smoothed:
    """Fit and smooth the transmit field where there is signal.

    Parameters
    ----------
    series : Series
        Images of two flip angles or two repetition times.
    sigma : Image
        Standard deviation of the noise.
    model : str
        ``double-angle`` or ``actual-flip-angle``.
    width : float
        Full width at half maximum of the Gaussian [mm].
    n_jobs : int, optional
        Threads.

    Returns
    -------
    Smoothed
        As of `smooth_field`.

    Raises
    ------
    EmptyRegion
        If no voxel has signal, or none a regular estimate.
    """
    with np.errstate(invalid="ignore"):
        lit = np.abs(series.data).max(axis=-1) > FAINT * np.asarray(sigma.data).reshape(series.image.grid.shape)
    mask = series.image.derive(lit.astype(np.uint8), unit="label")
    power = series.image.derive(np.square(series.data, dtype=float).sum(axis=-1))
    return smooth_field(fit_relaxation(model, series, mask, sigma=sigma, n_jobs=n_jobs), power=power, width=width)


def smooth_field(
    result: Fit, mask: Image | None = None, *, power: Image | None = None, width: float = WIDTH
) -> Smoothed:
    """Smooth the B1 map of a fit, by the error of each voxel.

    The error that a fit states falls with the estimate of B1, so that voxels which noise has raised would count more
    and raise the field by several of its standard errors. With ``power`` they count by the error that their signal
    and their surroundings make one expect: the variance is taken as the mean of the surroundings of variance times
    power, itself weighted by power, over the voxel's own power, which noise changes far less.

    Parameters
    ----------
    result : Fit
        Of model ``double-angle`` or ``actual-flip-angle``.
    mask : Image, optional
        Voxels to use; all that were fitted by default. Air must not be among them.
    power : Image, optional
        Sum of squares of the images; without it each voxel counts by the error that its own estimate states.
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
    if power is not None:
        require_same_grid(power.grid, error.grid, power.label, error.label)
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.sqrt(np.asarray(power.data, dtype=float))
            scaled = np.square(np.where(regular, error.data * strength, np.nan))
            level = smooth(error.derive(scaled), width, mask=mask, std=error.derive(1 / strength)).image
            error = error.derive(np.sqrt(level.data) / strength)
    return smooth(field.derive(np.where(regular, value, np.nan)), width, mask=mask, std=error)
