"""Maps of models whose unknowns follow in closed form from as many images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.model import SignalModel
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.propagate import independent_errors

LOWEST_SNR = 3.0
"""Signal over noise below which there is no value: the noise floor lifts a magnitude of less by over 5 %."""

Formula = Callable[[AnyArray, FloatArray], AnyArray]


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A model with the formula that inverts it.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    formula : callable
        From signals (n, v) and given parameters (g, v) to free and derived values (m, v), in the model's order;
        analytic in the signals.
    """

    model: SignalModel
    formula: Formula


def fit_closed_form(
    closed: ClosedForm,
    series: Series,
    mask: Image | None,
    step: Step,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    given: Mapping[str, Image | float] | None = None,
    n_jobs: int | None = None,
) -> Fit:
    """Apply a closed form to all voxels, with standard errors (delta method) and bias (second order).

    Parameters
    ----------
    closed : ClosedForm
        Model and formula.
    series : Series
        As many volumes as the formula takes, in its order.
    mask : Image or None
        Voxels to use; all if None.
    step : Step
        Line of the history.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; without it there are no standard errors.
    rician : bool
        Whether the measurements are magnitudes, which noise raises.
    given : mapping of str to Image or float, optional
        Maps or values of given parameters; their defaults otherwise.
    n_jobs : int, optional
        Threads.

    Returns
    -------
    Fit
        Free and derived values.
    """
    grid = series.image.grid
    extra: dict[str, AnyArray] = given_maps(given, grid)
    noise = noise_map(sigma, grid, len(series.protocol))
    if noise is not None:
        extra["sigma"] = noise
    outputs = [Output(prefix + n) for prefix in ("", "std ", "bias ") for n in closed.model.units]

    def work(signals: FloatArray, further: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        return _block(closed, signals, further, rician=rician)

    arrays = run_blocks(work, series.data, mask_of(mask, grid), [*outputs, Output("rmse")], extra=extra, n_jobs=n_jobs)
    return as_fit(closed.model, series.image, arrays, step)


def _block(
    closed: ClosedForm, signals: FloatArray, extra: Mapping[str, FloatArray], *, rician: bool
) -> dict[str, AnyArray]:
    given = np.empty((len(closed.model.given), signals.shape[1]))
    for k, parameter in enumerate(closed.model.given):
        given[k] = extra[parameter.name][0] if parameter.name in extra else parameter.start
    finite = np.isfinite(signals).all(axis=0) & np.isfinite(given).all(axis=0)
    sigma = np.full(signals.shape, np.nan)
    if "sigma" in extra:
        sigma = np.broadcast_to(np.where(extra["sigma"] > 0, extra["sigma"], np.nan), signals.shape)
    with np.errstate(all="ignore"):
        lit = (signals > 0).all(axis=0) & ~(signals < LOWEST_SNR * sigma).any(axis=0)
        safe = np.where(finite & lit, signals, np.nan)
        values = closed.formula(safe, given)
        std, bias = independent_errors(lambda s: closed.formula(s, given), safe, sigma, rician=rician)
        bias = np.clip(bias, -std, std)  # a larger one means that the expansion in powers of the noise has failed
        physical = _within_bounds(closed.model, values)
    conditions = [
        (~finite, Flag.NOT_FINITE),
        (~lit, Flag.NO_SIGNAL),
        (~physical, Flag.UNPHYSICAL),
        (~np.isfinite(std).all(axis=0), Flag.NO_ERROR),
    ]
    flag = np.select([c for c, _ in conditions], [int(f) for _, f in conditions], int(Flag.OK))
    good = finite & lit & physical
    arrays: dict[str, AnyArray] = {"flag": flag, "rmse": np.full(signals.shape[1], np.nan)}
    for k, name in enumerate(closed.model.units):
        arrays[name] = np.where(good, values[k], np.nan)
        arrays["std " + name] = np.where(good, std[k], np.nan)
        arrays["bias " + name] = np.where(good, bias[k], np.nan)
    return arrays


def _within_bounds(model: SignalModel, values: FloatArray) -> AnyArray:
    low, high = np.array([p.bounds for p in model.free], dtype=float).T[:, :, None]
    free = values[: len(model.free)]
    return np.asarray(((free >= low) & (free <= high)).all(axis=0))
