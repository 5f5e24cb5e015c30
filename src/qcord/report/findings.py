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


@dataclass(frozen=True, eq=False)
class Located:
    """A series in which the cord was found and registered.

    Parameters
    ----------
    token : str
        Short name of the series, used as ``desc-<token>``.
    kind : str
        ``anat``, ``dwi`` or ``mt``.
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
        Further images to keep by token: name to image (noise map, cleaned series).
    metrics, morphometry, quality : DataFrame
        The three tables, as written.
    notes : tuple of str
        What was left out or assumed, a sentence each.
    template : str
        Name and version of the template.
    settings : mapping
        Settings of the run.
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
    extra: Mapping[str, Mapping[str, Image]] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """``sub-X[_ses-Y]``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """Token and step, in the order of the work, each once."""
        seen: dict[tuple[str, str], Step] = {}
        for token, place in self.located.items():
            images = [place.image, place.cord, *(m for f in self.fits.get(token, ()) for m in f.maps.values())]
            for image in images:
                for step in image.history:
                    seen.setdefault((token, step.name), step)
        return tuple((token, step) for (token, _), step in seen.items())

    @property
    def references(self) -> tuple[str, ...]:
        """Citations of the methods that were used, each once."""
        return tuple(dict.fromkeys(r for _, step in self.steps for r in step.references))
