"""Errors of given parameters, such as the transmit field, carried into the maps that are computed with them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.parameter import Parameter
from qcord.estimate.blocks import given_maps

Refit = Callable[[Mapping[str, Image | float]], Fit]
"""The fit as a function of what is given, all else the same."""

_HELD = (Flag.AT_BOUND, Flag.NOT_CONVERGED)
"""Outcomes whose value does not follow the given parameter."""


def carry_given_errors(
    result: Fit,
    refit: Refit,
    model: SignalModel,
    given: Mapping[str, Image | float],
    given_std: Mapping[str, Image | float],
) -> Fit:
    """Add the errors of given parameters to the standard errors of a fit.

    The fit is repeated at the given value plus and minus its standard error; half the difference of the maps is their
    signed shift. Where one of the two has no value, is held at a bound or has not converged although the fit itself
    has, or would need a given value outside the bounds of its parameter, the difference of the other from the fit
    itself stands in; where neither is left, the standard error is NaN and a regular voxel is flagged NO_ERROR. Maps
    and bias stay as they are. Errors of different given parameters count as independent of each other and of the
    noise.

    Parameters
    ----------
    result : Fit
        The fit at the given values.
    refit : callable
        The same fit at other given values.
    model : SignalModel
        The contrast.
    given : mapping of str to Image or float
        What the fit was given; the default of the model where a parameter is missing.
    given_std : mapping of str to Image or float
        Standard error of given parameters, in their unit.

    Returns
    -------
    Fit
        With `shifts`, `noise_std` and the total as `std`.

    Raises
    ------
    UnknownName
        If the model has no such given parameter.
    GridMismatch
        If a standard error lies on another grid.
    ImplausibleValue
        If a standard error is negative.
    """
    shifts = {name: _shifts(result, refit, model, given, (name, std)) for name, std in given_std.items()}
    noted = {"given_std": sorted(given_std)}
    total = {metric: _total(std, [s[metric] for s in shifts.values()]) for metric, std in result.std.items()}
    flag = np.array(result.flag.data)
    for metric, std in result.std.items():
        lost = np.isfinite(std.data) & ~np.isfinite(total[metric])
        flag[lost.reshape(*flag.shape, -1).any(axis=-1) & (flag == Flag.OK)] = Flag.NO_ERROR
    return replace(
        result,
        maps={metric: _note(image, noted) for metric, image in result.maps.items()},
        std={metric: _note(image.derive(total[metric]), noted) for metric, image in result.std.items()},
        bias={metric: _note(image, noted) for metric, image in result.bias.items()},
        flag=_note(result.flag.derive(flag), noted),
        shifts={
            name: {metric: _note(result.maps[metric].derive(data), noted) for metric, data in maps.items()}
            for name, maps in shifts.items()
        },
        noise_std=dict(result.std),
    )


def _shifts(
    result: Fit,
    refit: Refit,
    model: SignalModel,
    given: Mapping[str, Image | float],
    error: tuple[str, Image | float],
) -> dict[str, AnyArray]:
    """Signed shift of each map by one standard error of one given parameter."""
    name, std = error
    parameter = model.given[model.given_index(name)]
    value = given.get(name, parameter.start)
    high, low = (refit({**given, name: _moved(value, std, sign, parameter, result.flag)}) for sign in (1, -1))
    found = {}
    for metric in result.std:
        base = np.asarray(result.maps[metric].data, dtype=float)
        up = _followed(result, high, metric) - base
        down = base - _followed(result, low, metric)
        shift = np.where(np.isfinite(up) & np.isfinite(down), (up + down) / 2, np.where(np.isfinite(up), up, down))
        found[metric] = shift.astype(np.float32)
    return found


def _moved(value: Image | float, std: Image | float, sign: int, parameter: Parameter, like: Image) -> Image:
    """Given values plus or minus their standard error; NaN outside the bounds of the parameter."""
    name = parameter.name
    known = given_maps({name: value, f"{name} error": std}, like.grid)
    middle, error = (np.asarray(a, dtype=float).reshape(like.grid.shape) for a in known.values())
    if (error < 0).any():
        raise ImplausibleValue(
            f"The standard error of {name} is negative ({np.nanmin(error):g}), expected zero or more; check its file."
        )
    moved = middle + sign * error
    outside = (moved < parameter.bounds[0]) | (moved > parameter.bounds[1])
    return like.derive(np.where(outside & (error > 0), np.nan, moved), unit=parameter.unit)


def _followed(result: Fit, other: Fit, metric: str) -> FloatArray:
    """Values of a shifted fit where they follow the given parameter, NaN elsewhere."""
    data = np.asarray(other.maps[metric].data, dtype=float)
    held = np.isin(other.flag.data, _HELD) & ~np.isin(result.flag.data, _HELD)
    return np.where(held.reshape(*held.shape, *(1,) * (data.ndim - 3)), np.nan, data)


def _total(std: Image, shifts: list[AnyArray]) -> AnyArray:
    square = np.square(std.data, dtype=float) + sum(np.square(s, dtype=float) for s in shifts)
    return np.sqrt(square).astype(np.float32)


def _note(image: Image, noted: Mapping[str, list[str]]) -> Image:
    """Say in the last line of the history whose errors were carried."""
    if not image.history:
        return image
    last = image.history[-1]
    last = replace(last, settings={**last.settings, **noted})
    return replace(image, history=(*image.history[:-1], last))
