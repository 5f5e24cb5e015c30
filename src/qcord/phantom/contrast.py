"""Signal of pure tissue under the protocol of a series."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.protocol import Protocol
from qcord.models.registry import get
from qcord.models.spoiled_gradient_echo import ernst_signal
from qcord.models.tensor import TENSOR
from qcord.phantom.tissue import axial_radial

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


def signal(name: str, values: Values, protocol: Protocol, *, tangent: FloatArray, gradient_echo: str) -> FloatArray:
    """Signal of tissues.

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
        return _transfer(values, protocol, gradient_echo)
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


def _transfer(values: Values, protocol: Protocol, gradient_echo: str) -> FloatArray:
    model = get(gradient_echo)
    theta = np.stack([values["PD"], 1 / values["T1"], values["MTsat"]], axis=-1)
    steady = model.signal(theta, protocol, model.given_defaults())
    return np.asarray(steady * np.exp(-protocol["EchoTime"] / values["T2star"][..., None]))


def _diffusion(values: Values, protocol: Protocol, tangent: FloatArray) -> FloatArray:
    te, tr = protocol["EchoTime"], protocol["RepetitionTime"]
    first = values["PD"] * (1 - np.exp(-tr[0] / values["T1"])) * np.exp(-te[0] / values["T2"])
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


def surrounding_signals(
    around: Mapping[str, Mapping[str, float]], name: str, protocol: Protocol, gradient_echo: str
) -> dict[str, FloatArray]:
    """Signal (n,) of each tissue around the cord; blood is voided, and fat suppressed, where the sequence does so."""
    signals = {}
    for tissue, values in around.items():
        arrays = {metric: np.asarray(value, dtype=float) for metric, value in values.items()}
        upward = np.array([0.0, 0.0, 1.0])
        pure = signal(name, arrays, protocol, tangent=upward, gradient_echo=gradient_echo)
        signals[tissue] = pure * RELATIVE.get((name, tissue), 1.0)
    return signals
