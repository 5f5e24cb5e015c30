"""Aggregate g-ratio from a myelin-sensitive map and from fractions of diffusing water.

The scale between a myelin-sensitive map (MTsat, or macromolecular tissue volume) and the myelin volume fraction is
never known well. It is an argument with its own standard error, and the error that it causes is kept apart from that of
noise: it is shared by all voxels, so that averaging over a region does not lower it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.units import require_unit
from qcord.estimate.blocks import Output, given_maps, run_blocks
from qcord.estimate.jacobian import complex_step
from qcord.estimate.propagate import root, second_differences

REFERENCES = (
    "Stikov et al. 2015, doi:10.1016/j.neuroimage.2015.05.023",
    "Campbell et al. 2018, doi:10.1016/j.neuroimage.2017.08.038",
)
UNITS = {"MVF": "1", "AVF": "1", "g": "1"}
_INPUTS = ("myelin", "v_ic", "v_iso")


@dataclass(frozen=True)
class Calibration:
    """Scale from a myelin-sensitive map to the myelin volume fraction.

    Parameters
    ----------
    slope : float
        Myelin volume fraction over the value of the map, per unit of the map.
    se : float
        Its standard error.
    unit : str
        Unit of the map, key of `qcord.core.units.UNITS`.
    source : str
        Where it comes from.

    Raises
    ------
    ImplausibleValue
        If the slope is not positive, or the error is negative or not finite.
    """

    slope: float
    se: float
    unit: str = "percent"
    source: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and self.slope > 0 and np.isfinite(self.se) and self.se >= 0):
            raise ImplausibleValue(
                f"The calibration of the myelin volume fraction is {self.slope:g} with standard error {self.se:g}, "
                "expected a positive slope and an error that is not negative; see `calibrate`."
            )


@dataclass(frozen=True, eq=False)
class AggregateG:
    """Maps of the aggregate g-ratio.

    Parameters
    ----------
    fit : Fit
        Maps MVF, AVF and g with the standard error and the bias that noise causes.
    systematic : mapping of str to Image
        For each of them the change that one standard error of the calibration causes, with its sign. All voxels change
        together: average it over a region as the map itself, and add its square to that of the error from noise.
    calibration : Calibration
        The scale that was used.
    """

    fit: Fit
    systematic: Mapping[str, Image]
    calibration: Calibration


def calibrate(
    myelin: float,
    v_ic: float,
    v_iso: float,
    *,
    g: float = 0.7,
    se: tuple[float, float, float] = (0.0, 0.0, 0.0),
    g_se: float = 0.0,
    unit: str = "percent",
    source: str = "",
) -> Calibration:
    """Scale of the myelin volume fraction from a reference region whose g-ratio is known.

    Parameters
    ----------
    myelin, v_ic, v_iso : float
        Means over the region: myelin-sensitive map, intracellular and isotropic volume fraction.
    g : float
        Aggregate g-ratio there; .7 is customary for the splenium of the corpus callosum.
    se : tuple of float
        Standard errors of the three means.
    g_se : float
        Standard error of ``g``: how well it is known, and how much it differs between people.
    unit : str
        Unit of the myelin-sensitive map.
    source : str
        Name of the region and of the source of ``g``.

    Returns
    -------
    Calibration
        With the standard error by the delta method.

    Raises
    ------
    ImplausibleValue
        If a value lies outside its physical range.

    References
    ----------
    Stikov et al. 2015, doi:10.1016/j.neuroimage.2015.05.023.
    """
    if not (myelin > 0 and 0 < v_ic <= 1 and 0 <= v_iso < 1 and 0 < g < 1):
        raise ImplausibleValue(
            f"The reference region has a myelin value of {myelin:g}, v_ic {v_ic:g}, v_iso {v_iso:g} and g {g:g}, "
            "expected a positive value, fractions between 0 and 1, and g between 0 and 1; check region and maps."
        )

    def slope(x: AnyArray) -> AnyArray:
        value, inner, free, ratio = np.moveaxis(x, -1, 0)
        fibre = (1 / ratio**2 - 1) * (1 - free) * inner
        return np.asarray(fibre / (1 + fibre) / value)

    at = np.array([myelin, v_ic, v_iso, g])
    error = np.sqrt(((complex_step(slope, at) * np.array([*se, g_se])) ** 2).sum())
    return Calibration(float(slope(at)), float(error), unit, source)


def volume_fractions(theta: AnyArray, slope: AnyArray | float) -> AnyArray:
    """Myelin volume fraction, axon volume fraction and aggregate g-ratio (..., 3).

    Parameters
    ----------
    theta : (..., 3) array
        Myelin-sensitive value, intracellular and isotropic volume fraction.
    slope : array or float
        See `Calibration`.

    References
    ----------
    Stikov et al. 2015, doi:10.1016/j.neuroimage.2015.05.023.
    """
    myelin, inner, free = np.moveaxis(theta, -1, 0)
    mvf = slope * myelin
    avf = (1 - mvf) * (1 - free) * inner
    return np.stack([mvf, avf, np.sqrt(avf / (avf + mvf))], axis=-1)


def g_ratio(
    myelin: Image,
    v_ic: Image,
    v_iso: Image,
    calibration: Calibration,
    mask: Image | None = None,
    *,
    std: Mapping[str, Image] | None = None,
    bias: Mapping[str, Image] | None = None,
    correlation: float = 0.0,
    n_jobs: int | None = None,
) -> AggregateG:
    """Aggregate g-ratio, myelin and axon volume fraction.

    Parameters
    ----------
    myelin : Image
        MTsat [percent] or macromolecular tissue volume, in the unit of the calibration.
    v_ic, v_iso : Image
        Intracellular and isotropic volume fraction [1], on the same grid.
    calibration : Calibration
        Scale of ``myelin``.
    mask : Image, optional
        Voxels to use; all by default.
    std : mapping of str to Image, optional
        Standard errors of ``myelin``, ``v_ic`` and ``v_iso``, by these names; without all three there are none.
    bias : mapping of str to Image, optional
        How much noise has raised the inputs, by the same names; an input without one counts as free of it.
    correlation : float
        Of the errors of ``v_ic`` and ``v_iso``, which come from one fit.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    AggregateG
        NaN where an input is missing or a fraction is unphysical, and a flag that says so.

    Raises
    ------
    GridMismatch
        If an image lies on another grid.
    UnitMismatch
        If the myelin map does not carry the unit of the calibration.
    UnknownName
        If an error or a bias is given for something else than the inputs.
    ImplausibleValue
        If the correlation is not one.

    References
    ----------
    Stikov et al. 2015, doi:10.1016/j.neuroimage.2015.05.023;
    Campbell et al. 2018, doi:10.1016/j.neuroimage.2017.08.038.
    """
    require_unit(myelin.unit, calibration.unit, f"The myelin map ({myelin.label})")
    if not -1 <= correlation <= 1:
        raise ImplausibleValue(f"The correlation of v_ic and v_iso is {correlation:g}, expected -1 to 1; correct it.")
    for name in (*(std or {}), *(bias or {})):
        if name not in _INPUTS:
            raise UnknownName(f"There is no input '{name}' of the g-ratio; expected one of {', '.join(_INPUTS)}.")
    grid = myelin.grid
    inputs = given_maps({"myelin": myelin, "v_ic": v_ic, "v_iso": v_iso}, grid)
    extra = {f"std {k}": v for k, v in given_maps(std, grid).items()}
    extra |= {f"bias {k}": v for k, v in given_maps(bias, grid).items()}

    def work(values: FloatArray, further: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        return _block(values, further, calibration, correlation)

    prefixes = ("", "std ", "bias ", "systematic ")
    data = np.stack([inputs[name].reshape(grid.shape) for name in _INPUTS], axis=-1)
    outputs = [Output(prefix + name) for prefix in prefixes for name in UNITS]
    arrays = run_blocks(work, data, mask_of(mask, grid), outputs, extra=extra, n_jobs=n_jobs)
    settings = {
        "calibration": calibration.slope,
        "calibration se": calibration.se,
        "calibration source": calibration.source,
        "myelin": myelin.label,
        "correlation": correlation,
    }
    step = Step("g_ratio", settings, REFERENCES)

    def maps(prefix: str) -> dict[str, Image]:
        return {name: myelin.derive(arrays[prefix + name], step, unit=unit) for name, unit in UNITS.items()}

    flag = myelin.derive(arrays["flag"], step, unit="label")
    none = myelin.derive(np.full(grid.shape, np.nan, dtype=np.float32), step, unit="1")
    fit = Fit("g-ratio", maps(""), maps("std "), rmse=none, flag=flag, criterion=none, bias=maps("bias "))
    return AggregateG(fit, maps("systematic "), calibration)


def _block(
    values: FloatArray, extra: Mapping[str, FloatArray], calibration: Calibration, correlation: float
) -> dict[str, AnyArray]:
    theta = np.where(np.isfinite(values), values, np.nan).T
    missing = np.full(len(theta), np.nan)
    std = np.stack([extra[f"std {k}"][0] if f"std {k}" in extra else missing for k in _INPUTS], axis=1)
    rise = np.stack([extra[f"bias {k}"][0] if f"bias {k}" in extra else missing for k in _INPUTS], axis=1)
    link = np.eye(3)
    link[1, 2] = link[2, 1] = correlation
    covariance = std[:, :, None] * link * std[:, None, :]

    def formula(x: AnyArray) -> AnyArray:
        return volume_fractions(x, calibration.slope)

    with np.errstate(all="ignore"):
        result, slope = formula(theta), complex_step(formula, theta)
        error = np.sqrt(np.einsum("vmi,vij,vmj->vm", slope, covariance, slope))
        bias = second_differences(formula, theta, root(covariance)) / 2
        bias = np.clip(bias + np.einsum("vmi,vi->vm", slope, np.nan_to_num(rise)), -error, error)
        shift = complex_step(lambda k: volume_fractions(theta, k[..., 0]), np.full((len(theta), 1), calibration.slope))
        mvf, avf, free = result[:, 0], result[:, 1], theta[:, 2]
        physical = (mvf > 0) & (mvf < 1) & (avf > 0) & (avf < 1) & (free >= 0) & (free < 1)
    known = np.isfinite(theta).all(axis=1)
    conditions = [~known, ~physical, ~np.isfinite(error).all(axis=1)]
    flags = [Flag.NOT_FINITE, Flag.UNPHYSICAL, Flag.NO_ERROR]
    good = known & physical
    arrays: dict[str, AnyArray] = {"flag": np.select(conditions, [int(f) for f in flags], int(Flag.OK))}
    for k, name in enumerate(UNITS):
        arrays[name] = np.where(good, result[:, k], np.nan)
        arrays["std " + name] = np.where(good, error[:, k], np.nan)
        arrays["bias " + name] = np.where(good, bias[:, k], np.nan)
        arrays["systematic " + name] = np.where(good, shift[:, k, 0] * calibration.se, np.nan)
    return arrays
