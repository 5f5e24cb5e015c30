"""How the series of a subject are acquired: grids, protocols and sidecars."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.entities import Entities
from qcord.core.grid import Grid
from qcord.core.protocol import Protocol
from qcord.phantom.body import Body
from qcord.phantom.scan import COMPARTMENTS, Scan, half_sphere
from qcord.template import tables

CENTRE_DISC = "C3/C4"
"""Disc at which the axial slices are centred, perpendicular to the cord."""

B_VALUE = 800.0
N_DIRECTIONS = 30
N_UNWEIGHTED = 5
SHELLS = ((750.0, 30), (2000.0, 45))
"""b-value and number of directions of each shell of the multi-shell protocol."""

N_SHELL_UNWEIGHTED = 7
N_REVERSED = 3
ECHO_SPACING = 0.00094
"""Time [s] between lines of k-space of the zoomed echo-planar protocol."""

_COMMON = {
    "Modality": "MR",
    "MagneticFieldStrength": 3.0,
    "Manufacturer": "qcord",
    "ManufacturersModelName": "digital phantom",
    "BodyPart": "CSPINE",
}


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One series before it is measured.

    Parameters
    ----------
    name : str
        Name of the series.
    grid : Grid
        Where the voxels lie.
    protocol : Protocol
        One row a volume.
    parts : tuple of int
        Points along each edge of a voxel that stand for it.
    metadata : mapping
        Sidecar, without what differs between volumes.
    formula : str
        How its signal comes about: ``T2w``, ``T2star``, ``dwi``, ``MTS`` or ``compartments``; empty for that of
        ``model``.
    model : str
        Registered model to which the parameters of its truth belong.
    kind : str
        Which of ``T2w``, ``T2star``, ``dwi`` and ``MTS`` it resembles: what flowing blood, fluid and fat do.
    plane : tuple of int
        Voxel axes that are encoded in k-space in each slice.
    entities : Entities
        BIDS name, without that of the subject.
    """

    name: str
    grid: Grid
    protocol: Protocol
    parts: tuple[int, int, int]
    metadata: Mapping[str, Any]
    formula: str
    model: str = ""
    kind: str = "MTS"
    plane: tuple[int, int] = (0, 1)
    entities: Entities = field(default_factory=Entities)

    @property
    def echo_planar(self) -> bool:
        """Whether slices are read in one train of echoes, and bend with the field."""
        return "EffectiveEchoSpacing" in self.metadata

    def finer(self, factor: int) -> "Acquisition":
        """The same with voxels that are ``factor`` times smaller in the plane."""
        if factor == 1:
            return self
        shape, affine, parts = list(self.grid.shape), np.array(self.grid.affine), list(self.parts)
        for axis in self.plane:
            affine[:3, 3] -= affine[:3, axis] * (factor - 1) / (2 * factor)
            affine[:3, axis] /= factor
            shape[axis] *= factor
            parts[axis] = max(1, round(parts[axis] / factor))
        grid = Grid((shape[0], shape[1], shape[2]), affine, self.grid.stored)
        return replace(self, grid=grid, parts=(parts[0], parts[1], parts[2]))


def acquisition(name: str, body: Body, tesla: float = 3.0) -> Acquisition:
    """Protocol of a series of the standard protocol, placed on a subject as a radiographer would."""
    plan = _MAKERS[name](body)
    return replace(plan, metadata={**plan.metadata, "MagneticFieldStrength": tesla})


def scan_acquisition(scan: Scan, body: Body, tesla: float = 3.0) -> Acquisition:
    """A contrast of a registered model, in axial slices centred as those of the standard protocol."""
    shape, pixel, thickness = scan.matrix, scan.pixel, scan.thickness
    protocol = scan.settings
    metadata: dict[str, Any] = {**_COMMON, "MagneticFieldStrength": tesla, "SliceThickness": thickness}
    metadata |= {"SpacingBetweenSlices": thickness, "PhaseEncodingDirection": "j-", "PulseSequenceType": scan.sequence}
    if scan.diffusion:
        metadata |= _echo_planar(shape[1], "j-")
        metadata |= {"EchoTime": float(protocol["EchoTime"][0]), "RepetitionTime": float(protocol["RepetitionTime"][0])}
    parts = (3, 3, max(2, round(thickness)))
    kind = "dwi" if scan.diffusion else "T2w" if scan.suffix == "MESE" else "MTS"
    return Acquisition(
        name=scan.name,
        grid=_axial(body, shape, pixel, "LAS" if scan.diffusion else "RAS", thickness),
        protocol=protocol,
        parts=parts,
        metadata=metadata,
        formula=COMPARTMENTS if scan.by_compartments else "",
        model=scan.model,
        kind=kind,
        entities=Entities.of(scan.suffix, acq=scan.label),
    )


def _sagittal(body: Body) -> Acquisition:
    discs = tables.disc_heights()
    top, bottom = (body.place([0, 0, discs[n]]) for n in ("C1 top", "T4/T5"))
    low, high = bottom[2] - 6, top[2] + 8
    shape = (52, 240, int(np.ceil(high - low)))
    middle = body.place([0, 0, discs["C5/C6"]])
    affine = np.eye(4)
    affine[:3, 3] = [middle[0] - shape[0] / 2 + 0.5, middle[1] - 115, low]
    protocol = Protocol({"EchoTime": np.array([0.12]), "RepetitionTime": np.array([1.5])})
    metadata = {
        **_COMMON,
        **{"EchoTime": 0.12, "RepetitionTime": 1.5, "FlipAngle": 120, "MRAcquisitionType": "3D", "SliceThickness": 1.0},
        **{"PulseSequenceType": "3D turbo spin echo, variable flip angle, restore pulse", "ScanningSequence": "SE"},
    }
    grid = Grid(shape, affine, "PSR")
    return _standard("T2w", grid, protocol, (2, 2, 2), metadata, plane=(1, 2))


def _t2star(body: Body) -> Acquisition:
    columns = {"EchoTime": 0.014, "RepetitionTimeExcitation": 0.6, "FlipAngle": 30.0}
    protocol = Protocol({name: np.array([value]) for name, value in columns.items()})
    metadata = {
        **_COMMON,
        **{"EchoTime": 0.014, "RepetitionTime": 0.6, "RepetitionTimeExcitation": 0.6, "FlipAngle": 30},
        **{"MRAcquisitionType": "2D", "SliceThickness": 5.0, "SpacingBetweenSlices": 5.0, "ScanningSequence": "GR"},
        **{"PulseSequenceType": "multi-echo spoiled gradient echo, echoes combined", "PhaseEncodingDirection": "j-"},
    }
    return _standard("T2star", _axial(body, (320, 320, 15), 0.5, "LAS"), protocol, (2, 2, 5), metadata)


def _echo_planar(lines: int, direction: str) -> dict[str, Any]:
    return {
        **{"MRAcquisitionType": "2D", "ScanningSequence": "EP", "FlipAngle": 90, "PhaseEncodingDirection": direction},
        **{"EffectiveEchoSpacing": ECHO_SPACING, "TotalReadoutTime": round(ECHO_SPACING * (lines - 1), 6)},
        **{"PartialFourier": 0.875, "PulseSequenceType": "single-shot spin-echo EPI, reduced field of view"},
    }


def _diffusion_protocol(b: FloatArray, vectors: FloatArray, te: float, tr: float) -> Protocol:
    n = len(b)
    times = {"EchoTime": np.full(n, te), "RepetitionTime": np.full(n, tr)}
    return Protocol({"BValue": b, "Direction": vectors, **times})


def _zoomed(name: str, body: Body, protocol: Protocol, direction: str = "j-") -> Acquisition:
    shape = (96, 36, 15)
    metadata = {
        **_COMMON,
        **{"EchoTime": float(protocol["EchoTime"][0]), "RepetitionTime": float(protocol["RepetitionTime"][0])},
        **{"SliceThickness": 5.0, "SpacingBetweenSlices": 5.0},
        **_echo_planar(shape[1], direction),
    }
    return _standard(name, _axial(body, shape, 0.9, "LAS"), protocol, (3, 3, 5), metadata, kind="dwi")


def _diffusion(body: Body) -> Acquisition:
    weighted = half_sphere(N_DIRECTIONS)
    b = np.concatenate([[0.0], np.full(N_DIRECTIONS, B_VALUE), np.zeros(N_UNWEIGHTED - 1)])
    vectors = np.concatenate([np.zeros((1, 3)), weighted, np.zeros((N_UNWEIGHTED - 1, 3))])
    plan = _zoomed("dwi", body, _diffusion_protocol(b, vectors, 0.06, 3.0))
    return replace(plan, formula="dwi")


def _multi_shell(body: Body) -> Acquisition:
    b = [np.zeros(N_SHELL_UNWEIGHTED)]
    vectors: list[FloatArray] = [np.zeros((N_SHELL_UNWEIGHTED, 3))]
    for value, n in SHELLS:
        b.append(np.full(n, value))
        vectors.append(half_sphere(n))
    plan = _zoomed("multishell", body, _diffusion_protocol(np.concatenate(b), np.concatenate(vectors), 0.075, 3.0))
    return replace(plan, formula=COMPARTMENTS, entities=Entities.of("dwi", acq="multishell"))


def _reversed(body: Body) -> Acquisition:
    n = N_REVERSED
    plan = _zoomed("epi", body, _diffusion_protocol(np.zeros(n), np.zeros((n, 3)), 0.06, 3.0), "j")
    return replace(plan, formula="dwi", entities=Entities.of("epi", dir="PA"))


def _transfer(body: Body) -> Acquisition:
    columns = {
        "FlipAngle": np.array([9.0, 9.0, 15.0]),
        "RepetitionTimeExcitation": np.array([0.030, 0.030, 0.015]),
        "MTState": np.array([True, False, False]),
        "EchoTime": np.full(3, 0.00313),
        "FlipIndex": np.array([1.0, 1.0, 2.0]),
    }
    metadata = {
        **_COMMON,
        **{"EchoTime": 0.00313, "MRAcquisitionType": "3D", "SliceThickness": 5.0, "ScanningSequence": "GR"},
        **{"PulseSequenceType": "spoiled gradient echo", "PhaseEncodingDirection": "j-"},
    }
    return _standard("MTS", _axial(body, (192, 192, 22), 0.9, "RAS"), Protocol(columns), (3, 3, 5), metadata)


def _standard(
    name: str, grid: Grid, protocol: Protocol, parts: tuple[int, int, int], metadata: Mapping[str, Any], **more: Any
) -> Acquisition:
    settings = {"kind": name, "entities": Entities.of(name), **more}
    return Acquisition(name, grid, protocol, parts, metadata, name, **settings)


_MAKERS = {
    "T2w": _sagittal,
    "T2star": _t2star,
    "dwi": _diffusion,
    "MTS": _transfer,
    "multishell": _multi_shell,
    "epi": _reversed,
}


def _axial(body: Body, shape: tuple[int, int, int], pixel: float, stored: str, thickness: float = 5.0) -> Grid:
    """Slices perpendicular to the cord at C3/C4, not turned about it; rows as close to R as that allows."""
    height = tables.disc_heights()[CENTRE_DISC]
    along = body.tangent(height)
    right = np.array([1.0, 0.0, 0.0]) - along[0] * along
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(along, right), along], axis=1)
    matrix = axes * np.array([pixel, pixel, thickness])
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = body.place([0, 0, height]) - matrix @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine, stored)
