"""People measured on several scanners: the bias of each scanner with its error, and what is left after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from qcord.core.arrays import FloatArray
from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.normative.harmonise.design import require_columns
from qcord.normative.harmonise.harmoniser import numbers

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """Two-way analysis of people by scanners, in the unit of the feature.

    Parameters
    ----------
    person_variance, scanner_variance, residual_variance : float
        Components of variance; the first two are differences of mean squares and may be negative.
    icc_agreement, icc_consistency : float
        Share of the variance that is of people: with the differences between scanners counted, and without.
    icc_low, icc_high : float
        95 % confidence interval of the consistency.
    """

    person_variance: float
    scanner_variance: float
    residual_variance: float
    icc_agreement: float
    icc_consistency: float
    icc_low: float
    icc_high: float


def agreement(values: FloatArray) -> Agreement:
    """Intraclass correlations of people by scanners.

    Parameters
    ----------
    values : (n, k) array
        One value per person and scanner, all present.

    Raises
    ------
    NotIdentifiable
        Fewer than two people or scanners.

    References
    ----------
    Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, ICC(2,1) and ICC(3,1); McGraw and Wong 1996,
    doi:10.1037/1082-989X.1.1.30, for the interval.
    """
    n, k = values.shape
    if n < 2 or k < 2:
        msg = (
            f"{n} people on {k} scanners; agreement needs at least two of each, all of them complete: add measurements."
        )
        raise NotIdentifiable(msg)
    mean = values.mean()
    people, scanners = values.mean(axis=1), values.mean(axis=0)
    between_people = k * float(np.sum((people - mean) ** 2)) / (n - 1)
    between_scanners = n * float(np.sum((scanners - mean) ** 2)) / (k - 1)
    rest = values - people[:, None] - scanners[None] + mean
    error = float(np.sum(rest**2)) / ((n - 1) * (k - 1))
    ratio = between_people / error if error > 0 else np.inf
    low = ratio / f_distribution.isf((1 - CONFIDENCE) / 2, n - 1, (n - 1) * (k - 1))
    high = ratio * f_distribution.isf((1 - CONFIDENCE) / 2, (n - 1) * (k - 1), n - 1)
    whole = between_people + (k - 1) * error
    return Agreement(
        person_variance=(between_people - error) / k,
        scanner_variance=(between_scanners - error) / n,
        residual_variance=error,
        icc_agreement=_share(between_people - error, whole + k * (between_scanners - error) / n),
        icc_consistency=_share(between_people - error, whole),
        icc_low=_icc(float(low), k),
        icc_high=_icc(float(high), k),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole != 0 else float("nan")


def _icc(ratio: float, k: int) -> float:
    return (ratio - 1) / (ratio + k - 1) if np.isfinite(ratio) else 1.0


@dataclass(frozen=True, eq=False)
class Travelling:
    """Comparison of scanners by the people that were measured on them.

    Parameters
    ----------
    bias : DataFrame
        feature, scanner, bias (from the average of all scanners), se, low, high (95 %), people.
    summary : DataFrame
        feature, mean, people, scanners, cov_before and cov_after (spread within people over the mean, in %, with the
        biases in and taken off), residual_sd, p (of the biases by chance), icc_agreement, icc_consistency, icc_low,
        icc_high (of the people who were on every scanner; NaN if fewer than two).
    """

    bias: pd.DataFrame
    summary: pd.DataFrame


def travelling_people(
    table: pd.DataFrame, *, features: Sequence[str], scanner: str = "scanner", participant: str = "participant_id"
) -> Travelling:
    """Compare scanners by people who were measured on several.

    Each person is compared with itself, so that nothing but the scanners (and what changed in between) differs.

    Parameters
    ----------
    table : DataFrame
        One row per person and scanner; several are averaged.
    features : sequence of str
        Columns.
    scanner, participant : str
        Columns.

    Returns
    -------
    Travelling

    Raises
    ------
    MissingMetadata
        A column is absent.
    NotIdentifiable
        People on at least two scanners do not connect all scanners, or are too few to tell a residual.

    Notes
    -----
    Persons and scanners are fixed terms of one least-squares fit, so that incomplete tables are compared fairly; people
    on one scanner tell nothing and take no part. A low spread after the biases does not mean that people keep their
    rank: that is what the consistency says.
    """
    require_columns(table, (scanner, participant, *features))
    if table[[scanner, participant]].isna().any(axis=None):
        msg = f"{scanner} or {participant} is empty in a row; name both in each row."
        raise MissingMetadata(msg)
    biases, summaries = [], []
    for feature in features:
        long = pd.DataFrame(
            {
                "person": table[participant].astype(str),
                "scanner": table[scanner].astype(str),
                "value": numbers(table, feature),
            }
        )
        wide = long.pivot_table(index="person", columns="scanner", values="value", aggfunc="mean")
        wide = wide[wide.notna().sum(axis=1) >= 2]
        bias, summary = _compare(wide.dropna(axis=1, how="all"), feature)
        biases.append(bias)
        summaries.append(summary)
    return Travelling(pd.concat(biases, ignore_index=True), pd.DataFrame(summaries))


def _compare(wide: pd.DataFrame, feature: str) -> tuple[pd.DataFrame, dict[str, float | str]]:
    values = wide.to_numpy(dtype=float)
    n, k = values.shape
    person, place = np.nonzero(np.isfinite(values))
    y = values[person, place]
    free = len(y) - n - k + 1
    if k < 2 or free < 1:
        msg = f"{feature} has {n} people on two or more of {k} scanners; at least 2 people on the same two are needed."
        raise NotIdentifiable(msg)
    # biases sum to 0: the last is minus the sum of the others
    coding = np.vstack([np.eye(k - 1), -np.ones(k - 1)])
    design = np.column_stack([np.eye(n)[person], coding[place]])
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    if rank < n + k - 1:
        msg = f"The scanners with {feature} fall into groups that nobody connects; compare each group by itself."
        raise NotIdentifiable(msg)
    residual = y - design @ coefficients
    variance = float(np.sum(residual**2)) / free
    covariance = variance * np.linalg.inv(design.T @ design)[n:, n:]
    bias = coding @ coefficients[n:]
    se = np.sqrt(np.einsum("ij,jk,ik->i", coding, covariance, coding))
    margin = float(t_distribution.isf((1 - CONFIDENCE) / 2, free)) * se
    table = pd.DataFrame(
        {
            "feature": feature,
            "scanner": wide.columns,
            "bias": bias,
            "se": se,
            "low": bias - margin,
            "high": bias + margin,
            "people": np.isfinite(values).sum(axis=0),
        }
    )
    means = np.bincount(person, y) / np.bincount(person)
    within = y - means[person]
    before = float(np.sum(within**2)) / (len(y) - n)
    mean = float(coefficients[:n].mean())
    ratio = (float(np.sum(within**2)) - float(np.sum(residual**2))) / (k - 1) / variance if variance > 0 else np.inf
    complete = values[np.isfinite(values).all(axis=1)]
    icc = agreement(complete) if len(complete) >= 2 else None
    summary: dict[str, float | str] = {
        "feature": feature,
        "mean": mean,
        "people": n,
        "scanners": k,
        "cov_before": 100 * float(np.sqrt(before)) / abs(mean),
        "cov_after": 100 * float(np.sqrt(variance)) / abs(mean),
        "residual_sd": float(np.sqrt(variance)),
        "p": float(f_distribution.sf(ratio, k - 1, free)),
    }
    for name in ("icc_agreement", "icc_consistency", "icc_low", "icc_high"):
        summary[name] = getattr(icc, name) if icc is not None else float("nan")
    return table, summary
