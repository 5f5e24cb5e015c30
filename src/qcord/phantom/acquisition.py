"""How the series of a subject are acquired: grids, protocols and sidecars of the spine-generic protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.grid import Grid
from qcord.core.protocol import Protocol
from qcord.phantom.body import Body
from qcord.template import tables

CENTRE_DISC = "C3/C4"
"""Disc at which the axial slices are centred, perpendicular to the cord."""

B_VALUE = 800.0
N_DIRECTIONS = 30
N_UNWEIGHTED = 5

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
        ``T2w``, ``T2star``, ``dwi`` or ``MTS``.
    grid : Grid
        Where the voxels lie.
    protocol : Protocol
        One row a volume.
    parts : tuple of int
        Points along each edge of a voxel that stand for it.
    metadata : mapping
        Sidecar, without what differs between volumes.
    """

    name: str
    grid: Grid
    protocol: Protocol
    parts: tuple[int, int, int]
    metadata: Mapping[str, Any]


def acquisition(name: str, body: Body) -> Acquisition:
    """Protocol of a series, placed on a subject as a radiographer would."""
    return _MAKERS[name](body)


def directions(n: int) -> FloatArray:
    """Unit vectors (n, 3) spread evenly over the half sphere (golden spiral)."""
    z = (np.arange(n) + 0.5) / n
    angle = np.arange(n) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


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
    return Acquisition("T2w", Grid(shape, affine, "PSR"), protocol, (2, 2, 2), metadata)


def _t2star(body: Body) -> Acquisition:
    columns = {"EchoTime": 0.014, "RepetitionTimeExcitation": 0.6, "FlipAngle": 30.0}
    protocol = Protocol({name: np.array([value]) for name, value in columns.items()})
    metadata = {
        **_COMMON,
        **{"EchoTime": 0.014, "RepetitionTime": 0.6, "RepetitionTimeExcitation": 0.6, "FlipAngle": 30},
        **{"MRAcquisitionType": "2D", "SliceThickness": 5.0, "SpacingBetweenSlices": 5.0, "ScanningSequence": "GR"},
        **{"PulseSequenceType": "multi-echo spoiled gradient echo, echoes combined", "PhaseEncodingDirection": "j-"},
    }
    return Acquisition("T2star", _axial(body, (320, 320, 15), 0.5, "LAS"), protocol, (2, 2, 5), metadata)


def _diffusion(body: Body) -> Acquisition:
    weighted = directions(N_DIRECTIONS)
    b = np.concatenate([[0.0], np.full(N_DIRECTIONS, B_VALUE), np.zeros(N_UNWEIGHTED - 1)])
    vectors = np.concatenate([np.zeros((1, 3)), weighted, np.zeros((N_UNWEIGHTED - 1, 3))])
    n = len(b)
    columns = {"BValue": b, "Direction": vectors, "EchoTime": np.full(n, 0.06), "RepetitionTime": np.full(n, 3.0)}
    metadata = {
        **_COMMON,
        **{"EchoTime": 0.06, "RepetitionTime": 3.0, "FlipAngle": 90, "MRAcquisitionType": "2D", "SliceThickness": 5.0},
        **{"SpacingBetweenSlices": 5.0, "ScanningSequence": "EP", "PhaseEncodingDirection": "j-"},
        **{"EffectiveEchoSpacing": 0.00094, "TotalReadoutTime": 0.0329, "PartialFourier": 0.875},
        "PulseSequenceType": "single-shot spin-echo EPI, reduced field of view",
    }
    return Acquisition("dwi", _axial(body, (96, 36, 15), 0.9, "LAS"), Protocol(columns), (3, 3, 5), metadata)


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
    return Acquisition("MTS", _axial(body, (192, 192, 22), 0.9, "RAS"), Protocol(columns), (3, 3, 5), metadata)


_MAKERS = {"T2w": _sagittal, "T2star": _t2star, "dwi": _diffusion, "MTS": _transfer}


def _axial(body: Body, shape: tuple[int, int, int], pixel: float, stored: str) -> Grid:
    """Slices of 5 mm perpendicular to the cord at C3/C4, not turned about it; rows as close to R as that allows."""
    height = tables.disc_heights()[CENTRE_DISC]
    along = body.tangent(height)
    right = np.array([1.0, 0.0, 0.0]) - along[0] * along
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(along, right), along], axis=1)
    matrix = axes * np.array([pixel, pixel, 5.0])
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = body.place([0, 0, height]) - matrix @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine, stored)
