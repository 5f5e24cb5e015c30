"""Published variation within people, for metrics that have no repeated sessions of one's own, or few."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from qcord.core.errors import UnknownName
from qcord.normative.retest import WithinPerson

NEUROMOD = "Boudreau et al. 2025, doi:10.1162/imag_a_00409: 3 T, one scanner, 6 people, up to 10 sessions in 3 years"
NEUROMOD_DF = 14
"""Degrees of freedom that it has at least: nine of a person with ten sessions, one of each of the five others."""

UNLIKE = 0.01
"""Chance below which own and published variation are not alike and stay apart."""

COHORT = "{} cohort, {} people over years, the trend with age taken off (one degree of freedom each at the least)"
DIFFUSION = "NeuroImage 2013;67:64-76, PMC3604900, table 3: cervical cord, test and retest"
MYELIN_WATER = "test and retest of myelin water in the cord: mean absolute difference 26 %, times sqrt(pi) / 2"


@dataclass(frozen=True)
class Published:
    """Variation within people of one metric from one source.

    Parameters
    ----------
    metric, region : str
    level : str
        Vertebral levels of the source; "" where they were not read in it.
    cov : float
        Standard deviation within people over their mean.
    df : float
        Degrees of freedom; NaN where the source does not say.
    source : str
    least_df : float
        Degrees of freedom that follow from the number of people and sessions, at least; NaN where they are not told.
    """

    metric: str
    region: str
    level: str
    cov: float
    df: float
    source: str
    least_df: float = np.nan

    def at(self, value: float) -> WithinPerson:
        """Standard deviation within a person whose values lie about this one [unit of the metric]."""
        return WithinPerson(self.cov * abs(value), self.df, np.nan, self.source)


TABLE = (
    Published("area T1w", "spinal cord", "", 0.045, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("area T1w", "spinal cord", "C2:C3", 2.14 / 67.4, 642, COHORT.format("BLSA", 642)),
    Published("area T1w", "spinal cord", "C2:C3", 1.70 / 67.4, 281, COHORT.format("DLBS", 281)),
    Published("area T2w", "spinal cord", "", 0.024, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("area T2star", "gray matter", "", 0.104, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("MTR", "white matter", "", 0.051, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("MTsat", "white matter", "", 0.079, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("T1", "white matter", "", 0.069, np.nan, NEUROMOD + "; apparent T1 of two flip angles", NEUROMOD_DF),
    Published("FA", "white matter", "", 0.039, np.nan, NEUROMOD, NEUROMOD_DF),
    Published("MD", "white matter", "", 0.09, np.nan, NEUROMOD + "; upper end of 5-9 %", NEUROMOD_DF),
    Published("RD", "white matter", "", 0.09, np.nan, NEUROMOD + "; upper end of 5-9 %", NEUROMOD_DF),
    Published("FA", "white matter", "", 0.036, np.nan, DIFFUSION),
    Published("MD", "white matter", "", 0.059, np.nan, DIFFUSION),
    Published("AD", "white matter", "", 0.088, np.nan, DIFFUSION + "; larger of the two eigen-diffusivities"),
    Published("FA", "spinal cord", "", 0.028, np.nan, DIFFUSION),
    Published("MD", "spinal cord", "", 0.068, np.nan, DIFFUSION),
    Published("FA", "gray matter", "", 0.066, np.nan, DIFFUSION),
    Published("MD", "gray matter", "", 0.075, np.nan, DIFFUSION),
    Published("MWF", "white matter", "", 0.26 * float(np.sqrt(np.pi)) / 2, np.nan, MYELIN_WATER),
)
"""Rows of VALUES whose degree of trust is read or computed. Where a source gives a range, its upper end."""


def published(metric: str, region: str) -> tuple[Published, ...]:
    """All sources of a metric in a region, the largest variation first."""
    rows = [row for row in TABLE if (row.metric, row.region) == (metric, region)]
    return tuple(sorted(rows, key=lambda row: -row.cov))


def within_person(metric: str, region: str, level: str = "") -> Published:
    """Published variation within people, the largest where sources differ.

    A limit that is too small calls noise a change, one that is too large waits for another session; hence the
    largest. Sources that name other levels serve only where none fits, and the `level` of the answer says so.

    Parameters
    ----------
    metric, region, level : str
        Names as in the tables of observations.

    Raises
    ------
    UnknownName
        No source is known for the metric in this region.
    """
    rows = published(metric, region)
    if not rows:
        known = sorted({f"{row.metric} in {row.region}" for row in TABLE})
        raise UnknownName(
            f"No published variation within people of {metric} in {region} is known, only of {', '.join(known)}; "
            "estimate it from repeated sessions with repeatability."
        )
    fitting = [row for row in rows if row.level in {"", level}]
    return (fitting or list(rows))[0]


def joined(own: WithinPerson, known: Published, value: float) -> WithinPerson:
    """Variation from a few sessions of one's own and the published one, each by its degrees of freedom.

    A handful of sessions tells little: with four degrees of freedom the limit is 42 % wider than that of a known
    variation. One's own stand alone where they vary so much more or less that chance does not explain it (F test),
    where the source does not tell its people and sessions, and about a value of 0, of which no part is known.

    Parameters
    ----------
    own : WithinPerson
        From repeated sessions of one's own scanner.
    known : Published
        Of the same metric and region.
    value : float
        Mean of the values that are judged [unit of the metric].

    Returns
    -------
    WithinPerson
        Its source says what it is made from.
    """
    published_sd, least = known.at(value).sd, known.least_df if np.isnan(known.df) else known.df
    if not (np.isfinite(least) and np.isfinite(own.df) and published_sd > 0):
        return own
    tail = stats.f.cdf((own.sd / published_sd) ** 2, own.df, least)
    chance = 2 * min(tail, 1 - tail)
    if chance < UNLIKE:
        found = f"{own.source}, alone: they vary {own.sd / published_sd:.2g} times as published (p = {chance:.1g})"
        return WithinPerson(own.sd, own.df, own.noise_sd, found)
    df = own.df + least
    sd = float(np.sqrt((own.df * own.sd**2 + least * published_sd**2) / df))
    return WithinPerson(sd, df, own.noise_sd, f"{own.source}, joined with {known.source}")
