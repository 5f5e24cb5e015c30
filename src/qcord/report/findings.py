"""Everything that was found in one visit: what is written to disk and what the report shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from qcord.anatomy.levels import Levels
from qcord.anatomy.morphometry import Shape
from qcord.anatomy.register import Registration, RegistrationQuality
from qcord.atlas.project import Atlas
from qcord.core.entities import Entities
from qcord.core.fit import Fit
from qcord.core.image import Image, Step
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.report.comparison import Comparison

MORPHOMETRY = Step("morphometry", {"plane": "across the axis of the cord"})
READ_OUT = Step(
    "extract",
    {"estimators": "wa, ml, map", "interval": "95 %"},
    ("Levy et al. 2015, doi:10.1016/j.neuroimage.2015.06.040",),
)
PAM50_REFERENCE = "De Leener et al. 2018, doi:10.1016/j.neuroimage.2017.10.041"


@dataclass(frozen=True, eq=False)
class Located:
    """A series in which the cord was found and registered.

    Parameters
    ----------
    token : str
        Short name of the series, used as ``desc-<token>``.
    kind : str
        ``anat``, ``dwi``, ``mt`` or ``qmri``.
    entities : Entities
        BIDS name of the series.
    sources : tuple of str
        BIDS URIs of its files.
    image : Image
        3-D image on which the cord was found.
    cord : Image
        Mask or fraction of cord.
    cord_source : str
        Where the mask comes from: ``computed`` or the name of a file.
    registration : Registration
        Map to the template and back.
    quality : RegistrationQuality
        How well the template covers the mask.
    atlas : Atlas
        Fractions of regions on the grid of the image.
    shape : Shape
        Morphometry of each slice.
    """

    token: str
    kind: str
    entities: Entities
    sources: tuple[str, ...]
    image: Image
    cord: Image
    cord_source: str
    registration: Registration
    quality: RegistrationQuality
    atlas: Atlas
    shape: Shape

    @property
    def levels(self) -> Levels:
        """Position along the cord."""
        return self.registration.levels


@dataclass(frozen=True, eq=False)
class Field:
    """A transmit field.

    Parameters
    ----------
    token : str
        Name of its series.
    entities : Entities
        BIDS name of its series.
    sources : tuple of str
        BIDS URIs of its files.
    image, std : Image
        Actual over nominal flip angle, and its standard error.
    """

    token: str
    entities: Entities
    sources: tuple[str, ...]
    image: Image
    std: Image | None


@dataclass(frozen=True, eq=False)
class Findings:
    """Results of one visit.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    located : mapping of str to Located
        By token.
    fits : mapping of str to tuple of Fit
        Fitted models by the token of their series.
    extra : mapping of str to Mapping
        Further images and cleaned series to keep by token: name to image or series.
    metrics, morphometry, quality : DataFrame
        The three tables, as written.
    notes : tuple of str
        What was left out or assumed, a sentence each.
    template : str
        Name and version of the template.
    settings : mapping
        Settings of the run.
    transmit_field : Field or None
        Transmit field of the visit.
    comparison : Comparison or None
        The visit beside healthy people; None where there are no norms.
    protocols : mapping of str to Protocol
        Settings of each measurement of a series, by its token.
    """

    subject: str
    session: str | None
    located: Mapping[str, Located]
    fits: Mapping[str, tuple[Fit, ...]]
    metrics: pd.DataFrame
    morphometry: pd.DataFrame
    quality: pd.DataFrame
    notes: tuple[str, ...]
    template: str
    settings: Mapping[str, Any]
    extra: Mapping[str, Mapping[str, Image | Series]] = field(default_factory=dict)
    transmit_field: Field | None = None
    comparison: Comparison | None = None
    protocols: Mapping[str, Protocol] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """``sub-X[_ses-Y]``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """Token and step, in the order of the work, each once."""
        seen: dict[tuple[str, str], Step] = {}
        if self.transmit_field is not None:
            token = self.transmit_field.token
            seen |= {(token, step.name): step for step in self.transmit_field.image.history}
        for token, place in self.located.items():
            fitted = [m for f in self.fits.get(token, ()) for m in f.maps.values()]
            own = (*place.image.history, *place.cord.history, *(s for m in fitted for s in m.history))
            for step in (*own, _registration(place, self.template), MORPHOMETRY, *([READ_OUT] if fitted else [])):
                seen.setdefault((token, step.name), step)
        return tuple((token, step) for (token, _), step in seen.items())

    @property
    def references(self) -> tuple[str, ...]:
        """Citations of the methods that were used, each once."""
        return tuple(dict.fromkeys(r for _, step in self.steps for r in step.references))


def _registration(place: Located, template: str) -> Step:
    settings = {"template": template, "position along the cord": place.levels.source}
    return Step("register", settings, (PAM50_REFERENCE,) if template.startswith("PAM50") else ())
