"""Areas and diameters by the outlines of qcord beside those by the outlines that raters and other programs draw.

qcord follows the half level between cord and fluid, others stay inside it; so a value must be brought to the scale of a
norm made with other outlines before it is compared, and what is not known of the ratio belongs to its error.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from qcord.core.arrays import FloatArray
from qcord.core.text_column import as_text

RATIOS: Mapping[str, tuple[float, int]] = {"T2w": (0.058, 4), "T2star": (0.090, 5), "T1w": (0.149, 2)}
"""By contrast: mean logarithm of the area by qcord over that of masks by raters and other programs, and of how many
people; `benchmarks/segmentation.py agreement`."""

SPREAD, FREEDOM = 0.030, 8
"""Standard deviation of that logarithm between people, and its degrees of freedom."""

PARTS: Mapping[str, float] = {"area": 1.0, "diameter_AP": 0.62, "diameter_RL": 0.38}
"""Part of the logarithm of the ratio of areas that a measure has: those of an edge moved evenly outwards on a cord that
is 1.6 times as wide as deep."""

OWN = "qcord"


class Scaled(NamedTuple):
    """Values on the scale of a norm.

    Parameters
    ----------
    rows : DataFrame
        The table with ``value`` and ``se`` on that scale; ``se`` holds how far a person may differ from the ratio.
    factor : (n,) array
        By how much the values were divided.
    """

    rows: pd.DataFrame
    factor: FloatArray


def drawn_by(observations: pd.DataFrame) -> list[str]:
    """Names of the programs of a table, without version."""
    if "software" not in observations:
        return []
    words = as_text(observations["software"]).dropna()
    return sorted({str(w).split()[0] for w in words.unique() if str(w).strip()})


def outline_ratio(metric: str, software: str, programs: list[str]) -> tuple[float, float]:
    """Ratio of a value by one program to what the programs of a norm would give, and its relative standard error.

    Parameters
    ----------
    metric : str
        Such as ``area T2w``.
    software : str
        Program of the value, with or without version; may be empty.
    programs : list of str
        Those of the norm; see `drawn_by`.

    Returns
    -------
    ratio, error : float
        1 and 0 where nothing is known, the programs are the same, or the norm mixes qcord with others.
    """
    name, _, contrast = metric.partition(" ")
    own = software.split(maxsplit=1)[0] if software.strip() else ""
    if name not in PARTS or contrast not in RATIOS or not own or not programs or own in programs:
        return 1.0, 0.0
    if (own == OWN) == (OWN in programs) or (OWN in programs and len(programs) > 1):
        return 1.0, 0.0
    mean, people = RATIOS[contrast]
    # of a new person, as wide as Student's t of so few people
    wide = float(special.stdtrit(FREEDOM, 0.975) / special.ndtri(0.975))
    error = PARTS[name] * SPREAD * np.sqrt(1 + 1 / people) * wide
    return float(np.exp((1 if own == OWN else -1) * PARTS[name] * mean)), float(error)


def scaled(observations: pd.DataFrame, metric: str, card: Mapping[str, Any]) -> Scaled:
    """Values of one metric on the scale of a norm.

    Parameters
    ----------
    observations : DataFrame
        Columns value and, where known, se and software.
    metric : str
        What they are of.
    card : mapping
        Card of the norm; its ``software`` are the programs of its people.
    """
    n = len(observations)
    factor, error = np.ones(n), np.zeros(n)
    programs = [str(p) for p in card.get("software", [])]
    if programs and "software" in observations:
        code, names = pd.factorize(as_text(observations["software"]).fillna(""))
        pairs = np.array([outline_ratio(metric, str(name), programs) for name in names], dtype=float).reshape(-1, 2)
        factor, error = pairs[code].T if n else (factor, error)
    if (factor == 1).all():
        return Scaled(observations, factor)
    value = pd.to_numeric(observations["value"], errors="coerce").to_numpy(dtype=float) / factor
    se = np.zeros(n)
    if "se" in observations:
        se = pd.to_numeric(observations["se"], errors="coerce").fillna(0).to_numpy(dtype=float)
    return Scaled(observations.assign(value=value, se=np.hypot(se / factor, error * value)), factor)
