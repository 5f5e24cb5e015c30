"""Magnetisation transfer ratio maps."""

from collections.abc import Sequence

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.maps.closed_form import ClosedForm, fit_closed_form
from qcord.models.magnetisation_transfer_ratio import MTR, pair_rows


def mtr(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Magnetisation transfer ratio from one image with and one without the transfer pulse.

    Parameters
    ----------
    series : Series
        Volumes with MTState; of a triplet, the pair of equal flip angle and repetition time is used.
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
        Maps MTR [percent] and S0, with standard errors and bias.

    Raises
    ------
    MissingMetadata
        If the settings do not tell one pair.
    """
    on, off = pair_rows(series.protocol)
    step = Step("mtr", {"model": MTR.name, "method": "closed form"}, MTR.references)
    closed = ClosedForm(MTR, _ratio)
    return fit_closed_form(
        closed,
        series.take([on, off]),
        mask,
        step,
        sigma=take_noise(sigma, [on, off], len(series.protocol)),
        rician=rician,
        n_jobs=n_jobs,
    )


def take_noise(
    sigma: Image | float | Sequence[float] | None, rows: list[int], n: int
) -> Image | float | Sequence[float] | None:
    """Noise of some of n volumes; one map or value stands for all."""
    if isinstance(sigma, Image):
        return sigma.derive(sigma.data[..., rows]) if sigma.n_volumes == n and n > 1 else sigma
    if sigma is not None and np.size(sigma) == n and n > 1:
        return [float(np.asarray(sigma)[r]) for r in rows]
    return sigma


def _ratio(signals: AnyArray, given: FloatArray) -> AnyArray:
    saturated, plain = signals
    return np.stack([plain, 100 * (1 - saturated / plain)])
