"""The kind of contrast of an image, from its BIDS name and sidecar."""

from types import MappingProxyType

from qcord.core.image import Image

POLARITY = MappingProxyType({"T2w": -1, "T2star": -1, "b0": 0, "bold": -1, "T1w": 1, "dwi": 1, "MTon": 0, "MToff": 0})
"""1 where the cord is brighter than the fluid around it, -1 where darker, 0 where that depends on the protocol.

Fluid has the longer T1, T2 and T2* and diffuses faster, so the sign follows from the kind of weighting. It is not
known in gradient echoes of small angle, with or without magnetisation transfer, where it depends on TR and flip angle,
nor at b = 0, where the short, pulse-triggered TR saturates the fluid.
"""

_SUFFIXES = MappingProxyType(
    {
        **dict.fromkeys(("T2w", "PDT2", "inplaneT2"), "T2w"),
        **dict.fromkeys(("T1w", "UNIT1", "MPRAGE", "inplaneT1"), "T1w"),
        **dict.fromkeys(("T2star", "T2starw", "MEGRE", "MEDIC", "GRE"), "T2star"),
        **dict.fromkeys(("bold", "sbref", "cbv"), "bold"),
        "dwi": "dwi",
        "b0": "b0",
    }
)


def contrast_of(image: Image) -> str | None:
    """Kind of contrast of an image.

    Parameters
    ----------
    image : Image
        With its BIDS entities, and the sidecar as metadata.

    Returns
    -------
    str or None
        One of ``T2w``, ``T2star``, ``T1w``, ``dwi``, ``b0``, ``MTon``, ``MToff``, ``bold``; None when name and
        sidecar do not say. ``dwi`` stands for the mean of the diffusion-weighted volumes; an image named ``dwi``
        whose ``desc`` is ``b0`` is ``b0``.
    """
    suffix, entities = image.entities.suffix, image.entities
    if suffix == "dwi" and entities.get("desc", "").lower() in {"b0", "meanb0"}:
        return "b0"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix not in {"MTS", "MTR", "MTw"}:
        return None
    if entities.get("flip") == "2" or entities.get("acq", "").lower() == "t1w":
        return "T1w"
    state = entities.get("mt", image.metadata.get("MTState"))
    if state in {"on", "off"}:
        return f"MT{state}"
    if isinstance(state, bool):
        return "MTon" if state else "MToff"
    return None
