"""MTsat and T1 maps from three spoiled gradient echoes."""

from collections.abc import Sequence

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.maps.closed_form import ClosedForm, fit_closed_form
from qcord.maps.mtr import take_noise
from qcord.models.spoiled_gradient_echo import B1_DEPENDENCE, MTSAT, helms_inverse, triplet_rows


def mtsat(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    b1: Image | float | None = None,
    b1_dependence: float = B1_DEPENDENCE,
    half_tangent: bool = False,
    n_jobs: int | None = None,
) -> Fit:
    """Magnetisation transfer saturation and T1 from a triplet, by Helms' closed form.

    Parameters
    ----------
    series : Series
        Three volumes with FlipAngle [deg], RepetitionTimeExcitation [s] and MTState, each of its own file. Which
        is which is told by these columns, not by the order.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a volume of the series. Without it there are
        no standard errors.
    rician : bool
        Whether the measurements are magnitudes, which noise raises.
    b1 : Image or float, optional
        Transmit field, actual over nominal flip angle [1].
    b1_dependence : float
        How the saturation depends on the transmit field beyond its square; see
        `qcord.models.spoiled_gradient_echo.B1_DEPENDENCE`.
    half_tangent : bool
        Put 2 tan(angle / 2) in the place of the angle, which makes the steady state exact in it. By default the
        published small-angle form is used, so that values compare with those of other software: its T1 is about
        1 % too long with flip angles of 9 and 15 degrees.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps MTsat [percent] (BIDS leaves the unit of MTsat open), T1 [s], R1 [1/s] and the amplitude A, with
        standard errors and bias. Without ``b1`` T1 and R1 are apparent values, and the history says so.

    Raises
    ------
    MissingMetadata
        If a setting is absent, or they do not tell one triplet.
    GridMismatch
        If the transmit field lies on another grid.
    """
    rows = list(triplet_rows(series.protocol))
    nominal = np.deg2rad(series.protocol["FlipAngle"])[rows]
    angles = 2 * np.tan(nominal / 2) if half_tangent else nominal
    times = series.protocol["RepetitionTimeExcitation"][rows]

    def formula(signals: AnyArray, given: FloatArray) -> AnyArray:
        amplitude, rate, saturation = helms_inverse(signals, angles[:, None], times, given[0], dependence=b1_dependence)
        return np.stack([amplitude, rate, saturation, 1 / rate])

    settings = {
        "model": MTSAT.name,
        "method": "closed form",
        "angle": "half tangent" if half_tangent else "small angle",
        "FlipAngle": np.rad2deg(nominal).round(6).tolist(),
        "RepetitionTimeExcitation": times.tolist(),
        "B1": "given" if b1 is not None else "not corrected: T1 and R1 are apparent values",
        "B1Dependence": b1_dependence,
    }
    return fit_closed_form(
        ClosedForm(MTSAT, formula),
        series.take(rows),
        mask,
        Step("mtsat", settings, MTSAT.references),
        sigma=take_noise(sigma, rows, len(series.protocol)),
        rician=rician,
        given=None if b1 is None else {"B1": b1},
        n_jobs=n_jobs,
    )
