"""Fast fits of models with one nonlinear unknown: relaxation rates and transmit fields.

The amplitudes follow from the nonlinear unknown by linear least squares (variable projection), so that one number is
sought per voxel, by Gauss-Newton steps that shrink when they swing. The voxel axis comes last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray, IntArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.model import Derived, SignalModel
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.evaluate import Evaluator
from qcord.estimate.fit import as_fit, require_enough
from qcord.estimate.jacobian import STEP
from qcord.estimate.voxelwise import inverse, multiply
from qcord.maps.magnitude import REFERENCES as FLOOR
from qcord.maps.magnitude import restored
from qcord.models import registry

REFERENCES = ("Golub and Pereyra 1973, doi:10.1137/0710036", "Kaufman 1975, doi:10.1007/BF01932995")

_ROUNDS = 40
_SCORING = 7
"""Rounds after which what magnitudes are compared with stays, as a signal near its null may swing about it."""

_LEAP = 4.0
"""Factor by which the unknown changes at most in one step."""

_SETTLED = 1e-4
"""Step, in standard errors, below which a voxel has settled."""

_ROUNDING = 1e-10
"""Step, relative to the unknown, that is rounding."""


@dataclass(frozen=True, eq=False)
class Task:
    """How to fit one block.

    Parameters
    ----------
    model : SignalModel
        Its last free parameter is the nonlinear one; the signal is linear in all others.
    protocol : Protocol
        n rows.
    magnitudes : bool
        Whether the measurements are magnitudes: then signs are those of the model, and where the noise is known its
        floor is taken into account.
    """

    model: SignalModel
    protocol: Protocol
    magnitudes: bool = True
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluator", Evaluator(self.model, self.protocol))

    def outputs(self) -> list[Output]:
        """Maps that `run` makes."""
        return [*(Output(prefix + n) for prefix in ("", "std ", "bias ") for n in self.model.units), Output("rmse")]

    def run(self, signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        """Fit one block (n, v)."""
        given = np.empty((len(self.model.given), signals.shape[1]))
        for k, parameter in enumerate(self.model.given):
            given[k] = extra[parameter.name][0] if parameter.name in extra else parameter.start
        finite: BoolArray = np.asarray(np.isfinite(signals).all(axis=0) & np.isfinite(given).all(axis=0))
        sigma = np.broadcast_to(extra["sigma"], signals.shape) if "sigma" in extra else None
        known = np.full(signals.shape[1], sigma is not None)
        peak = np.abs(signals).max(axis=0)
        lit = peak > 0
        if sigma is not None:
            known &= (np.isfinite(sigma) & (sigma > 0)).all(axis=0)
            lit &= ~(known & (np.abs(signals) < sigma).all(axis=0))
            sigma = np.where(known, sigma, np.where(lit & finite, 1e-4 * peak, 1.0))
        good = finite & lit
        given = np.where(good, given, self.model.given_defaults()[:, None])
        voxels = _Voxels(self, np.where(good, signals, 1.0), sigma, given)
        with np.errstate(all="ignore"):
            state = _solve(voxels)
            arrays = _estimates(voxels, state, known)
        return _flagged(self.model, arrays, state, finite=finite, lit=lit)


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Measurements and noise (n, v), given parameters (g, v)."""

    task: Task
    measured: FloatArray
    sigma: FloatArray | None
    given: FloatArray

    def take(self, columns: IntArray) -> "_Voxels":
        sigma = None if self.sigma is None else self.sigma[:, columns]
        return _Voxels(self.task, self.measured[:, columns], sigma, self.given[:, columns])

    def signal(self, theta: AnyArray) -> AnyArray:
        """Signals (n, v) of theta (p, v)."""
        return self.task.evaluator.signal(theta, self.given)

    def basis(self, unknown: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Signal of unit amplitudes, (l, n, v), and its derivative by the nonlinear unknown."""
        linear = len(self.task.model.free) - 1
        theta = np.zeros((linear + 1, len(unknown)), dtype=complex)
        theta[-1] = unknown + 1j * STEP
        both = np.empty((linear, len(self.measured), len(unknown)), dtype=complex)
        for k in range(linear):
            theta[:-1] = 0
            theta[k] = 1
            both[k] = self.signal(theta)
        return np.ascontiguousarray(both.real), both.imag / STEP

    def compared(self, signal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What to fit and its weights, given the present signal."""
        if self.task.magnitudes and self.sigma is not None:
            return restored(np.abs(self.measured), signal, self.sigma)
        values = np.copysign(self.measured, signal) if self.task.magnitudes else self.measured
        return values, np.ones_like(values) if self.sigma is None else 1 / self.sigma**2


@dataclass(eq=False)
class _State:
    """Present estimates of all voxels of a block."""

    amplitude: FloatArray
    unknown: FloatArray
    settled: BoolArray


def _solve(voxels: _Voxels) -> _State:
    model, protocol = voxels.task.model, voxels.task.protocol
    low, high = model.free[-1].bounds
    v = voxels.measured.shape[1]
    assert model.start is not None
    first = np.asarray(model.start(voxels.measured.T, protocol, voxels.given.T), dtype=float).T
    unknown = np.clip(np.where(np.isfinite(first[-1]), first[-1], model.free[-1].start), low, high)
    state = _State(np.nan_to_num(first[:-1]), unknown, np.zeros(v, dtype=bool))
    active, part = np.arange(v), voxels
    last = np.zeros(v)
    for turn in range(_ROUNDS):
        here = state.unknown[active]
        basis, slope = part.basis(here)
        signal = np.einsum("lv,lnv->nv", state.amplitude[:, active], basis)
        if turn < _SCORING:
            values, weights = part.compared(signal)
        amplitude, pull, stiffness, cost = _project(basis, slope, values, weights)
        step = np.nan_to_num(pull / stiffness)
        swings = step * last[active] < 0
        step = np.where(swings, np.clip(step, *(0.5 * np.abs(last[active]) * [[-1], [1]])), step)
        target = np.clip(np.clip(here + step, here / _LEAP, here * _LEAP), low, high)
        spread = 1.0 if part.sigma is not None else np.sqrt(cost / max(1, len(values) - len(basis) - 1))
        change = np.abs(target - here)
        done = (change <= _SETTLED * spread / np.sqrt(stiffness)) | (change <= _ROUNDING * np.abs(here))
        done &= (turn > 0) | (part.sigma is None)
        state.amplitude[:, active], state.unknown[active] = amplitude, target
        state.settled[active], last[active] = done, target - here
        left = np.flatnonzero(~done)
        if not left.size:
            break
        if left.size < 0.7 * active.size:
            active, part, values, weights = active[left], part.take(left), values[:, left], weights[:, left]
    return state


def _project(
    basis: FloatArray, slope: FloatArray, values: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Amplitudes at a fixed nonlinear unknown; pull and stiffness of the unknown; weighted residual.

    Pull over stiffness is Kaufman's Gauss-Newton step: the slope is used less its part along the basis.
    """
    weighted = weights * basis
    if len(basis) == 1:
        normal = np.einsum("nv,nv->v", weighted[0], basis[0])[None, None]
        inverted = 1 / normal
    else:
        inverted = inverse(np.einsum("knv,lnv->klv", weighted, basis))
    amplitude = multiply(inverted, np.einsum("lnv,nv->lv", weighted, values))
    residual = values - np.einsum("lv,lnv->nv", amplitude, basis)
    direction = np.einsum("lv,lnv->nv", amplitude, slope)
    along = multiply(inverted, np.einsum("lnv,nv->lv", weighted, direction))
    direction = direction - np.einsum("lv,lnv->nv", along, basis)
    pull = np.einsum("nv,nv,nv->v", weights, direction, residual)
    stiffness = np.einsum("nv,nv,nv->v", weights, direction, direction)
    return amplitude, pull, stiffness, np.einsum("nv,nv,nv->v", weights, residual, residual)


def _estimates(voxels: _Voxels, state: _State, known: BoolArray) -> dict[str, AnyArray]:
    """Values, standard errors and bias of free and derived parameters."""
    model = voxels.task.model
    basis, slope = voxels.basis(state.unknown)
    signal = np.einsum("lv,lnv->nv", state.amplitude, basis)
    values, weights = voxels.compared(signal)
    residual = values - signal
    jacobian = np.concatenate([basis, np.einsum("lv,lnv->nv", state.amplitude, slope)[None]])
    size = np.sqrt(np.einsum("nv,pnv,pnv->pv", weights, jacobian, jacobian))
    scaled = jacobian / size[:, None]
    inverted = inverse(np.einsum("nv,pnv,qnv->pqv", weights, scaled, scaled)) / (size[:, None] * size[None])
    freedom = len(values) - len(model.free)
    variance = np.where(known, 1.0, (weights * residual**2).sum(axis=0) / (freedom if freedom > 0 else np.nan))
    covariance = inverted * variance
    bend = _bend(voxels, state, slope, covariance)
    bias = -0.5 * multiply(inverted, np.einsum("pnv,nv->pv", jacobian, weights * bend))
    theta = np.concatenate([state.amplitude, state.unknown[None]])
    arrays: dict[str, AnyArray] = {}
    for k, parameter in enumerate(model.free):
        std = np.sqrt(covariance[k, k])
        arrays[parameter.name], arrays["std " + parameter.name] = theta[k], std
        arrays["bias " + parameter.name] = np.clip(bias[k], -std, std)
    for derived in model.derived:
        value, std, shift = _derived(derived, theta, covariance[-1, -1], bias[-1])
        arrays[derived.name], arrays["std " + derived.name] = value, std
        arrays["bias " + derived.name] = np.clip(shift, -std, std)
    rmse = np.sqrt((residual**2).mean(axis=0)) if freedom > 0 else np.full(residual.shape[1], np.nan)
    return arrays | {"rmse": rmse}


def _bend(voxels: _Voxels, state: _State, slope: FloatArray, covariance: FloatArray) -> FloatArray:
    """Sum of second derivatives of the signal times covariances (n, v), for the bias (Box 1971)."""
    step = 1e-4 * np.maximum(np.abs(state.unknown), 1e-6)
    theta = np.concatenate([state.amplitude, state.unknown[None]]).astype(complex)
    theta[-1] += step + 1j * STEP
    second = (voxels.signal(theta).imag / STEP - np.einsum("lv,lnv->nv", state.amplitude, slope)) / step
    mixed = np.einsum("lnv,lv->nv", slope, covariance[:-1, -1])
    return np.asarray(2 * mixed + second * covariance[-1, -1])


def _derived(
    derived: Derived, theta: FloatArray, variance: FloatArray, bias: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value, standard error and bias of a function of the nonlinear unknown alone."""

    def formula(unknown: AnyArray) -> AnyArray:
        moved = theta.astype(unknown.dtype)
        moved[-1] = unknown
        return np.asarray(derived.formula(moved.T))

    unknown = theta[-1]
    step = 1e-4 * np.maximum(np.abs(unknown), 1e-6)
    slope = formula(unknown + 1j * STEP).imag / STEP
    second = (formula(unknown + step + 1j * STEP).imag / STEP - slope) / step
    return formula(unknown), np.abs(slope) * np.sqrt(variance), slope * bias + 0.5 * second * variance


def _flagged(
    model: SignalModel, arrays: dict[str, AnyArray], state: _State, *, finite: BoolArray, lit: BoolArray
) -> dict[str, AnyArray]:
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    physical = np.isfinite(state.unknown)
    for k in range(len(low) - 1):
        physical &= (state.amplitude[k] >= low[k]) & (state.amplitude[k] <= high[k])
    edge = (state.unknown <= low[-1] * (1 + 1e-9)) | (state.unknown >= high[-1] * (1 - 1e-9))
    erring = ~np.isfinite(arrays["std " + model.free[-1].name])
    conditions = [~finite, ~lit, ~physical, edge, ~state.settled, erring]
    flags = (Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL, Flag.AT_BOUND, Flag.NOT_CONVERGED, Flag.NO_ERROR)
    flag = np.select(conditions, [int(f) for f in flags], int(Flag.OK))
    without = ~(finite & lit & physical)
    return {**{k: np.where(without, np.nan, v) for k, v in arrays.items()}, "flag": flag}


def fit_relaxation(
    model: str,
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
    **given: Image | float,
) -> Fit:
    """Fit a model with one nonlinear unknown by variable projection.

    Parameters
    ----------
    model : str
        Model whose last free parameter is nonlinear and whose signal is linear in all others.
    series : Series
        Measurements with the columns that the model needs.
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise. With it magnitudes are compared with their expectation above the noise floor
        and count by their information; without it the residuals give the standard errors.
    rician : bool
        Whether the measurements are magnitudes, whose signs are then those of the model; else they are signed and
        their noise is normal.
    n_jobs : int, optional
        Threads; the result does not depend on it.
    **given : Image or float
        Given parameters, by their names in lower case; the defaults of the model otherwise.

    Returns
    -------
    Fit
        Free and derived values with standard errors and bias.

    Raises
    ------
    MissingMetadata
        If a protocol column is absent.
    NotIdentifiable
        If there are fewer measurements than parameters.
    GridMismatch
        If a map lies on another grid.

    References
    ----------
    Golub and Pereyra 1973, doi:10.1137/0710036; Kaufman 1975, doi:10.1007/BF01932995 (variable projection);
    Box 1971, doi:10.1111/j.2517-6161.1971.tb00871.x (bias); for magnitudes see `qcord.maps.magnitude`.
    """
    chosen = registry.get(model)
    require_enough(chosen, series, len(chosen.free))
    grid = series.image.grid
    known = {p.name: given[p.name.lower()] for p in chosen.given if p.name.lower() in given}
    extra: dict[str, AnyArray] = given_maps(known, grid)
    noise = noise_map(sigma, grid, len(series.protocol))
    if noise is not None:
        extra["sigma"] = noise
    task = Task(chosen, series.protocol, rician)
    arrays = run_blocks(
        task.run,
        series.data,
        mask_of(mask, grid),
        task.outputs(),
        extra=extra,
        copies=3 * len(chosen.free),
        n_jobs=n_jobs,
    )
    settings = {
        "model": chosen.name,
        "method": "variable projection",
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician and sigma is not None else "gaussian",
        "given": sorted(known),
    }
    if "B1" in [p.name for p in chosen.given]:
        settings["B1"] = "given" if "B1" in known else "not corrected: T1 and R1 are apparent values"
    references = (*chosen.references, *REFERENCES, *(FLOOR if rician and sigma is not None else ()))
    return as_fit(chosen, series.image, arrays, Step("fit", settings, references))
