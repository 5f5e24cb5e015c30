"""Contrasts of registered models as scans: protocol, geometry, BIDS name."""

import re
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.registry import get
from qcord.phantom.checks import require_name, require_range

COMPARTMENTS = "compartments"
"""Formula of series whose truth are the compartments of `qcord.phantom.microstructure`."""

SOURCES = ("", "model", COMPARTMENTS)
SEQUENCES = {"MESE": "multi-echo spin echo", "IRT1": "inversion-recovery spin echo", "MP2RAGE": "MP2RAGE"}
USUAL_THICKNESS = 5.0
_HIGH_B = 1200.0
_KNOWN = {"BValue", "Direction", "BDelta", "SecondDirection", "EchoTime", "RepetitionTime", "Volumes"}
_ECHO, _REPETITION = 0.075, 3.0
_POWDER = 12

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
        Size of the voxels in the slice and across [mm]; a thickness of 0 stands for that of the protocol, else 5 mm.
    """

    model: str
    protocol: Protocol | None = None
    name: str = ""
    source: str = ""
    snr: float = 0.0
    suffix: str = ""
    matrix: tuple[int, int, int] = (0, 0, 0)
    pixel: float = 0.9
    thickness: float = 0.0

    def __post_init__(self) -> None:
        model = get(self.model)
        require_name(self.source, SOURCES, "source of a scan")
        require_range(self.pixel, 0.2, 5.0, "The voxel size [mm]")
        require_range(self.thickness, 0.0, 20.0, "The slice thickness [mm]")
        given = self.protocol
        if given is None:
            if model.example is None:
                raise MissingMetadata(
                    f"Model {self.model} has no example protocol; give the scan one with {', '.join(model.needs)}."
                )
            given = model.example()
        for column in model.needs:
            _ = given[column]
        protocol = prepared(given)
        usual = float(np.mean(protocol["SliceThickness"])) if "SliceThickness" in protocol else USUAL_THICKNESS
        suffix = self.suffix or suggested_suffix(self.model, protocol)
        matrix = self.matrix if any(self.matrix) else ((96, 36, 15) if "BValue" in protocol else (160, 160, 15))
        for field, value in (
            ("protocol", protocol),
            ("name", self.name or self.model),
            ("suffix", suffix),
            ("matrix", matrix),
            ("thickness", self.thickness or usual),
            ("snr", self.snr or DEFAULT_SNR.get(suffix, USUAL_SNR)),
        ):
            object.__setattr__(self, field, value)

    @property
    def settings(self) -> Protocol:
        """The protocol, complete."""
        assert self.protocol is not None
        return self.protocol

    @property
    def diffusion(self) -> bool:
        """Whether it is a diffusion scan."""
        return "BValue" in self.settings

    @property
    def by_compartments(self) -> bool:
        """Whether the truth are compartments."""
        if self.source or not self.diffusion:
            return self.source == COMPARTMENTS
        protocol = self.settings
        return set(protocol.columns) <= _KNOWN and float(np.max(protocol["BValue"])) > _HIGH_B

    @property
    def label(self) -> str:
        """Name as a BIDS label."""
        return re.sub(r"[^a-zA-Z0-9]", "", self.name)

    @property
    def sequence(self) -> str:
        """What the sequence is, for the sidecar."""
        return SEQUENCES.get(self.suffix, "spoiled gradient echo")


def prepared(protocol: Protocol) -> Protocol:
    """Protocol of a scan: diffusion protocols get what they leave open.

    Without directions, measurements of one b-value and shape are spread over the half sphere; a protocol with one
    measurement of each, as of powder averages, gets twelve for each weighted one. Echo and repetition time are those
    of zoomed diffusion scans with a high b-value.
    """
    if "BValue" not in protocol:
        return protocol
    if "Direction" not in protocol:
        protocol = _directed(protocol)
    for name, value in (("EchoTime", _ECHO), ("RepetitionTime", _REPETITION)):
        if name not in protocol:
            protocol = protocol.replace(**{name: value})
    return protocol


def _directed(protocol: Protocol) -> Protocol:
    shape = protocol["BDelta"] if "BDelta" in protocol else np.ones(len(protocol))
    settings = np.stack([protocol["BValue"], shape], axis=1)
    groups, member, count = np.unique(settings, axis=0, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    if count.max() == 1:
        member = np.repeat(member, np.where(settings[:, 0] > 0, _POWDER, 1))
        protocol = protocol.take(np.repeat(np.arange(len(protocol)), np.where(settings[:, 0] > 0, _POWDER, 1)))
    directions = np.zeros((len(protocol), 3))
    for number, (b, delta) in enumerate(groups):
        rows = np.flatnonzero(member == number)
        if b > 0 and delta != 0:
            directions[rows] = half_sphere(len(rows))
    return protocol.replace(Direction=directions)


def half_sphere(n: int) -> FloatArray:
    """Unit vectors (n, 3) spread evenly over the half sphere (golden spiral)."""
    z = (np.arange(n) + 0.5) / n
    angle = np.arange(n) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def suggested_suffix(model: str, protocol: Protocol) -> str:
    """BIDS suffix of a series from the columns of its protocol, and where these leave it open from the model."""
    varies = {name for name, c in protocol.columns.items() if c.ndim == 1 and len(np.unique(c)) > 1}
    names = {p.name for p in get(model).free}
    rules = (
        ("dwi", "BValue" in protocol),
        ("TB1DAM", "B1" in names and "FlipAngle" in varies),
        ("TB1AFI", "B1" in names),
        ("MTS", bool({"MTFlipAngle", "MTOffsetFrequency"} & set(protocol.columns))),
        ("MTR", bool({"MTState", "MTFrequencies"} & varies) and "FlipAngle" not in varies),
        ("MPM", bool({"MTState", "MTFrequencies"} & varies) and "EchoTime" in varies),
        ("MTS", bool({"MTState", "MTFrequencies"} & varies)),
        ("MP2RAGE", "InversionTime" in protocol and "NumberShots" in protocol),
        ("IRT1", "InversionTime" in protocol),
        ("VFA", "FlipAngle" in varies),
        ("MESE", bool(names & {"R2", "T2", "MWF"})),
    )
    return next((suffix for suffix, holds in rules if holds), "MEGRE")
