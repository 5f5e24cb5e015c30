"""Contrasts of registered models as scans: protocol, geometry, BIDS name."""

import re
from dataclasses import dataclass

import numpy as np

from qcord.core.errors import MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.registry import get
from qcord.phantom.checks import require_name, require_range

SOURCES = ("", "model", "compartments")
_HIGH_B = 1200.0
_KNOWN = {"BValue", "Direction", "BDelta", "SecondDirection", "EchoTime", "RepetitionTime", "Volumes"}
_ECHO, _REPETITION = 0.075, 3.0

DEFAULT_SNR = {"dwi": 10.0}
USUAL_SNR = 25.0
"""Signal of white matter at C3/C4 in the brightest volume over the noise (assumed)."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A contrast to be scanned.

    Parameters
    ----------
    model : str
        Name in `qcord.models.registry`.
    protocol : Protocol, optional
        Any protocol with the columns that the model needs; that of the model's own example by default.
    name : str
        Name of the series, unique within a subject; that of the model by default.
    source : str
        Truth behind the signal: ``model``, the model's own formula with parameters from `qcord.phantom.parameters`;
        ``compartments``, those of `qcord.phantom.microstructure`. By default compartments for diffusion above 1200
        s/mm2 and the model elsewhere.
    snr : float
        Signal of white matter at C3/C4 in the brightest volume over the noise; 0 for the usual.
    suffix : str
        BIDS suffix; by default what the columns of the protocol suggest.
    matrix : tuple of int
        Number of voxels to the right, forwards and upwards; (0, 0, 0) for the usual.
    pixel, thickness : float
        Size of the voxels in the slice and across [mm].
    """

    model: str
    protocol: Protocol | None = None
    name: str = ""
    source: str = ""
    snr: float = 0.0
    suffix: str = ""
    matrix: tuple[int, int, int] = (0, 0, 0)
    pixel: float = 0.9
    thickness: float = 5.0

    def __post_init__(self) -> None:
        model = get(self.model)
        require_name(self.source, SOURCES, "source of a scan")
        require_range(self.pixel, 0.2, 5.0, "The voxel size [mm]")
        require_range(self.thickness, 0.5, 20.0, "The slice thickness [mm]")
        if self.protocol is None and model.example is None:
            raise MissingMetadata(
                f"Model {self.model} has no example protocol; give the scan one with {', '.join(model.needs)}."
            )
        object.__setattr__(self, "name", self.name or self.model)
        object.__setattr__(self, "suffix", self.suffix or suggested_suffix(self.model, self.settings))
        if not any(self.matrix):
            object.__setattr__(self, "matrix", (96, 36, 15) if self.diffusion else (160, 160, 15))
        if self.snr == 0:
            object.__setattr__(self, "snr", DEFAULT_SNR.get(self.suffix, USUAL_SNR))

    @property
    def settings(self) -> Protocol:
        """The protocol, with echo and repetition time where diffusion protocols leave them open."""
        example = get(self.model).example
        protocol = self.protocol
        if protocol is None:
            assert example is not None
            protocol = example()
        for column in get(self.model).needs:
            _ = protocol[column]
        if "BValue" in protocol:
            if "EchoTime" not in protocol:
                protocol = protocol.replace(EchoTime=_ECHO)
            if "RepetitionTime" not in protocol:
                protocol = protocol.replace(RepetitionTime=_REPETITION)
        return protocol

    @property
    def diffusion(self) -> bool:
        """Whether it is a diffusion scan."""
        return "BValue" in self.settings

    @property
    def by_compartments(self) -> bool:
        """Whether the truth are compartments."""
        if self.source or not self.diffusion:
            return self.source == "compartments"
        protocol = self.settings
        return set(protocol.columns) <= _KNOWN and float(np.max(protocol["BValue"])) > _HIGH_B

    @property
    def label(self) -> str:
        """Name as a BIDS label."""
        return re.sub(r"[^a-zA-Z0-9]", "", self.name)

    @property
    def sequence(self) -> str:
        """What the sequence is, for the sidecar."""
        return {"MESE": "multi-echo spin echo", "IRT1": "inversion-recovery spin echo"}.get(
            self.suffix, "spoiled gradient echo"
        )


def suggested_suffix(model: str, protocol: Protocol) -> str:
    """BIDS suffix of a series from the columns of its protocol, and where these leave it open from the model."""
    varies = {name for name, c in protocol.columns.items() if c.ndim == 1 and len(np.unique(c)) > 1}
    if "BValue" in protocol:
        return "dwi"
    if "MTState" in varies or "MTFrequencies" in varies:
        if "FlipAngle" not in varies:
            return "MTR"
        return "MPM" if "EchoTime" in varies else "MTS"
    if "InversionTime" in protocol:
        return "MP2RAGE" if "NumberShots" in protocol or "mp2rage" in model.lower() else "IRT1"
    if "FlipAngle" in varies:
        return "VFA"
    names = {p.name for p in get(model).free}
    return "MESE" if names & {"R2", "T2", "MWF"} else "MEGRE"
