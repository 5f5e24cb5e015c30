"""NODDI maps from a diffusion series: ICVF, ODI, ISOVF and the mean axis, by maximum likelihood, each with error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.voxelwise import inverse, multiply
from qcord.maps import noddi_likelihood as likelihood
from qcord.maps.noddi_ascent import HIGH, LOW, ascend, information, outward
from qcord.maps.noddi_signal import ICVF, ISOVF, ODI, S0, Design, X, frame, prepare
from qcord.models.encoding import UNWEIGHTED
from qcord.models.noddi import (
    ISOTROPIC_DIFFUSIVITY,
    NODDI,
    PARALLEL_DIFFUSIVITY,
    axis_of,
    require_shells,
    start,
    tilt_of,
)

LOWEST_SNR = 3.0
"""Signal without weighting, over noise, below which there is no value."""

UNKNOWN = 12**-0.5
"""Standard error of a fraction that tells nothing: that of a draw from 0 to 1."""

BEYOND_CHANCE = 1.2
"""Residuals over the given noise from which on they widen the standard errors: physiology, or a model that does not
fit, adds to the noise of the scanner. Of normal residuals of 67 volumes 1 in 100 are so large."""

UNSEEN_AXIS = np.deg2rad(8.0)
"""Standard error of the axis from which on ODI may be anything between its estimate and 1: by simulation, intervals of
ODI cover the truth in 93-96 % up to 3 degrees, 86-92 % from 3 to 8, but 60-80 % from there on, whatever the noise."""

UNITS = {**NODDI.units, "V1": "1"}
"""Maps, with their units."""

_FRACTIONS = ("S0", "ICVF", "ODI", "ISOVF", "INVF")
_FEW = 384
"""Voxels whose table of first guesses fits the cache."""

_ROUGH = 1e-2
"""Gain at which the fit that gives a first noise estimate stops."""

_FIRST_SNR = 30.0
"""Signal over noise from which an estimate without known noise starts; it changes nothing but rounding."""


def fit_noddi(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    paralleldiffusivity: Image | float = PARALLEL_DIFFUSIVITY,
    isotropicdiffusivity: Image | float = ISOTROPIC_DIFFUSIVITY,
    n_jobs: int | None = None,
) -> Fit:
    """Fit NODDI by maximum likelihood, all parameters at once.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2] and Direction (unit vectors in world axes).
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise, unit of the signal: that of the scanner, which makes the noise floor. Where
        residuals are larger by a fifth, they widen the standard errors. Without it, or where it is NaN or zero, the
        residuals give it, voxel by voxel.
    rician : bool
        Whether the noise is that of magnitudes. Otherwise it counts as normal, which makes this least squares.
    paralleldiffusivity, isotropicdiffusivity : Image or float
        Diffusivity along neurites, and of free water [mm2/s].
    n_jobs : int, optional
        Threads; the result does not depend on it. By default one: the many short operations of this fit gain nothing
        from more.

    Returns
    -------
    Fit
        Maps ICVF, ODI, ISOVF, INVF [1], S0, TiltRight, TiltAnterior [deg] and V1 (3 components, world axes, pointing
        up), each with standard error; bias of all but the tilts and V1.

    Raises
    ------
    NotIdentifiable
        If the series has not the shells and directions that it takes.
    MissingMetadata
        If there are no b-values or directions.

    Notes
    -----
    Fractions are held between 0 and 1, so noise makes their mean over a region too large near 0 and too small near
    1: half of all voxels without free water show some. The bias takes this back to first order, as it does the
    second-order noise bias: ``map - bias`` is what to average over a region (it may lie outside 0 to 1), and the
    standard errors belong to it.

    Where little tissue is left beside free water, or few neurites in it, the data do not tell ICVF or ODI: their
    standard errors grow to that of a draw from 0 to 1 and beyond, and the voxel is flagged UNDETERMINED. So it is where
    the axis is known to less than 8 degrees: noise then makes fibres look more aligned than they are, and the standard
    error of ODI reaches to full dispersion.

    References
    ----------
    Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072 (the model);
    Cox and Snell 1968, doi:10.1111/j.2517-6161.1968.tb00724.x (bias of a maximum-likelihood estimate).
    """
    require_shells(series.protocol)
    grid = series.image.grid
    given = {"ParallelDiffusivity": paralleldiffusivity, "IsotropicDiffusivity": isotropicdiffusivity}
    extra = given_maps(given, grid)
    noise = noise_map(sigma, grid, 1)
    if noise is not None:
        extra["sigma"] = noise
    arrays = run_blocks(
        _Task(series.protocol, rician).run,
        series.data,
        mask_of(mask, grid),
        _outputs(),
        extra=extra,
        copies=1,
        n_jobs=n_jobs or 1,
    )
    settings = {
        "model": NODDI.name,
        "method": "maximum likelihood",
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
        **{k: "map" if isinstance(v, Image) else float(v) for k, v in given.items()},
    }
    return as_fit(NODDI, series.image, arrays, Step("fit_noddi", settings, NODDI.references), UNITS)


def _outputs() -> list[Output]:
    named = [Output(prefix + name, 3 if name == "V1" else 1) for prefix in ("", "std ") for name in UNITS]
    return [*named, *(Output("bias " + name) for name in _FRACTIONS), Output("rmse")]


@dataclass(frozen=True, eq=False)
class _Task:
    protocol: Protocol
    rician: bool

    def run(self, signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        """Fit one block (n, v)."""
        v = signals.shape[1]
        given = np.stack([extra[p.name][0] for p in NODDI.given])
        sigma = extra["sigma"][0] if "sigma" in extra else np.full(v, np.nan)
        sigma = np.where(sigma > 0, sigma, np.nan)
        finite = np.isfinite(signals).all(axis=0) & np.isfinite(given).all(axis=0) & (given > 0).all(axis=0)
        with np.errstate(invalid="ignore"):
            unweighted = signals[self.protocol["BValue"] <= UNWEIGHTED].mean(axis=0)
            lit = (unweighted > 0) & ~(unweighted < LOWEST_SNR * sigma)
        maps: dict[str, AnyArray] = {o.name: np.full((o.components, v), np.nan) for o in _outputs()}
        maps["flag"] = np.where(finite, int(Flag.NO_SIGNAL), int(Flag.NOT_FINITE))
        usable = np.flatnonzero(finite & lit)
        if usable.size:
            with np.errstate(all="ignore"):
                found = self.estimates(signals[:, usable], sigma[usable], given[:, usable])
            for name, values in found.items():
                maps[name][..., usable] = values
        return maps

    def estimates(self, signals: FloatArray, sigma: FloatArray, given: FloatArray) -> dict[str, AnyArray]:
        """Maps (v,) or (3, v) of voxels with signal; ``sigma`` (v,) is NaN where it is not known."""
        alike = bool((given == given[:, :1]).all())
        design = prepare(self.protocol, *(given[:, 0] if alike else given))
        parts = [slice(k, k + _FEW) for k in range(0, len(sigma), _FEW)]
        theta = np.concatenate([start(signals[:, k].T, self.protocol, given[:, k].T) for k in parts]).T
        state = np.concatenate([np.clip(theta[:X], LOW, HIGH), axis_of(theta[4], theta[5]).T])
        known = np.isfinite(sigma)
        unit = np.where(known, sigma, state[S0] / _FIRST_SNR)
        state[S0] /= unit
        if self.rician and not known.all():
            state, _, _ = ascend(design, signals / unit, state, magnitude=False, gain=_ROUGH)
            seen = _noise(signals / unit, likelihood.expected(design, state), magnitude=False)
            scale = np.where(known, 1.0, seen)
            state[S0] /= scale
            unit = unit * scale
        state, value, settled = ascend(design, signals / unit, state, magnitude=self.rician)
        if not known.all():
            seen = _noise(signals / unit, likelihood.expected(design, state), magnitude=self.rician)
            scale = np.where(known, 1.0, seen)
            state[S0] /= scale
            unit = unit * scale
            value = likelihood.evaluate(design, signals / unit, state, magnitude=self.rician)
        return _results(design, signals / unit, (state, value, settled), unit, magnitude=self.rician)


def _noise(measured: FloatArray, signal: FloatArray, *, magnitude: bool) -> FloatArray:
    """Standard deviation (v,) of the noise that residuals show, over the one that was assumed."""
    return _scatter(measured, signal, Rician(1.0).expectation(signal) if magnitude else signal)[0]


def _scatter(measured: FloatArray, signal: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard deviation (v,) as in `_noise`, and root mean square residual, from expectations."""
    square = np.einsum("nv,nv->v", measured - mean, measured - mean)
    # a magnitude's mean square is that of its signal and two more
    spread = 1.0 if mean is signal else 2 + ((signal - mean) * (signal + mean)).mean(axis=0)
    freedom = len(measured) - len(NODDI.free)
    return np.sqrt(square / (freedom * spread)), np.sqrt(square / len(measured))


def _results(
    design: Design,
    measured: FloatArray,
    found: tuple[FloatArray, FloatArray, BoolArray],
    unit: FloatArray,
    *,
    magnitude: bool,
) -> dict[str, AnyArray]:
    """Values, standard errors, bias and flags at the estimates; ``unit`` (v,) is that of the measurements."""
    state, value, settled = found
    held = outward(state, value[1:7])
    covariance = inverse(information(value))
    std = np.sqrt(np.einsum("iiv->iv", covariance))
    bias, signal = likelihood.noise_bias(design, state, covariance, magnitude=magnitude)
    bias = np.clip(bias, -std, std)
    bias -= multiply(covariance, np.where(held, value[1:7], 0.0))
    seen, residual = _scatter(measured, signal, Rician(1.0).expectation(signal) if magnitude else signal)
    covariance *= np.where(seen > BEYOND_CHANCE, seen, 1.0) ** 2
    std = np.sqrt(np.einsum("iiv->iv", covariance))
    # an axis that is hardly seen was turned by the noise to where fibres look most aligned: they may be dispersed fully
    turned = np.sqrt((covariance[4, 4] + covariance[5, 5]) / 2) > UNSEEN_AXIS
    reach = (1 - state[ODI] + bias[ODI]) / 1.96
    std[ODI] = np.where(turned, np.fmax(std[ODI], reach), std[ODI])
    maps: dict[str, AnyArray] = {}
    for k, name in enumerate(("S0", "ICVF", "ODI", "ISOVF")):
        scale = unit if name == "S0" else 1.0
        maps |= {name: scale * state[k], f"std {name}": scale * std[k], f"bias {name}": scale * bias[k]}
    tissue, icvf = 1 - state[ISOVF], state[ICVF]
    along = tissue * covariance[ICVF] - icvf * covariance[ISOVF]
    maps["INVF"] = tissue * icvf
    maps["std INVF"] = np.sqrt(tissue * along[ICVF] - icvf * along[ISOVF])
    maps["bias INVF"] = tissue * bias[ICVF] - icvf * bias[ISOVF] - covariance[ICVF, ISOVF]
    axis = state[X:] * np.where(state[X + 2] < 0, -1.0, 1.0)
    right, front = frame(axis)
    maps["V1"], spread = axis, right**2 * covariance[4, 4] + front**2 * covariance[5, 5]
    maps["std V1"] = np.sqrt(np.maximum(spread + 2 * right * front * covariance[4, 5], 0))
    maps["TiltRight"], maps["TiltAnterior"] = tilt_of(axis)
    maps["std TiltRight"] = np.rad2deg(std[4])
    maps["std TiltAnterior"] = np.rad2deg(std[5] / np.maximum(np.hypot(axis[1], axis[2]), 1e-3))
    maps["rmse"] = unit * residual
    conditions = [
        (turned | ~(np.maximum(std[ICVF], std[ODI]) < UNKNOWN), Flag.UNDETERMINED),
        (~settled, Flag.NOT_CONVERGED),
        (((state[:X] <= LOW) | (state[:X] >= HIGH)).any(axis=0), Flag.AT_BOUND),
        (~(unit > 0), Flag.NO_ERROR),
    ]
    maps["flag"] = np.select([c for c, _ in conditions], [int(f) for _, f in conditions], int(Flag.OK))
    return maps
