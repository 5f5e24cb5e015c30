"""T1 maps from several flip angles."""

from collections.abc import Sequence

from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.core.series import Series
from qcord.maps.mtr import take_noise
from qcord.maps.relaxation import fit_relaxation
from qcord.models.variable_flip_angle import VFA, flip_angle_rows


def flip_angle_maps(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
    **given: Image | float,
) -> Fit:
    """T1 and amplitude from the exact steady state.

    Parameters
    ----------
    series : Series
        Volumes with FlipAngle [deg] and RepetitionTimeExcitation [s]; those with a transfer pulse (MTState) are left
        out.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; without it the residuals give the standard errors, if there are more than
        two volumes.
    rician : bool
        Whether the measurements are magnitudes, which are then compared with their expectation.
    n_jobs : int, optional
        Threads; the result does not depend on it.
    **given : Image or float
        ``b1``, the transmit field, actual over nominal flip angle [1].

    Returns
    -------
    Fit
        M0, R1 [1/s], T1 [s] with standard errors and bias; without ``b1`` apparent values, and the history says so.

    Raises
    ------
    MissingMetadata
        If a setting is absent, or all volumes have the same T1 weighting.
    GridMismatch
        If the transmit field lies on another grid.
    """
    rows = list(flip_angle_rows(series.protocol))
    level = take_noise(sigma, rows, len(series.protocol))
    return fit_relaxation(VFA.name, series.take(rows), mask, sigma=level, rician=rician, n_jobs=n_jobs, **given)
