"""From the files of a transfer series or quantitative collection to one series with its noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray
from qcord.core.entities import Entities
from qcord.core.errors import GridMismatch
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.ingest.collection import Collection, load_collection
from qcord.ingest.series import Group, load_transfer
from qcord.maps.mp2rage import with_polarity
from qcord.preprocess.missing import without_holes
from qcord.preprocess.noise import estimate_noise
from qcord.preprocess.noise_correlation import NoiseCorrelation
from qcord.preprocess.resample import resample

WORTH_A_NOTE = 0.001
"""Share of missing voxels from which on a note tells of them."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Volumes of several files as one series.

    Parameters
    ----------
    series : Series
        On the grid of the reference volume.
    sigma : Image or None
        Standard deviation of the noise, on the same grid; None unless it was asked for.
    correlation : NoiseCorrelation or None
        How the noise of neighbouring voxels goes together.
    images : tuple of Image
        The volumes on their own grids.
    reference : int
        Row of the volume whose grid the series has.
    notes : tuple of str
        What was done to volumes.
    ratio : Image or None
        Ratio image of MP2RAGE on the same grid.
    """

    series: Series
    sigma: Image | None
    correlation: NoiseCorrelation | None
    images: tuple[Image, ...]
    reference: int
    notes: tuple[str, ...] = ()
    ratio: Image | None = None


def collect(group: Group, needs: Sequence[str] = (), *, noise: bool = True, signs: bool = True) -> Collected:
    """Load the volumes of a group as one series.

    Parameters
    ----------
    group : Group
        Of kind ``mt``, ``qmri`` or ``field``.
    needs : sequence of str
        Protocol columns that must be known for all volumes of a quantitative collection.
    noise : bool
        Whether to estimate the noise.
    signs : bool
        Whether to restore the signs of MP2RAGE: images with a number of shots after an inversion.

    Returns
    -------
    Collected
        Volumes on one grid.

    Raises
    ------
    MissingMetadata
        If a sidecar lacks what is needed, or the polarity of MP2RAGE cannot be told.
    EmptyRegion
        If no tile of the images lies in tissue, so that the noise cannot be estimated.
    """
    loaded = _transfer(group) if group.kind == "mt" else load_collection(group, needs)
    reference = reference_row(loaded.protocol)
    sigma, correlation = transfer_noise(loaded.images) if noise else (None, None)
    series = join_volumes(loaded.images, loaded.protocol, group.entities)
    grid = series.image.grid
    notes = [f"{i.label} lay on another grid and was resampled." for i in loaded.images if not i.grid.matches(grid)]
    notes += [n for i in loaded.images if (n := _missing_note(i))]
    ratio = None if loaded.unified is None else resample(loaded.unified, grid)
    if signs and {"InversionTime", "NumberShots"} <= set(loaded.protocol.columns):
        series = with_polarity(series, phases=loaded.phases, ratio=ratio)
    return Collected(
        series,
        None if sigma is None else resample(sigma, grid, order=1),
        correlation,
        loaded.images,
        reference,
        tuple(notes),
        ratio,
    )


def _transfer(group: Group) -> Collection:
    """Images of a transfer series, NaN where one is 0 amidst tissue: interpolation would carry that on as a value."""
    images, protocol = load_transfer(group)
    return Collection(tuple(without_holes(i) for i in images), protocol)


def _missing_note(image: Image) -> str:
    share = 1 - float(np.isfinite(image.data).mean())
    return f"{image.label} has no value in {100 * share:.1f} % of its voxels." if share >= WORTH_A_NOTE else ""


def join_volumes(images: Sequence[Image], protocol: Protocol, entities: Entities) -> Series:
    """Volumes as one series, on the grid of the one with the transfer pulse, else of the first."""
    reference = reference_row(protocol)
    joined = [resample(i, images[reference].grid) for i in images]
    for own, moved in zip(images, joined, strict=True):
        if np.isfinite(own.data).any() and not np.isfinite(moved.data).any():
            raise GridMismatch(
                f"{own.label} lies on {own.grid!r}, which shares no place with {images[reference].label} on "
                f"{images[reference].grid!r}, expected images of the same part of the body; check which files belong "
                "together, and their headers."
            )
    data = np.stack([np.asarray(i.data, dtype=np.float32) for i in joined], axis=-1)
    history = tuple(s for i in joined for s in i.history)
    return Series(images[reference].derive(data, entities=entities, history=history), protocol)


def reference_row(protocol: Protocol) -> int:
    """Row with the transfer pulse, in whose image the cord stands out best; the first if there is none."""
    state = protocol["MTState"].astype(bool) if protocol.has("MTState") else np.zeros(len(protocol), dtype=bool)
    return int(np.flatnonzero(state)[0]) if state.any() else 0


def transfer_noise(images: Sequence[Image]) -> tuple[Image, NoiseCorrelation]:
    """Noise of the volumes that share the first one's grid, before anything is interpolated."""
    same = [i for i in images if i.grid.matches(images[0].grid)]
    stack: AnyArray = np.stack([np.asarray(i.data, dtype=np.float32) for i in same], axis=-1)
    found = estimate_noise(images[0].derive(stack))
    return found.sigma, found.correlation
