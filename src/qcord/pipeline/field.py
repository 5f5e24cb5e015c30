"""The transmit field of a visit, and what it is used for."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray
from qcord.core.errors import QcordError
from qcord.core.image import Image
from qcord.ingest.series import Group
from qcord.maps.recipe import recipe
from qcord.maps.transmit_field import transmit_field
from qcord.models.registry import get
from qcord.pipeline.collect import collect
from qcord.preprocess.resample import resample
from qcord.report.findings import Field

LEAST_COVER = 0.95
"""Share of the cord that a transmit field must reach to be used: elsewhere maps would have no value."""


@dataclass(frozen=True, eq=False)
class Known:
    """What a fit is given beside its series.

    Parameters
    ----------
    given, std : mapping of str to Image
        Given parameters and their standard errors, on the grid of the series.
    note : str
        What was given, or why not.
    """

    given: Mapping[str, Image] = dataclasses.field(default_factory=dict)
    std: Mapping[str, Image] = dataclasses.field(default_factory=dict)
    note: str = ""


def find_field(groups: Sequence[Group]) -> tuple[Field | None, list[str]]:
    """Compute the transmit field from the first series that gives one; the others, and why, are in the notes."""
    notes: list[str] = []
    for group in groups:
        if group.kind != "field":
            continue
        try:
            found = collect(group)
            plan = next((p for p in recipe([found.series]) if "B1" in p.metrics), None)
            if plan is None:
                notes.append(f"The transmit field of {group.token} could not be computed: its sidecars lack FlipAngle.")
            elif plan.possible and found.sigma is not None:
                smooth = transmit_field(found.series, found.sigma, model=plan.model)
                sources = tuple(s.uri for s in group.scans)
                return Field(group.token, group.entities, sources, smooth.image, smooth.std), notes
            else:
                notes.append(f"The transmit field of {group.token} could not be computed: {plan.reason}")
        except QcordError as error:
            notes.append(f"The transmit field of {group.token} could not be computed: {error}")
    return None, notes


def field_for(model: str, field: Field | None, inside: BoolArray, like: Image) -> Known:
    """Transmit field and its error on the grid of a series, if its model takes one and it reaches the cord."""
    if field is None or "B1" not in [p.name for p in get(model).given]:
        return Known()
    there = resample(field.image, like.grid, order=1)
    cover = float(np.isfinite(np.asarray(there.data))[inside].mean()) if inside.any() else 0.0
    if cover < LEAST_COVER:
        return Known(
            note=f"The transmit field of {field.token} covers {100 * cover:.0f} % of the cord in it: not used."
        )
    std = {} if field.std is None else {"B1": resample(field.std, like.grid, order=1)}
    return Known({"B1": there}, std, f"Corrected by the transmit field of {field.token}.")
