"""A phantom subject: series with noise, and what is true of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.phantom.body import Body
from qcord.phantom.facts import Facts
from qcord.phantom.field_strength import at_field
from qcord.phantom.files import split_series
from qcord.phantom.noise import combined_noise
from qcord.phantom.render import measure
from qcord.phantom.spec import PhantomSpec, stream
from qcord.phantom.tissue import tissue_frame
from qcord.phantom.truth import SeriesTruth, landmark_table, region_table

_REFERENCES = (
    "Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618",
    "Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732",
    "Basser, Mattiello and LeBihan 1994, doi:10.1006/jmrb.1994.1037",
)


@dataclass(frozen=True, eq=False)
class PhantomSubject:
    """Series of one subject with their truth.

    Parameters
    ----------
    spec : PhantomSpec
        What it was made from.
    body : Body
        Its geometry, for truth at any further point.
    series : mapping of str to Series
        Series with noise, by the names of the specification; the three volumes of ``MTS`` are the images with transfer
        pulse, without, and T1-weighted.
    truth : mapping of str to SeriesTruth
        By the same names.
    regions : DataFrame
        ``region level metric value unit``, see `qcord.phantom.truth.region_table`.
    sizes : DataFrame
        ``level area ap rl``.
    landmarks : DataFrame
        ``name kind x y z``, see `qcord.phantom.truth.landmark_table`.
    tissues : DataFrame
        ``tissue metric value unit source trust``.
    """

    spec: PhantomSpec
    body: Body
    series: Mapping[str, Series]
    truth: Mapping[str, SeriesTruth]
    regions: pd.DataFrame
    sizes: pd.DataFrame
    landmarks: pd.DataFrame
    tissues: pd.DataFrame


def make_subject(spec: PhantomSpec) -> PhantomSubject:
    """Make a subject; the same specification gives the same arrays.

    Parameters
    ----------
    spec : PhantomSpec
        See `qcord.phantom.spec.preset` for ready ones.
    """
    facts = Facts.of(spec)
    truth = {name: measure(plan, facts) for name, plan in facts.plans.items()}
    regions, sizes = region_table(facts)
    plain = {name: Series(t.noise_free, facts.plans[name].protocol) for name, t in truth.items()}
    tissues = tissue_frame(at_field(spec.tissues, spec.tesla))
    subject = PhantomSubject(spec, facts.body, plain, truth, regions, sizes, landmark_table(facts.body), tissues)
    return redraw(subject, spec.seed)


def redraw(subject: PhantomSubject, seed: int, series: tuple[str, ...] | None = None) -> PhantomSubject:
    """Draw the noise anew.

    Parameters
    ----------
    subject : PhantomSubject
        Left as it is.
    seed : int
        Seed of the noise; each series draws from its own stream, so the choice of series changes nothing.
    series : tuple of str, optional
        Series to draw; the others are left out.
    """
    names = tuple(subject.series) if series is None else series
    effects = subject.spec.effects
    drawn = {}
    for name in names:
        truth = subject.truth[name]
        generator = np.random.default_rng([seed, stream(name)])
        noise = combined_noise(truth.sigma, effects.channels, effects.combination)
        noisy = noise.sample(truth.noise_free.data, generator).astype(np.float32)
        step = Step("phantom", {"seed": seed, "sigma": truth.sigma, "channels": effects.channels}, _REFERENCES)
        drawn[name] = Series(truth.noise_free.derive(noisy, step), subject.series[name].protocol)
    return replace(subject, series=drawn, truth={name: subject.truth[name] for name in names})


def bids_images(subject: PhantomSubject) -> tuple[Image, ...]:
    """Images as BIDS has them, one a file, with entities and sidecar."""
    return tuple(image for series in subject.series.values() for image in split_series(series))
