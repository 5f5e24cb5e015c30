"""Cohorts: people of both sexes and all ages, examined on scanners that differ, all from one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from qcord.phantom.disease import COMPRESSED, PLAQUE, Compression, Lesion, compression_signal
from qcord.phantom.effects import Effects
from qcord.phantom.spec import PhantomSpec

SPREAD = {"area_factor": 0.088, "length_factor": 0.06, "curvature": 0.3}
"""Standard deviations by which people of one age and sex differ: area as at C2-C3 (6.36 of 72.1 mm2, DLBS, n = 416),
neck length and curvature assumed."""

LIMITS = {"area_factor": (0.75, 1.3), "length_factor": (0.85, 1.15), "curvature": (0.2, 1.6)}

MEAN_AREA = 72.1
"""Cross-section [mm2] at C2-C3 of the adults behind an area factor of 1 (spine-generic, n = 203).

This and the differences below are by published outlines; area factors are relative, so that the differences are as much
larger in the phantom as its cord is (`qcord.phantom.body.HALF_LEVEL`)."""

MEAN_AGE = 30.0
"""Their age [years]."""

AREA_OF_SEX = {"F": 69.6 - 72.1, "M": 74.3 - 72.1}
"""Difference [mm2] of each sex from that mean (spine-generic, computed)."""

AREA_PER_YEAR = -0.10
"""Change of the area [mm2] a year (between -.057 of DLBS, n = 416, and -.144 of BLSA, n = 1021; computed)."""

SEX_DIFFERENCE = {"FA": 0.009 / 0.689, "MD": -0.029 / 0.993, "T1": -0.034 / 1.276}
"""Men less women, relative (regression over spine-generic, site as fixed effect, computed)."""

PERSON_SPREAD = {"FA": 0.025, "MD": 0.035, "MTsat": 0.05, "T1": 0.03, "T2": 0.03, "T2star": 0.04, "ICVF": 0.04}
"""Relative standard deviation of tissue values between people (assumed: half of what scans of one site show, the rest
of which is noise)."""

AGE = {"healthy": (30.1, 6.6, 19.0, 56.0), "dcm": (61.1, 15.4, 30.0, 85.0), "ms": (40.0, 11.0, 18.0, 70.0)}
"""Mean, standard deviation, lowest and highest age [years] of each kind of subject: spine-generic; Hori 2018, Sci Rep
8:5213 (20 people with myelopathy); assumed."""

SITE_SPREAD = {"FA": 0.035, "MD": 0.047, "MTsat": 0.043}
"""Relative standard deviation between sites of one vendor (Siemens, spine-generic, computed)."""

VENDORS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "Siemens": {"B1": 1.0},
        "Philips": {"FA": 0.735 / 0.689, "MD": 0.969 / 0.993, "MTsat": 5.862 / 3.664, "B1": 0.949},
        "GE": {"FA": 0.636 / 0.689, "MD": 0.726 / 0.993, "MTsat": 5.505 / 3.664, "B1": 1.026},
    }
)
"""White matter at C2 to C5 on scanners of each vendor over that on Siemens (spine-generic, computed), and the mean
transmit field that makes the apparent T1 of flip angle pairs differ as it does there (computed: T1 goes with its
square). A part of these differences are protocols; which one is not known, so here they are in the tissue."""

_SITES = 7003
_VISIBLE = 0.35

SITES = 3
"""Sites of a cohort by default, one a vendor."""


@dataclass(frozen=True)
class Site:
    """A scanner.

    Parameters
    ----------
    name : str
        Label in tables.
    vendor : str
        Whose scanners it resembles.
    factors : mapping of str to float
        What tissue values are multiplied by, as this scanner shows them.
    transmit_mean : float
        Mean transmit field.
    """

    name: str
    vendor: str
    factors: Mapping[str, float]
    transmit_mean: float


def make_sites(n: int, seed: int) -> tuple[Site, ...]:
    """Scanners of a cohort, vendors in turn."""
    sites = []
    for number in range(n):
        vendor = tuple(VENDORS)[number % len(VENDORS)]
        generator = np.random.default_rng([seed, _SITES, number])
        own = {m: float(np.exp(s * generator.standard_normal())) for m, s in SITE_SPREAD.items()}
        factors = {m: VENDORS[vendor].get(m, 1.0) * f for m, f in own.items()}
        sites.append(Site(f"site{number + 1:02d}", vendor, factors, VENDORS[vendor]["B1"]))
    return tuple(sites)


def cohort(base: PhantomSpec, subjects: int, seed: int, *, sites: int = SITES) -> list[PhantomSpec]:
    """Specifications of several subjects; one subject alone has average size, values and scanner.

    Parameters
    ----------
    base : PhantomSpec
        What they have in common.
    subjects : int
        Number of subjects.
    seed : int
        Seed of people, scanners, noise and motion.
    sites : int
        Number of scanners, to which subjects belong in turn.
    """
    scanners = make_sites(sites, seed)
    width = max(2, len(str(subjects)))
    specs = []
    for number in range(subjects):
        label = f"{base.label}{number + 1:0{width}d}"
        spec = base.replace(label=label, seed=seed * 1000 + number)
        if subjects == 1:
            specs.append(spec.replace(person={"age": MEAN_AGE, "sex": "n/a", "site": "site01"}))
        else:
            generator = np.random.default_rng([seed, number])
            specs.append(_person(spec, base.label, scanners[number % sites], generator))
    return specs


def _person(spec: PhantomSpec, kind: str, site: Site, generator: np.random.Generator) -> PhantomSpec:
    changes = {k: getattr(spec, k) + s * generator.standard_normal() for k, s in SPREAD.items()}
    sex = "F" if generator.random() < 0.5 else "M"
    mean, spread, youngest, oldest = AGE.get(kind, AGE["healthy"])
    age = float(np.clip(np.round(mean + spread * generator.standard_normal()), youngest, oldest))
    changes["area_factor"] += (AREA_OF_SEX[sex] + AREA_PER_YEAR * (age - MEAN_AGE)) / MEAN_AREA
    clipped = {k: float(np.clip(v, *LIMITS[k])) for k, v in changes.items()}
    own = {m: float(np.exp(s * generator.standard_normal())) for m, s in PERSON_SPREAD.items()}
    half = 0.5 if sex == "M" else -0.5
    of_sex = {m: 1 + half * difference for m, difference in SEX_DIFFERENCE.items()}
    sources = (spec.factors, own, of_sex, site.factors)
    names = dict.fromkeys(m for source in sources for m in source)
    factors = {m: float(np.prod([source.get(m, 1.0) for source in sources])) for m in names}
    effects: Effects = spec.effects
    if effects.transmits:
        effects = effects.replace(transmit_mean=effects.transmit_mean * site.transmit_mean)
    person: dict[str, str | float] = {"age": age, "sex": sex, "site": site.name, "scanner": f"{site.vendor}-like"}
    return _disease(spec, kind, generator).replace(factors=factors, effects=effects, person=person, **clipped)


def _disease(spec: PhantomSpec, kind: str, generator: np.random.Generator) -> PhantomSpec:
    """Where a person is ill, and how badly; frequencies of levels and tracts are assumed."""
    if kind == "dcm":
        disc = str(generator.choice(["C3/C4", "C4/C5", "C5/C6", "C6/C7"], p=[0.1, 0.25, 0.45, 0.2]))
        severity = float(np.clip(0.4 + 0.1 * generator.standard_normal(), 0.15, 0.65))
        worse = severity / Compression().severity
        factors = {m: float(np.clip(1 + (f - 1) * worse, 0.3, 2.0)) for m, f in COMPRESSED.items()}
        compression = Compression(disc, severity, float(generator.uniform(10, 16)), factors)
        marks = compression_signal(disc) if severity > _VISIBLE else ()
        return spec.replace(compression=compression, lesions=marks)
    if kind == "ms":
        tracts = ("lateral corticospinal tract", "fasciculus cuneatus", "fasciculus gracilis", "rubrospinal tract")
        lesions = tuple(
            Lesion(
                str(generator.choice(["C2", "C3", "C4", "C5", "C6"])),
                str(generator.choice(tracts)),
                str(generator.choice(["left", "right"])),
                float(generator.uniform(1.2, 2.3)),
                float(generator.uniform(8, 20)),
                PLAQUE.copy(),
                float(generator.uniform(-4, 4)),
            )
            for _ in range(int(generator.integers(2, 6)))
        )
        return spec.replace(lesions=lesions)
    return spec


def participants(specs: list[PhantomSpec]) -> pd.DataFrame:
    """What is known of people: participant_id, age, sex, site, scanner."""
    rows = [
        {
            "participant_id": f"sub-{spec.label}",
            **{key: spec.person.get(key, "n/a") for key in ("age", "sex", "site", "scanner")},
        }
        for spec in specs
    ]
    return pd.DataFrame(rows)


def person_truth(specs: list[PhantomSpec]) -> pd.DataFrame:
    """What is true of them: sizes, disease, and the factor of each metric."""
    rows = []
    for spec in specs:
        pinch = spec.compression
        rows.append(
            {
                "participant_id": f"sub-{spec.label}",
                "seed": spec.seed,
                "field_strength": spec.tesla,
                **{name: getattr(spec, name) for name in SPREAD},
                "compressed_disc": "n/a" if pinch is None else pinch.disc,
                "compression": 0.0 if pinch is None else pinch.severity,
                "lesions": len(spec.lesions),
                "transmit_mean": spec.effects.transmit_mean,
                **{f"factor_{m}": f for m, f in spec.factors.items()},
            }
        )
    return pd.DataFrame(rows)
