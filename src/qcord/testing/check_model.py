"""Hold a signal model to the contract of all models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.testing import declaration, formula, recovery

Oracle = Callable[[FloatArray, Protocol, FloatArray], AnyArray]


class ModelFault(AssertionError):
    """A model breaks the contract; ``faults`` are the sentences that say where."""

    def __init__(self, model: str, faults: tuple[str, ...]) -> None:
        super().__init__(f"Model {model}: " + "; ".join(faults) + ".")
        self.faults = faults


@dataclass(frozen=True, eq=False)
class ModelReport:
    """A model that keeps the contract.

    Parameters
    ----------
    model : str
        Its name.
    spread : DataFrame
        Spread over bound, bias and coverage of each free parameter; see `qcord.testing.recovery.monte_carlo`.
    """

    model: str
    spread: pd.DataFrame


def check_model(
    model: SignalModel, *, oracle: Oracle | None = None, snr: float = 50.0, draws: int = 1000, seed: int = 0
) -> ModelReport:
    """Check a model: what it states, its formula, its derivatives, units and limits, and what a fit makes of it.

    Parameters
    ----------
    model : SignalModel
        A registered model or a user's own, with `SignalModel.example` and `SignalModel.typical`.
    oracle : callable, optional
        A second formula, written independently, with the arguments of ``signal``.
    snr : float
        Largest signal over noise of the simulated measurements.
    draws : int
        Number of noisy simulations; 0 leaves them out.
    seed : int
        Start of the random numbers.

    Returns
    -------
    ModelReport
        How spread and bias of the fit compare with the Cramer-Rao bound.

    Raises
    ------
    ModelFault
        With one sentence for each fault.
    """
    _stop_at(model, (*declaration.faults(model), *declaration.example_faults(model)))
    assert model.example is not None
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    _stop_at(model, formula.shape_faults(model, theta, protocol))
    protocol = declaration.needed(model, protocol)
    _stop_at(
        model,
        (
            *formula.unit_faults(model, theta, protocol),
            *formula.sense_faults(model, theta, protocol),
            *_oracle_faults(model, oracle, theta, protocol),
        ),
    )
    _stop_at(model, formula.derivative_faults(model, theta[None], _size(model, theta), protocol))
    _stop_at(model, recovery.bound_faults(model, theta, protocol))
    sigma = float(np.abs(simulate(model, theta, protocol)).max()) / snr
    std = np.sqrt(np.diag(crlb(model, theta, protocol, Gaussian(sigma))))
    thetas = recovery.neighbours(model, theta, std, seed)
    table = pd.DataFrame()
    found = [*formula.derivative_faults(model, thetas, np.minimum(std, _size(model, theta)), protocol)]
    found += [*_oracle_faults(model, oracle, thetas, protocol), *recovery.exact_faults(model, thetas, std, protocol)]
    if draws:
        table = recovery.monte_carlo(model, theta, protocol, snr=snr, draws=draws, seed=seed)
        found += recovery.noise_faults(table, draws)
    _stop_at(model, found)
    return ModelReport(model.name, table)


def _size(model: SignalModel, theta: FloatArray) -> FloatArray:
    """Scale (p,) of each parameter: its typical value, or where that is 0 the largest among values of its unit."""
    same = [[abs(t) for t, q in zip(theta, model.free, strict=True) if q.unit == p.unit] for p in model.free]
    return np.array([abs(t) or max(s) or 1.0 for t, s in zip(theta, same, strict=True)])


def _oracle_faults(model: SignalModel, oracle: Oracle | None, theta: FloatArray, protocol: Protocol) -> Iterator[str]:
    if oracle is None:
        return
    given = model.given_defaults()
    own, other = model.signal(theta, protocol, given), oracle(theta, protocol, given)
    if not np.allclose(own, other, rtol=1e-6, atol=1e-8 * np.abs(own).max()):
        yield "its signal differs from the second formula"


def _stop_at(model: SignalModel, faults: Iterator[str] | tuple[str, ...] | list[str]) -> None:
    found = tuple(faults)
    if found:
        raise ModelFault(model.name, found)
