from dataclasses import replace

import numpy as np
import pytest

from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.registry import MODELS
from qcord.testing import ModelFault, check_model


def signal(theta, protocol, given):
    """Steady state of S0 and R1 at FlipAngle and RepetitionTimeExcitation, decaying by R2star to EchoTime; B1.

    Ernst and Anderson 1966, doi:10.1063/1.1719961.
    """
    recovered = np.exp(-theta[..., 1:2] * protocol["RepetitionTimeExcitation"])
    angle = given[..., :1] * np.deg2rad(protocol["FlipAngle"])
    steady = np.sin(angle) * (1 - recovered) / (1 - np.cos(angle) * recovered)
    return theta[..., :1] * steady * np.exp(-theta[..., 2:3] * protocol["EchoTime"])


def example():
    return Protocol(
        {
            "FlipAngle": np.repeat([5.0, 20.0], 4),
            "RepetitionTimeExcitation": np.full(8, 0.03),
            "EchoTime": np.tile([2e-3, 8e-3, 14e-3, 20e-3], 2),
        }
    )


GOOD = SignalModel(
    name="gradient-echo",
    title="Spoiled gradient echoes at two flip angles and four echo times",
    free=(
        Parameter("S0", "1", (0.0, 1e6), 1.0, "amplitude"),
        Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal rate"),
        Parameter("R2star", "1/s", (0.0, 500.0), 30.0, "transverse rate"),
    ),
    needs=("FlipAngle", "RepetitionTimeExcitation", "EchoTime"),
    signal=signal,
    references=("Ernst and Anderson 1966, doi:10.1063/1.1719961",),
    given=(Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle"),),
    derived=(Derived("T1", "s", lambda theta: 1 / theta[..., 1]),),
    example=example,
    typical=(Typical("white matter, 3 T", {"S0": 1.0, "R1": 1.1, "R2star": 26.0}, "assumption", "assumed"),),
)


def documented(function):
    function.__doc__ = signal.__doc__
    return function


@documented
def swapped(theta, protocol, given):
    other = protocol.replace(
        EchoTime=protocol["RepetitionTimeExcitation"], RepetitionTimeExcitation=protocol["EchoTime"]
    )
    return signal(theta, other, given)


@documented
def rectified(theta, protocol, given):
    return signal(np.abs(theta), protocol, given)


@documented
def hidden_constant(theta, protocol, given):
    return signal(theta, protocol, given) * np.exp(-theta[..., 2:3] * 0.002)


@documented
def milliseconds(theta, protocol, given):
    return signal(theta * [1, 1000, 1], protocol, given)


@documented
def first_voxel(theta, protocol, given):
    return signal(theta, protocol, given) * np.ones((1, 1))


@documented
def undeclared(theta, protocol, given):
    return signal(theta, protocol, given) * (1 - 0.1 * protocol["MTState"])


@documented
def by_mean_echo(theta, protocol, given):
    return signal(theta, protocol, given) * np.exp(-theta[..., 1:2] * protocol["EchoTime"].mean())


@documented
def without_b1(theta, protocol, given):
    return signal(theta, protocol, np.ones(1))


def third_power(theta, protocol, given):
    return signal(theta, protocol, given) * 1.001


def with_free(k, **changes):
    free = list(GOOD.free)
    free[k] = replace(free[k], **changes)
    return replace(GOOD, free=tuple(free))


def not_settling(measured, protocol, given):
    return np.broadcast_to([0.0, 20.0, 500.0], (*measured.shape[:-1], 3))


TYPICAL = GOOD.typical[0]
PLANTED = {
    "unit that does not exist": (with_free(1, unit="1/ms"), "R1 is in '1/ms', expected one of"),
    "derived value in milliseconds": (
        replace(GOOD, derived=(Derived("T1", "ms", lambda t: 1e3 / t[..., 1]),)),
        "T1 is in 'ms'",
    ),
    "start outside the bounds": (with_free(1, start=1000.0), "outside its bounds"),
    "no reference": (replace(GOOD, references=()), "cites no paper"),
    "reference without DOI": (replace(GOOD, references=("Ernst 1966",)), "no year and DOI"),
    "typical value left out": (
        replace(GOOD, typical=(replace(TYPICAL, values={"S0": 1.0, "R1": 1.1}),)),
        "differ in R2star",
    ),
    "settings swapped": (replace(GOOD, signal=swapped), "is one setting taken for another"),
    "signal not analytic": (replace(GOOD, signal=rectified), "keep it analytic"),
    "constant with a unit": (replace(GOOD, signal=hidden_constant), "a constant has a unit"),
    "milliseconds within": (replace(GOOD, signal=milliseconds), "does not depend on it"),
    "wrong shape": (replace(GOOD, signal=first_voxel), "has shape"),
    "column read but not stated": (replace(GOOD, signal=undeclared), "reads a column that it does not state"),
    "column stated but not read": (replace(GOOD, needs=(*GOOD.needs, "MTState")), "MTState"),
    "rows depend on each other": (replace(GOOD, signal=by_mean_echo), "not stated as coupled"),
    "wrong gradient": (
        replace(GOOD, derived=(Derived("T1", "s", lambda t: 1 / t[..., 1], np.ones_like),)),
        "the derivative of T1 by",
    ),
    "wrong derivatives of its own": (
        replace(GOOD, slope=lambda theta, protocol, given: (signal(theta, protocol, given).T, np.ones((3, 1, 1)))),
        "its own derivatives differ",
    ),
    "protocol too short": (
        replace(GOOD, example=lambda: example().take(np.arange(4))),
        "does not determine it",
    ),
    "no example": (replace(GOOD, example=None), "no example protocol"),
}


def test_a_good_model_passes_and_meets_its_bound():
    report = check_model(GOOD, oracle=signal)
    assert report.spread["parameter"].tolist() == ["S0", "R1", "R2star"]
    assert report.spread["spread_over_bound"].between(0.92, 1.08).all()
    assert report.spread["coverage"].between(0.93, 0.97).all()


@pytest.mark.parametrize("what", PLANTED)
def test_planted_faults_are_found(what):
    model, sentence = PLANTED[what]
    with pytest.raises(ModelFault, match=sentence):
        check_model(model, draws=0)


def test_a_difference_to_a_second_formula_is_found():
    with pytest.raises(ModelFault, match="differs from the second formula"):
        check_model(GOOD, oracle=third_power, draws=0)


def test_intervals_that_are_too_narrow_are_found(monkeypatch):
    from qcord.testing import recovery

    honest = recovery.fit_nonlinear

    def boastful(*arguments, **settings):
        solution = honest(*arguments, **settings)
        return replace(solution, covariance=solution.covariance / 4)

    monkeypatch.setattr(recovery, "fit_nonlinear", boastful)
    with pytest.raises(ModelFault, match="cover the truth in"):
        check_model(GOOD)


@pytest.mark.parametrize("name", MODELS)
def test_every_registered_model_keeps_the_contract(name):
    report = check_model(MODELS[name], draws=500)
    assert report.model == name
