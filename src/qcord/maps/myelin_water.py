"""Myelin water fraction from the spectrum of T2: regularised non-negative amplitudes, with the refocusing angle."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.errors import ImplausibleValue
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.non_negative import active_gram
from qcord.maps.closed_form import LOWEST_SNR
from qcord.maps.t2_spectrum import (
    MIDDLE_PENALTY,
    REFINE,
    RISE,
    TIMES,
    Dictionary,
    Spectrum,
    find_angle,
    make_dictionary,
    nearest_level,
    solve_amplitudes,
    spectrum,
)
from qcord.maps.t2_spectrum_errors import (
    angle_response,
    chances,
    efficiency_errors,
    of_narrow_pools,
    penalty_response,
    spread_of_sum,
    unpenalised,
)
from qcord.models.myelin_water import MYELIN_WATER, require_echo_train

CUTOFF, LONGEST = 0.04, 0.2
"""T2 [s] below which water counts as myelin water, and above which it counts as free fluid."""

_NAMES = ("S0", "MWF", "T2ie", "Efficiency", "RefocusingAngle")
_MOVED = {"MWF": 1 / np.sqrt(3), "T2ie": 1.0}
"""Part of what the penalty changed that is added to an error, in squares: the true MWF may as well lie anywhere between
the two spectra; T2ie may lie beyond."""
_OTHERS = ("bias T2ie", "bias Efficiency", "rmse", "criterion")


def myelin_water(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | None = None,
    rician: bool = True,
    r1: Image | float = 1.0,
    rise: float = RISE,
    n_jobs: int | None = None,
) -> Fit:
    """Myelin water fraction from a train of spin echoes by a spectrum of T2.

    For each voxel amplitudes of 40 values of T2 from 10 ms to 2 s, none negative, and the refocusing angle (90 to 180
    degrees, in half degrees) are fitted; then a penalty on the squared amplitudes is raised until the squared residuals
    have risen by ``rise``.

    Parameters
    ----------
    series : Series
        Magnitudes with EchoTime [s], multiples of the first.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise; without it the residuals give it.
    rician : bool
        Take the noise floor of magnitudes off the late echoes, by the expectation of the fitted echoes.
    r1 : float
        Longitudinal relaxation rate of all components [1/s]; echoes hardly depend on it.
    rise : float
        See `RISE`; smaller values regularise less.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        MWF (amplitudes below 40 ms over all), T2ie (geometric mean from 40 to 200 ms) [s], S0, RefocusingAngle [deg]
        and Efficiency. Standard errors are those of small changes of the measurements, which angle and penalty
        follow; an amplitude counts by the chance that noise leaves it above zero. Where no myelin water is found its
        error is that of a little of it, and the voxel is flagged. Efficiency and T2ie have bias maps, that of T2ie half
        of what the penalty would do to pools of a single T2 each, as the truth may be that or as broad as what was
        found. The bias that penalty and positivity leave in the others depends on the true spectrum, which is not known
        (from the spectrum that was found even its sign comes out wrong); benchmarks/myelin.py shows it. What the
        penalty changed is added to the errors of T2ie, in full, and MWF, over root 3 (any place between the two), in
        squares.

    Raises
    ------
    MissingMetadata, ImplausibleValue, NotIdentifiable
        If the series is not a train of echoes that shows myelin water; or if ``r1`` is a map.

    References
    ----------
    Whittall and MacKay 1989, doi:10.1016/0022-2364(89)90011-5 (non-negative spectra, penalty by the rise of residuals);
    Prasloski et al. 2012, doi:10.1002/mrm.23157 (refocusing angle);
    Butler, Reeds and Dawson 1981, doi:10.1137/0718025 (solution).
    """
    require_echo_train(series.protocol)
    if isinstance(r1, Image):
        raise ImplausibleValue(
            f"R1 was given as a map ({r1.label}), expected one value for the spectrum of T2; give its mean, or use the "
            "nonlinear fit."
        )
    dictionary = make_dictionary(series.protocol, r1)
    noise = noise_map(sigma, series.image.grid, 1)
    arrays = run_blocks(
        partial(_block, dictionary, series.protocol, rician=rician, rise=rise),
        series.data,
        mask_of(mask, series.image.grid),
        [*(Output(prefix + n) for prefix in ("", "std ") for n in _NAMES), *(Output(n) for n in _OTHERS)],
        extra=None if noise is None else {"sigma": noise},
        copies=2,
        n_jobs=n_jobs,
    )
    settings = {
        "model": MYELIN_WATER.name,
        "method": "regularised non-negative spectrum of T2",
        "T2": list(TIMES),
        "cutoff": CUTOFF,
        "longest": LONGEST,
        "rise": rise,
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
    }
    references = (
        *MYELIN_WATER.references,
        "Whittall and MacKay 1989, doi:10.1016/0022-2364(89)90011-5",
        "Butler, Reeds and Dawson 1981, doi:10.1137/0718025",
        "Golub and Pereyra 1973, doi:10.1137/0710036",
    )
    return as_fit(MYELIN_WATER, series.image, arrays, Step("myelin_water", settings, references))


def _block(
    dictionary: Dictionary,
    protocol: Protocol,
    signals: FloatArray,
    extra: Mapping[str, FloatArray],
    *,
    rician: bool,
    rise: float,
) -> dict[str, AnyArray]:
    finite = np.isfinite(signals).all(axis=0)
    measured = np.where(finite, signals, 1.0).T
    scale = measured.max(axis=1)
    sigma = np.full(len(measured), np.nan)
    if "sigma" in extra:
        sigma = np.where(extra["sigma"][0] > 0, extra["sigma"][0], np.nan)
    with np.errstate(invalid="ignore"):
        lit = (scale > 0) & ~(scale < LOWEST_SNR * sigma)
    scale = np.where(lit, scale, 1.0)
    relative = np.where(lit[:, None], measured, 1.0) / scale[:, None]
    assert MYELIN_WATER.start is not None
    corrected = relative
    guess = MYELIN_WATER.start(relative, protocol, np.ones((len(relative), 1)))[:, MYELIN_WATER.index("Efficiency")]
    level = find_angle(dictionary, relative, nearest_level(dictionary, guess))
    noise = sigma / scale
    if rician:
        corrected = relative - _floor(dictionary, corrected, level, noise)
        level = find_angle(dictionary, corrected, level, REFINE)
    found = spectrum(dictionary, corrected, level, rise)
    noise = np.where(
        np.isfinite(noise), noise, _residual_noise(dictionary, found.amplitudes, level, found.penalty, found.residual)
    )
    values, errors, bias = _values(dictionary, found, noise)
    good = finite & lit
    edge = (found.level == 0) | (values["MWF"] == 0)
    conditions = [~finite, ~lit, ~found.settled, edge, ~np.isfinite(noise)]
    flags = [Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NOT_CONVERGED, Flag.AT_BOUND, Flag.NO_ERROR]
    arrays: dict[str, AnyArray] = {"flag": np.select(conditions, [int(f) for f in flags], int(Flag.OK))}
    units = {"S0": scale}
    for name in _NAMES:
        arrays[name] = np.where(good, values[name] * units.get(name, 1.0), np.nan)
        arrays["std " + name] = np.where(good, errors[name] * units.get(name, 1.0), np.nan)
    for name, one in bias.items():
        arrays["bias " + name] = np.where(good, one * units.get(name, 1.0), np.nan)
    arrays["criterion"] = np.full(len(measured), np.nan)  # of a spectrum with a penalty none is defined
    arrays["rmse"] = np.where(good, np.sqrt((found.residual**2).mean(axis=1)) * scale, np.nan)
    return arrays


def _floor(dictionary: Dictionary, measured: FloatArray, level: IntArray, noise: FloatArray) -> FloatArray:
    """Expected rise (v, n) of magnitudes by the noise (v,), from their residuals where that is not known."""
    penalty = np.full(len(measured), MIDDLE_PENALTY)
    amplitudes, residual, _ = solve_amplitudes(dictionary, measured, level, penalty, measured)
    own = _residual_noise(dictionary, amplitudes, level, penalty, residual)
    size = np.where(np.isfinite(noise), noise, own)
    echoes = measured - residual
    return np.asarray(Rician(np.where(size > 0, size, 1e-9)[:, None]).expectation(echoes) - echoes)


def _residual_noise(
    dictionary: Dictionary, amplitudes: FloatArray, level: IntArray, penalty: FloatArray, residual: FloatArray
) -> FloatArray:
    """Noise (v,) from the residuals, given how many of the measurements the amplitudes and the angle take up."""
    gram = active_gram(dictionary.compressed[level], amplitudes > 0, penalty)
    kept = np.trace(np.linalg.inv(gram), axis1=1, axis2=2) * penalty
    n = residual.shape[1]
    taken = gram.shape[1] - kept + 1
    return np.asarray(np.sqrt((residual**2).sum(axis=1) / np.maximum(n - taken, 1)))


def _values(
    dictionary: Dictionary, found: Spectrum, noise: FloatArray
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], dict[str, FloatArray]]:
    """Values, their standard errors, and the biases that are known."""
    x, level, times = found.amplitudes, found.level, dictionary.times
    efficiency = dictionary.efficiency[level]
    with np.errstate(all="ignore"):
        values, weights = _sums(x, times)
        free = unpenalised(dictionary, found)
        without = _sums(free.amplitudes, times)[0]
        free_share = chances(dictionary, free, noise)
        angle = angle_response(dictionary, free, free_share)
        share = chances(dictionary, found, noise)
        penalty = penalty_response(dictionary, found, share)
        none = (times < CUTOFF) & (values["MWF"] == 0)[:, None]
        shares = {"S0": share, "MWF": np.where(none, 1.0, share), "T2ie": share}  # the error of none is that of little
        spread: dict[str, FloatArray] = {
            name: noise * spread_of_sum(dictionary, found, w, shares[name], (angle, penalty))
            for name, w in weights.items()
        }
        for name, part in _MOVED.items():
            spread[name] = np.hypot(spread[name], part * np.nan_to_num(values[name] - without[name]))
        bias = {"T2ie": _bias_of_mean(dictionary, found, values["T2ie"])}
        spread["T2ie"] = np.hypot(spread["T2ie"], np.nan_to_num(bias["T2ie"]) / np.sqrt(3))
        error, bias["Efficiency"] = efficiency_errors(dictionary, free, free_share, noise)
        spread |= {"Efficiency": error, "RefocusingAngle": _angle_error(efficiency, error)}
    values |= {"Efficiency": efficiency, "RefocusingAngle": dictionary.angles[level]}
    return values, spread, bias


def _bias_of_mean(dictionary: Dictionary, found: Spectrum, value: FloatArray) -> FloatArray:
    """Bias (v,) of T2ie [s]: half of what the penalty takes off if each pool has a single T2; NaN where that is none.

    The penalty broadens narrow pools, and the first reaches over the cutoff; of pools as broad as those found it takes
    off little. The truth may lie anywhere between, so that the error of this bias is its own size over root 3.
    """
    times = dictionary.times
    short = times < CUTOFF  # short trains can't tell the slowest amplitudes from those of tissue
    signal = found.amplitudes * short
    first = (signal * np.log(times)).sum(axis=1) / signal.sum(axis=1)
    again = of_narrow_pools(dictionary, found, (short, ~short), (first, np.log(value)))
    return (_sums(again, times)[0]["T2ie"] - value) / 2


def _angle_error(efficiency: FloatArray, std: FloatArray) -> FloatArray:
    """Standard error [deg] of the refocusing angle by that of the efficiency: what one downwards changes.

    The derivative has no bound at 180 degrees.
    """
    angle, below = (np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(e, 0, 1)))) for e in (efficiency, efficiency - std))
    return np.asarray(angle - below)


def _sums(x: FloatArray, times: FloatArray) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Values of spectra (v, j), and their derivatives with respect to the amplitudes."""
    short, middle, logs = times < CUTOFF, (times >= CUTOFF) & (times <= LONGEST), np.log(times)
    total, tissue = x.sum(axis=1), x[:, middle].sum(axis=1)
    fraction = x[:, short].sum(axis=1) / total
    mean_log = (x * middle * logs).sum(axis=1) / tissue
    long = np.exp(mean_log)
    weights = {
        "S0": np.ones_like(x),
        "MWF": (short - fraction[:, None]) / total[:, None],
        "T2ie": long[:, None] * middle * (logs - mean_log[:, None]) / tissue[:, None],
    }
    return {"S0": total, "MWF": fraction, "T2ie": long}, weights
