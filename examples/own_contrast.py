"""A contrast of one's own: one formula, then simulation, bound, fit with errors, comparison, and its check."""

import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.noise import Rician
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.compare import support
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.testing import check_model

DOI = "Carr and Purcell 1954, doi:10.1103/PhysRev.94.630"


def decay(theta, protocol, given):
    """Signal S0 at the excitation, decaying with R2 to EchoTime (doi:10.1103/PhysRev.94.630)."""
    return theta[..., :1] * np.exp(-theta[..., 1:2] * protocol["EchoTime"])


def level(theta, protocol, given):
    """Signal S0 at any EchoTime (doi:10.1103/PhysRev.94.630)."""
    return theta[..., :1] + 0 * protocol["EchoTime"]


def echoes():
    """Eight echoes, 10 ms apart."""
    return Protocol({"EchoTime": np.arange(1, 9) * 0.01})


S0 = Parameter("S0", "1", (0.0, 1e6), 100.0, "signal at the excitation")
R2 = Parameter("R2", "1/s", (0.0, 1000.0), 14.0, "transverse relaxation rate")
DECAY = SignalModel(
    name="decay",
    title="Mono-exponential decay",
    free=(S0, R2),
    needs=("EchoTime",),
    signal=decay,
    references=(DOI,),
    derived=(Derived("T2", "s", lambda theta: 1 / theta[..., 1]),),
    example=echoes,
    typical=(Typical("white matter", {"S0": 100.0, "R2": 13.7}, "Smith 2008, Magn Reson Med 60:213", "verified"),),
)
LEVEL = SignalModel("level", (S0,), ("EchoTime",), level, (DOI,))

theta, noise = DECAY.theta(DECAY.typical[0].values), Rician(2.0)
print("least errors of S0 and R2:", np.sqrt(np.diag(crlb(DECAY, theta, echoes(), noise))).round(2))

measured = simulate(DECAY, np.broadcast_to(theta, (7, 8, 9, 2)), echoes(), noise, seed=1)
series = Series(Image(measured, Grid((7, 8, 9), np.eye(4))), echoes())
fits = {model.name: fit(model, series, noise=noise) for model in (DECAY, LEVEL)}
t2 = fits["decay"]
print(f"T2 {t2['T2'].data.mean():.4f} s, spread {t2['T2'].data.std():.4f}, stated error {t2.std['T2'].data.mean():.4f}")
print(f"support of the decay over a constant: {support(fits)['decay'].data.mean():.3f}")
print(check_model(DECAY).spread.round(3).to_string(index=False))
