"""Find the cord in one file."""

from pathlib import Path

import numpy as np

from qcord.anatomy.segment import segment_cord
from qcord.pipeline.single import derived_name, read_volume
from qcord.pipeline.store import staged, write_image


def segment(image: Path | str, out: Path | str, *, contrast: str | None = None) -> dict[str, Path]:
    """Find the cord in one image.

    Parameters
    ----------
    image : path
        3-D image, or a series whose mean is used.
    out : path
        Folder for mask and fractions.
    contrast : str, optional
        ``T2w``, ``T2star``, ``T1w``, ``dwi``, ``b0``, ``MTon``, ``MToff`` or ``bold``; by default told by name and
        sidecar.

    Returns
    -------
    dict of str to path
        ``mask`` and ``probseg``.

    Raises
    ------
    EmptyRegion
        If no cord is found.
    """
    volume = read_volume(Path(image))
    found = segment_cord(volume, contrast)
    name = derived_name(volume)
    sidecar = {"SpatialReference": "orig", "Sources": [volume.source]}
    paths = {}
    with staged(Path(out).absolute()) as folder:
        for suffix, one in (("mask", found.mask), ("probseg", found.probability)):
            file = name.replace(label="SC", suffix=suffix).name
            data = np.asarray(one.data, dtype=np.uint8) if suffix == "mask" else one.data
            write_image(folder / file, one.derive(data), sidecar)
            paths[suffix] = Path(out) / file
    return paths
