"""Signal of pure tissue under the protocol of a series."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.protocol import Protocol
from qcord.models.registry import get
from qcord.models.spoiled_gradient_echo import ernst_signal
from qcord.models.tensor import TENSOR, b_matrix
from qcord.phantom.acquisition import Acquisition
from qcord.phantom.microstructure import compartment_signal
from qcord.phantom.parameters import RULES, TRANSMIT, fibre_axis, theta_of, unmodelled
from qcord.phantom.scan import COMPARTMENTS
from qcord.phantom.tissue import axial_radial
from qcord.phantom.values import Tissue

Values = Mapping[str, FloatArray]

RELATIVE = MappingProxyType(
    {
        ("T2w", "blood"): 0.05,
        ("dwi", "blood"): 0.05,
        ("dwi", "fat"): 0.05,
        ("dwi", "marrow"): 0.15,
        ("T2star", "fluid"): 1.35,
        ("MTS", "fluid"): 1.15,
        ("T2star", "blood"): 1.5,
        ("MTS", "blood"): 1.5,
    }
)
"""Signal over that of the same tissue at rest and not suppressed (assumed): blood leaves between refocusing pulses,
fat is suppressed, and fresh blood and fluid flow into slices and slabs."""

_UP = np.array([[0.0, 0.0, 1.0]])


def tissue_signal(
    plan: Acquisition,
    tissue: Tissue,
    tangent: FloatArray,
    *,
    gradient_echo: str,
    given: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """Signal of tissues in a series.

    Parameters
    ----------
    plan : Acquisition
        The series.
    tissue : Tissue
        n places, t tissues.
    tangent : (n, 3) array
        Direction of the fibres in the world.
    gradient_echo : str
        Model of the MT images.
    given : mapping of str to (n,) array, optional
        Given parameters of models where they differ from their defaults, such as ``B1``.

    Returns
    -------
    (n, t, rows) array
        Signal, unit of the proton density.
    """
    if plan.formula == COMPARTMENTS:
        first = _spin_echo(tissue.values, plan.protocol)
        return first[..., None] * compartment_signal(tissue.values, plan.protocol, tangent)
    if plan.model:
        return _by_model(plan, tissue, tangent, given or {})
    b1 = (given or {}).get("B1")
    return signal(
        plan.formula,
        tissue.values,
        plan.protocol,
        tangent=tangent[:, None],
        gradient_echo=gradient_echo,
        b1=None if b1 is None else b1[:, None],
    )


def _by_model(plan: Acquisition, tissue: Tissue, tangent: FloatArray, given: Mapping[str, FloatArray]) -> FloatArray:
    """Signal by the formula of a registered model; directions are turned so that fibres lie where they belong."""
    model, protocol = get(plan.model), plan.protocol
    theta = theta_of(model, tissue, float(plan.metadata["MagneticFieldStrength"]))
    known = np.broadcast_to(model.given_defaults(), (*theta.shape[:2], len(model.given))).copy()
    for k, parameter in enumerate(model.given):
        if parameter.name in given:
            known[..., k] = given[parameter.name][:, None]
        elif parameter.name in RULES:
            known[..., k] = RULES[parameter.name](tissue)
    if TRANSMIT in [p.name for p in model.free]:
        theta[..., model.index(TRANSMIT)] = given[TRANSMIT][:, None] if TRANSMIT in given else 1.0
    weight = unmodelled(model, tissue, protocol)
    if "Direction" not in model.needs or "Direction" not in protocol:
        return np.asarray(model.signal(theta, protocol, known) * weight)
    result = np.empty((*theta.shape[:2], len(protocol)))
    for column in range(theta.shape[1]):
        own = fibre_axis(model, theta[0, column], protocol)
        for row in range(len(tangent)):
            turned = _turned(protocol, rotation_between(tangent[row], own))
            result[row, column] = model.signal(theta[row, column], turned, known[row, column])
    return result * weight


def rotation_between(first: FloatArray, second: FloatArray) -> FloatArray:
    """Rotation (3, 3) by the shortest way from one unit vector (3,) to another that is not opposite to it."""
    cross = np.cross(first, second)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.asarray(np.eye(3) + skew + np.einsum("ij,jk->ik", skew, skew) / (1 + np.dot(first, second)))


def _turned(protocol: Protocol, rotation: FloatArray) -> Protocol:
    names = [name for name in ("Direction", "SecondDirection") if name in protocol]
    return protocol.replace(**{name: np.einsum("nj,ij->ni", protocol[name], rotation) for name in names})


def signal(
    name: str,
    values: Values,
    protocol: Protocol,
    *,
    tangent: FloatArray,
    gradient_echo: str,
    b1: FloatArray | None = None,
) -> FloatArray:
    """Signal of tissues in one of the series of the standard protocol.

    Parameters
    ----------
    name : str
        Series.
    values : mapping of str to (...) array
        Tissue values by metric, see `qcord.phantom.tissue.METRICS`.
    protocol : Protocol
        n rows.
    tangent : (..., 3) array
        Direction of the fibres in the world; broadcasts against the values.
    gradient_echo : str
        Model of the MT images.
    b1 : (...) array, optional
        Transmit field, for the MT images; 1 by default. Broadcasts against the values.

    Returns
    -------
    (..., n) array
        Signal, unit of the proton density.
    """
    if name == "T2w":
        return _restored_spin_echo(values, protocol)
    if name == "T2star":
        return _gradient_echo(values, protocol)
    if name == "MTS":
        return _transfer(values, protocol, gradient_echo, b1)
    return _diffusion(values, protocol, tangent)


def _restored_spin_echo(values: Values, protocol: Protocol) -> FloatArray:
    """Spin echo whose remaining transverse magnetisation is flipped back after the train (driven equilibrium).

    The train lasts twice the echo time (echo in its middle). See van Uijen and den Boef 1984, Magn Reson Med 1:502.
    """
    te, tr = protocol["EchoTime"], protocol["RepetitionTime"]
    t1, t2 = values["T1"][..., None], values["T2"][..., None]
    recovered = np.exp(-(tr - 2 * te) / t1)
    returned = np.exp(-2 * te / t2)
    longitudinal = (1 - recovered) / (1 - recovered * returned)
    return np.asarray(values["PD"][..., None] * longitudinal * np.exp(-te / t2))


def _gradient_echo(values: Values, protocol: Protocol) -> FloatArray:
    theta = np.stack([values["PD"], 1 / values["T1"], np.zeros_like(values["T1"])], axis=-1)
    steady = ernst_signal(theta, protocol.replace(MTState=False), np.ones(1))
    return np.asarray(steady * np.exp(-protocol["EchoTime"] / values["T2star"][..., None]))


def _transfer(values: Values, protocol: Protocol, gradient_echo: str, b1: FloatArray | None = None) -> FloatArray:
    model = get(gradient_echo)
    theta = np.stack([values["PD"], 1 / values["T1"], values["MTsat"]], axis=-1)
    given = model.given_defaults() if b1 is None else b1[..., None]
    steady = model.signal(theta, protocol, given)
    return np.asarray(steady * np.exp(-protocol["EchoTime"] / values["T2star"][..., None]))


def _spin_echo(values: Values, protocol: Protocol) -> FloatArray:
    """Signal (...) without diffusion weighting; echo and repetition time are those of the first volume."""
    te, tr = protocol["EchoTime"], protocol["RepetitionTime"]
    return np.asarray(values["PD"] * (1 - np.exp(-tr[0] / values["T1"])) * np.exp(-te[0] / values["T2"]))


def _diffusion(values: Values, protocol: Protocol, tangent: FloatArray) -> FloatArray:
    first = _spin_echo(values, protocol)
    elements = tensor_elements(values["FA"], values["MD"], tangent)
    first, elements = np.broadcast_arrays(first[..., None], elements)
    theta = np.concatenate([first[..., :1], elements], axis=-1)
    return np.asarray(TENSOR.signal(theta, protocol, np.zeros(0)))


def tensor_elements(fa: FloatArray, md: FloatArray, tangent: FloatArray) -> FloatArray:
    """Elements (..., 6) xx, yy, zz, xy, xz, yz [mm2/s] of tensors that are symmetric about ``tangent`` (..., 3)."""
    along, across = axial_radial(fa, md)
    x, y, z = np.moveaxis(tangent, -1, 0)
    unit = np.broadcast_to(np.array([1.0, 1, 1, 0, 0, 0]), (*np.shape(x), 6))
    outer = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=-1)
    return np.asarray(across[..., None] * unit + (along - across)[..., None] * outer)


def surrounding_signals(around: Mapping[str, Tissue], plan: Acquisition, gradient_echo: str) -> dict[str, FloatArray]:
    """Signal (rows,) of each tissue around the cord; blood is voided, and fat suppressed, where the sequence does so.

    Diffusion around the cord is free, whatever the model of the cord.
    """
    signals = {}
    for name, tissue in around.items():
        if "BValue" in plan.protocol:
            trace = b_matrix(plan.protocol)[:, :3].sum(axis=1)
            pure = _spin_echo(tissue.values, plan.protocol)[0, 0] * np.exp(-trace * tissue["MD"][0, 0])
        else:
            pure = tissue_signal(plan, tissue, _UP, gradient_echo=gradient_echo)[0, 0]
        signals[name] = pure * RELATIVE.get((plan.kind, name), 1.0)
    return signals
