"""A model of two parameters that stands for one of a user's own."""

import numpy as np

from qcord.core.model import SignalModel
from qcord.core.parameter import Parameter

S0 = Parameter("S0", "1", (0.0, 1e5), 500.0, "signal at no echo time")
REFERENCE = ("none, 2000, doi:10.0000/none",)
DECAY = SignalModel(
    "decay",
    (S0, Parameter("R2star", "1/s", (0.0, 500.0), 30.0, "rate of decay")),
    ("EchoTime",),
    lambda theta, protocol, given: theta[..., :1] * np.exp(-theta[..., 1:2] * protocol["EchoTime"]),
    REFERENCE,
)
