"""T1 maps by inversion recovery, from magnitudes or from signed images."""

from collections.abc import Mapping, Sequence

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.image import Image, Step, mask_of
from qcord.core.series import Series
from qcord.estimate.blocks import Output, run_blocks
from qcord.estimate.fit import fit
from qcord.maps.noise import gaussian_noise
from qcord.models.inversion_recovery import INVERSION_RECOVERY, restore_polarity
from qcord.models.registry import get


def fit_magnitudes(
    model: str,
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
    **given: Image | float,
) -> Fit:
    """T1 by inversion recovery from magnitudes.

    Parameters
    ----------
    model : str
        ``inversion-recovery`` or ``inversion-recovery-tr``.
    series : Series
        Volumes with InversionTime [s], and RepetitionTimePreparation [s] for the second model.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise. With it magnitudes are compared with the modulus of the signal and their
        noise floor. Without it signs are restored, and the residuals give the standard errors: measurements near the
        null are then taken for what they are in the mean too high.
    rician : bool
        Whether the noise is that of magnitudes; if not, the measurements are signed, see `fit_signed`.
    n_jobs : int, optional
        Threads; the result does not depend on it.
    **given : Image or float
        ``inversionefficiency`` of the second model.

    Returns
    -------
    Fit
        R1 [1/s], T1 [s] and amplitudes, with standard errors and bias.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    NotIdentifiable
        If there are fewer measurements than parameters.

    References
    ----------
    Barral, Gudmundson, Stikov, Etezadi-Amoli, Stoica and Nishimura 2010, doi:10.1002/mrm.22497.
    """
    if not rician:
        return fit_signed(model, series, mask, sigma=sigma, rician=False, n_jobs=n_jobs, **given)
    chosen, known = get(model), _by_name(model, given)
    if sigma is not None:
        modulus = series.image.derive(np.abs(series.data))
        return fit(chosen, Series(modulus, series.protocol), mask, noise=sigma, given=known, n_jobs=n_jobs)
    return fit(chosen, with_polarity(series, mask, n_jobs=n_jobs), mask, given=known, n_jobs=n_jobs)


def fit_signed(
    model: str,
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = False,
    n_jobs: int | None = None,
    **given: Image | float,
) -> Fit:
    """T1 by inversion recovery from signed images: real parts, or magnitudes with their polarity.

    Parameters
    ----------
    model, series, mask, n_jobs, **given
        As for `fit_magnitudes`.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise, which is normal; without it the residuals give the standard errors.
    rician : bool
        Has no effect: signed images have normal noise.

    Returns
    -------
    Fit
        R1 [1/s], T1 [s] and amplitudes, with standard errors and bias.
    """
    noise = gaussian_noise(sigma, series)
    return fit(get(model), series, mask, noise=noise, given=_by_name(model, given), n_jobs=n_jobs)


def _by_name(model: str, given: Mapping[str, Image | float]) -> dict[str, Image | float]:
    return {p.name: given[p.name.lower()] for p in get(model).given if p.name.lower() in given}


def with_polarity(series: Series, mask: Image | None = None, *, n_jobs: int | None = None) -> Series:
    """Give magnitudes of an inversion recovery their signs.

    Parameters
    ----------
    series : Series
        Magnitudes with InversionTime [s].
    mask : Image, optional
        Voxels to work on; NaN elsewhere.
    n_jobs : int, optional
        Threads.

    Returns
    -------
    Series
        Negative where the magnetisation was still inverted.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497 (least squares for each possible place of the null).
    """
    times = series.protocol["InversionTime"]

    def work(signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        size = np.abs(signals)
        _, sign = restore_polarity(size.T, times)
        return {"signed": size * sign.T, "flag": np.zeros(signals.shape[1], dtype=int)}

    outputs = [Output("signed", len(times))]
    signed = run_blocks(work, series.data, mask_of(mask, series.image.grid), outputs, copies=8, n_jobs=n_jobs)["signed"]
    step = Step("with_polarity", {}, INVERSION_RECOVERY.references)
    return Series(series.image.derive(signed.reshape(series.data.shape), step), series.protocol)
