"""Maps of inhomogeneous magnetisation transfer: ratio and saturation."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.maps.closed_form import ClosedForm, fit_closed_form
from qcord.maps.mtr import take_noise
from qcord.models.inhomogeneous_mt import IHMTR, IHMTSAT, dual_inverse, ratio_rows, saturation_rows
from qcord.models.spoiled_gradient_echo import B1_DEPENDENCE


def ihmtr(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Inhomogeneous magnetisation transfer ratio from images without, with single- and with dual-frequency pulse.

    Parameters
    ----------
    series : Series
        Volumes with MTFrequencies (0, 1 or 2); those of one kind are averaged. Images of another flip angle or
        repetition time than the dual-frequency ones are left out.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a volume of the series. Without it there are
        no standard errors.
    rician : bool
        Whether the measurements are magnitudes, which noise raises.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps ihMTR [percent], MTR of the single-frequency pulse [percent] and S0, with standard errors and bias.

    Raises
    ------
    MissingMetadata
        If an image without, with single- or with dual-frequency pulse is absent.
    """
    groups = ratio_rows(series.protocol)
    step = Step("ihmtr", {"model": IHMTR.name, "method": "closed form"}, IHMTR.references)

    def formula(signals: AnyArray, given: FloatArray) -> AnyArray:
        plain, single, dual = _means(signals, groups)
        return np.stack([plain, 100 * (plain - single) / plain, 200 * (single - dual) / plain])

    return _fit(
        ClosedForm(IHMTR, formula), series, mask, step, groups, sigma=sigma, rician=rician, b1=None, n_jobs=n_jobs
    )


def ihmtsat(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    b1: Image | float | None = None,
    b1_dependence: float = B1_DEPENDENCE,
    n_jobs: int | None = None,
) -> Fit:
    """Inhomogeneous magnetisation transfer saturation, by Helms' closed form for either pulse.

    Parameters
    ----------
    series : Series
        Volumes with FlipAngle [deg], RepetitionTimeExcitation [s] and MTFrequencies (0, 1 or 2): single- and
        dual-frequency, proton-density and T1-weighted; those of one kind are averaged.
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
        How either saturation depends on the transmit field beyond its square; see
        `qcord.models.spoiled_gradient_echo.B1_DEPENDENCE`. For ihMTsat it is an assumption.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps ihMTsat, MTsat (single frequency), MTsatDual [percent], R1 [1/s], T1 [s] and the amplitude A, with
        standard errors and bias. Without ``b1`` all are apparent values, and the history says so.

    Raises
    ------
    MissingMetadata
        If a setting or a kind of image is absent.
    GridMismatch
        If the transmit field lies on another grid.
    """
    groups = saturation_rows(series.protocol)
    first = [g[0] for g in groups]
    angles = np.deg2rad(series.protocol["FlipAngle"])[first]
    times = series.protocol["RepetitionTimeExcitation"][first]

    def formula(signals: AnyArray, given: FloatArray) -> AnyArray:
        means = np.stack(_means(signals, groups))
        amplitude, rate, single, more = dual_inverse(means, angles[:, None], times, given[0], dependence=b1_dependence)
        return np.stack([amplitude, rate, single, more, 1 / rate, single + more])

    settings = {
        "model": IHMTSAT.name,
        "method": "closed form",
        "FlipAngle": np.rad2deg(angles).round(6).tolist(),
        "RepetitionTimeExcitation": times.tolist(),
        "B1": "given" if b1 is not None else "not corrected: saturations, T1 and R1 are apparent values",
        "B1Dependence": b1_dependence,
    }
    step = Step("ihmtsat", settings, IHMTSAT.references)
    return _fit(
        ClosedForm(IHMTSAT, formula), series, mask, step, groups, sigma=sigma, rician=rician, b1=b1, n_jobs=n_jobs
    )


def _fit(
    closed: ClosedForm,
    series: Series,
    mask: Image | None,
    step: Step,
    groups: Sequence[Sequence[int]],
    *,
    sigma: Image | float | Sequence[float] | None,
    rician: bool,
    b1: Image | float | None,
    n_jobs: int | None,
) -> Fit:
    rows = [r for g in groups for r in g]
    return fit_closed_form(
        closed,
        series.take(rows),
        mask,
        step,
        sigma=take_noise(sigma, rows, len(series.protocol)),
        rician=rician,
        given=None if b1 is None else {"B1": b1},
        n_jobs=n_jobs,
    )


def _means(signals: AnyArray, groups: Sequence[Sequence[int]]) -> list[AnyArray]:
    """Mean image of each kind, of signals (n, v) in the order of the groups."""
    ends = np.cumsum([0, *(len(g) for g in groups)])
    return [signals[a:b].mean(axis=0) for a, b in pairwise(ends)]
