"""What a model gives without noise where the truth is not its own formula."""

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.fit import fit
from qcord.models.registry import get
from qcord.phantom.microstructure import compartment_signal
from qcord.phantom.parameters import model_metrics
from qcord.phantom.values import Tissue

ALIKE = 0.005
"""Difference of relative changes below which tissues count as the same."""


def apparent_values(model: str, tissue: Tissue, protocol: Protocol) -> dict[str, FloatArray]:
    """Values (n, t) by name that least squares give on the noise-free signal of the compartments.

    Parameters
    ----------
    model : str
        Name of a registered model.
    tissue : Tissue
        n places, t tissues.
    protocol : Protocol
        Diffusion protocol of the scan.
    """
    n, t = tissue["PD"].shape
    changes = np.concatenate([np.zeros((n, 1)), *tissue.factors.values()], axis=1)
    _, first, member = np.unique(np.round(changes / ALIKE), axis=0, return_index=True, return_inverse=True)
    distinct = tissue.take(first)
    up = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (len(first), 3))
    signals = compartment_signal(distinct.values, protocol, up)
    grid = Grid((len(first), t, 1), np.eye(4))
    fitted = fit(get(model), Series(Image(1000 * signals[:, :, None], grid), protocol), n_jobs=1)
    rows = member.reshape(-1)
    return {m: np.asarray(fitted.maps[m].data[rows, :, 0], dtype=float) for m in model_metrics(get(model))}
