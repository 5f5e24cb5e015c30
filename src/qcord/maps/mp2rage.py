"""T1 from MP2RAGE: polarity of the images, their ratio image, and T1 from both images or from the ratio alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.grid import require_same_grid
from qcord.core.image import Image, Step, mask_of
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.jacobian import STEP
from qcord.estimate.propagate import independent_errors
from qcord.maps.relaxation import fit_relaxation
from qcord.models.mp2rage import MP2RAGE, two_inversions, unified

SCANNER_RANGE = 4095.0
"""Largest value of a ratio image that a scanner stores as integers, 0 for -.5."""

_HALVINGS = 40
_FASTEST = 5.0
"""Rate [1/s] up to which the ratio of the images rises with it at all common settings."""


def with_polarity(series: Series, *, phases: Sequence[Image] = (), ratio: Image | None = None) -> Series:
    """Give the magnitudes of both inversions their signs.

    Parameters
    ----------
    series : Series
        Magnitudes with InversionTime [s], two volumes.
    phases : sequence of Image, optional
        Phase images [rad] in the same order.
    ratio : Image, optional
        Ratio image of the scanner, -.5 to .5 or 0 to 4095; used where there are no phases.

    Returns
    -------
    Series
        Signed: the image of the later inversion time is positive.

    Raises
    ------
    MissingMetadata
        If there is neither phase nor ratio image: magnitudes alone leave two values of T1.
    """
    times = series.protocol["InversionTime"]
    first, second = int(times.argmin()), int(times.argmax())
    data = np.array(series.data, dtype=np.float32)
    if phases:
        for phase in phases:
            require_same_grid(phase.grid, series.image.grid, phase.label, series.image.label)
        turn = np.asarray(phases[first].data, dtype=float) - np.asarray(phases[second].data, dtype=float)
        data[..., first] *= np.cos(turn)
        source = "phase images"
    elif ratio is not None:
        require_same_grid(ratio.grid, series.image.grid, ratio.label, series.image.label)
        data[..., first] = np.where(normalised(ratio).data < 0, -data[..., first], data[..., first])
        source = "ratio image"
    else:
        raise MissingMetadata(
            f"{series.protocol.source or series.image.label} holds magnitudes of MP2RAGE without polarity, expected "
            "part-phase images or UNIT1 beside them; add one of these."
        )
    step = Step("with_polarity", {"polarity": source}, MP2RAGE.references)
    return Series(series.image.derive(data, step), series.protocol)


def normalised(ratio: Image) -> Image:
    """Ratio image between -.5 and .5, however a scanner scaled it."""
    data = np.asarray(ratio.data, dtype=np.float32)
    if np.nanmax(data) > 1:
        data = data / SCANNER_RANGE - 0.5
    return ratio.derive(np.asarray(data, dtype=np.float32))


def fit_pair(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = False,
    n_jobs: int | None = None,
    **given: Image | float,
) -> Fit:
    """T1 and amplitude from both signed images.

    Parameters
    ----------
    series : Series
        Two signed volumes (`with_polarity`) with the columns of `qcord.models.mp2rage.signal`.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; without it there are no standard errors.
    rician : bool
        Has no effect: signed images have normal noise.
    n_jobs : int, optional
        Threads; the result does not depend on it.
    **given : Image or float
        ``b1`` and ``inversionefficiency``.

    Returns
    -------
    Fit
        M0, R1 [1/s], T1 [s] with standard errors and bias; without ``b1`` T1 and R1 are apparent values.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    ImplausibleValue
        If the trains of excitations do not fit between the inversions.
    """
    two_inversions(series.protocol)
    return fit_relaxation(MP2RAGE.name, series, mask, sigma=sigma, rician=False, n_jobs=n_jobs, **given)


def unified_image(
    series: Series, *, sigma: Image | float | Sequence[float] | None = None
) -> tuple[Image, Image | None]:
    """Ratio image of two signed volumes, and its standard error where the noise is known.

    Parameters
    ----------
    series : Series
        Two signed volumes with InversionTime.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """
    data = np.moveaxis(np.asarray(series.data, dtype=float), -1, 0)
    step = Step("unified_image", {}, MP2RAGE.references)
    noise = noise_map(sigma, series.image.grid, len(series.protocol))
    with np.errstate(all="ignore"):
        value = series.image.derive(unified(data[0], data[1]).astype(np.float32), step)
        if noise is None:
            return value, None
        spread = np.broadcast_to(np.moveaxis(noise, -1, 0), data.shape)
        std, _ = independent_errors(lambda s: unified(s[0], s[1])[None], data, spread, rician=False)
    return value, series.image.derive(std[0].astype(np.float32), step)


def t1_of_unified(
    ratio: Image,
    protocol: Protocol,
    mask: Image | None = None,
    *,
    std: Image | float | None = None,
    b1: Image | float | None = None,
    inversionefficiency: Image | float | None = None,
    n_jobs: int | None = None,
) -> Fit:
    """T1 from the ratio image alone.

    The ratio does not tell which of the images is the larger; the second is taken to be, as it is but in tissue of
    very long T1. There `fit_pair` is right.

    Parameters
    ----------
    ratio : Image
        Ratio image, -.5 to .5 or 0 to 4095.
    protocol : Protocol
        Settings of the two images, with the columns of `qcord.models.mp2rage.signal`.
    mask : Image, optional
        Voxels to use; all by default.
    std : Image or float, optional
        Standard error of the ratio, between -.5 and .5; without it T1 has none.
    b1 : Image or float, optional
        Transmit field, actual over nominal flip angle [1].
    inversionefficiency : Image or float, optional
        Part of the magnetisation that is inverted; the default of the model otherwise.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        R1 [1/s] and T1 [s], with standard errors and bias.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """
    two_inversions(protocol)
    named = {"B1": b1, "InversionEfficiency": inversionefficiency}
    extra = given_maps({k: v for k, v in named.items() if v is not None}, ratio.grid)
    spread = noise_map(std, ratio.grid, 1)
    if spread is not None:
        extra["std"] = spread
    outputs = [Output(prefix + n) for prefix in ("", "std ", "bias ") for n in ("R1", "T1")]

    def work(signals: FloatArray, further: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        return _rates(protocol, signals[0], further)

    data = np.asarray(normalised(ratio).data)[..., None]
    arrays = run_blocks(
        work, data, mask_of(mask, ratio.grid), [*outputs, Output("rmse")], extra=extra, copies=16, n_jobs=n_jobs
    )
    settings = {
        "model": MP2RAGE.name,
        "method": "from the ratio image",
        "B1": "given" if b1 is not None else "not corrected: T1 and R1 are apparent values",
    }
    return as_fit(MP2RAGE, ratio, arrays, Step("t1_of_unified", settings, MP2RAGE.references))


def _rates(protocol: Protocol, values: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
    """Halve the range of rates until the ratio of the images fits."""
    first, second = int(protocol["InversionTime"].argmin()), int(protocol["InversionTime"].argmax())
    given = np.empty((len(values), 2))
    for k, parameter in enumerate(MP2RAGE.given):
        given[:, k] = extra[parameter.name][0] if parameter.name in extra else parameter.start
    finite = np.isfinite(values) & np.isfinite(given).all(axis=1)
    given = np.where(finite[:, None], given, MP2RAGE.given_defaults())

    def quotient(rate: AnyArray) -> AnyArray:
        signals = MP2RAGE.signal(np.stack([np.ones_like(rate), rate], axis=-1), protocol, given)
        return np.asarray(signals[..., first] / signals[..., second])

    with np.errstate(all="ignore"):
        target = 2 * values / (1 + np.sqrt(np.maximum(1 - 4 * values**2, 0)))
        low, high = np.full(len(values), MP2RAGE.free[1].bounds[0]), np.full(len(values), _FASTEST)
        reached = (quotient(low) <= target) & (target <= quotient(high)) & (np.abs(values) <= 0.5)
        for _ in range(_HALVINGS):
            middle = np.sqrt(low * high)
            below = quotient(middle) < target
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        rate = np.sqrt(low * high)

        def slope(at: FloatArray) -> FloatArray:
            found = quotient(at + 1j * STEP)
            return np.asarray((found / (1 + found**2)).imag / STEP)

        steepness = slope(rate)
        curvature = (slope(rate * (1 + 1e-4)) - steepness) / (1e-4 * rate)
        spread = extra["std"][0] if "std" in extra else np.full(len(values), np.nan)
        std = np.abs(spread / steepness)
        bias = np.clip(-0.5 * curvature / steepness * std**2, -std, std)
        bias_time = np.clip(-bias / rate**2 + std**2 / rate**3, -std / rate**2, std / rate**2)
    arrays = {"R1": rate, "std R1": std, "bias R1": bias}
    arrays |= {"T1": 1 / rate, "std T1": std / rate**2, "bias T1": bias_time}
    good = finite & reached
    conditions = [~finite, ~reached, ~np.isfinite(std)]
    flags = [int(f) for f in (Flag.NOT_FINITE, Flag.UNPHYSICAL, Flag.NO_ERROR)]
    flag = np.select(conditions, flags, int(Flag.OK))
    cleaned = {k: np.where(good, v, np.nan) for k, v in arrays.items()}
    return {**cleaned, "rmse": np.full(len(values), np.nan), "flag": flag}
