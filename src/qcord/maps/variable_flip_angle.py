"""T1 maps from several flip angles."""

from collections.abc import Sequence
from dataclasses import replace

from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.core.series import Series
from qcord.estimate.fit import fit
from qcord.maps.mtr import take_noise
from qcord.maps.noise import gaussian_noise
from qcord.models.variable_flip_angle import VFA, flip_angle_rows


def flip_angle_maps(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    b1: Image | float | None = None,
    n_jobs: int | None = None,
) -> Fit:
    """T1 and amplitude from the exact steady state, by nonlinear least squares.

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
    b1 : Image or float, optional
        Transmit field, actual over nominal flip angle [1].
    n_jobs : int, optional
        Threads; the result does not depend on it.

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
    chosen = series.take(rows)
    noise = level if rician else gaussian_noise(level, chosen)
    result = fit(VFA, chosen, mask, noise=noise, given={} if b1 is None else {"B1": b1}, n_jobs=n_jobs)
    return state_transmit_field(result, given=b1 is not None)


def state_transmit_field(result: Fit, *, given: bool) -> Fit:
    """Write into the history of all maps whether the transmit field was taken into account."""
    said = {"B1": "given" if given else "not corrected: T1 and R1 are apparent values"}

    def stated(image: Image) -> Image:
        *before, last = image.history
        return replace(image, history=(*before, replace(last, settings={**last.settings, **said})))

    return replace(
        result,
        maps={k: stated(v) for k, v in result.maps.items()},
        std={k: stated(v) for k, v in result.std.items()},
        bias={k: stated(v) for k, v in result.bias.items()},
    )
