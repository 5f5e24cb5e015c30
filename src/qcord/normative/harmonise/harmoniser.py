"""Parameters of a harmonisation, and their use on a table."""

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import MissingMetadata, QcordError, UnknownName
from qcord.normative.harmonise.design import Design, require_columns

FORMAT = "qcord harmoniser 1"


@dataclass(frozen=True, eq=False)
class Harmoniser:
    """Shift and scale of each site in each feature, with their errors.

    A value is taken as intercept + covariates + person + sigma * (shift + scale * e): the spread e between people is
    the same at all sites, and what differs is removed. Harmonised values are those of the reference, whose shift is 0
    and whose scale is 1.

    Parameters
    ----------
    batch : str
        Column that holds the site.
    manufacturer : str or None
        Column that holds the manufacturer.
    participant : str or None
        Column that holds the person, if people were measured several times.
    reference : str or None
        Site or manufacturer whose scale is used; None: the average over all people.
    shrinkage : str
        ``sites``, ``features`` or ``none`` (see `qcord.normative.harmonise.combat.fit_combat`).
    design : Design
        Covariates whose effect is kept.
    features : tuple of str
        g columns.
    error_columns : tuple of str or None
        Column with the standard error of each feature.
    sites, makers : tuples of str
        The k sites and the manufacturer of each.
    counts : (k, g) array
        Values that each site gave.
    intercept, sigma : (g,) arrays
        Mean of average people, and spread between people of a site, in the unit of the feature.
    slopes, slopes_variance : (p, g), (p, p, g) arrays
        Effect of each column of the design and covariance, in the unit of the feature.
    person_sd : (g,) array
        Spread of the lasting differences between persons (0 unless people were measured several times).
    shift, shift_se, log_scale, log_scale_se : (k, g) arrays
        Of the sites, in units of sigma, and of the logarithm of the scale.
    families : tuple of str
        The m manufacturers.
    family_weight, family_shift, family_shift_sd : (m, g, c) arrays
        What is known of the shift of a further site of a manufacturer: a mixture of c normal distributions.
    family_log_scale, family_log_scale_sd : (m, g) arrays
        What is known of its log scale.
    """

    batch: str
    manufacturer: str | None
    participant: str | None
    reference: str | None
    shrinkage: str
    design: Design
    features: tuple[str, ...]
    error_columns: tuple[str | None, ...]
    sites: tuple[str, ...]
    makers: tuple[str, ...]
    counts: FloatArray
    intercept: FloatArray
    sigma: FloatArray
    slopes: FloatArray
    slopes_variance: FloatArray
    person_sd: FloatArray
    shift: FloatArray
    shift_se: FloatArray
    log_scale: FloatArray
    log_scale_se: FloatArray
    families: tuple[str, ...]
    family_weight: FloatArray
    family_shift: FloatArray
    family_shift_sd: FloatArray
    family_log_scale: FloatArray
    family_log_scale_sd: FloatArray

    def parameters(self) -> pd.DataFrame:
        """One row per site and feature: shift (unit of the feature) and scale, with errors."""
        rows = [
            {
                "site": site,
                "manufacturer": self.makers[i] or None,
                "feature": feature,
                "count": int(self.counts[i, g]),
                "shift": self.shift[i, g] * self.sigma[g],
                "shift_se": self.shift_se[i, g] * self.sigma[g],
                "scale": float(np.exp(self.log_scale[i, g])),
                "scale_se": float(np.exp(self.log_scale[i, g]) * self.log_scale_se[i, g]),
            }
            for i, site in enumerate(self.sites)
            for g, feature in enumerate(self.features)
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """Content as JSON; NaN becomes null."""
        content: dict[str, Any] = {"format": FORMAT}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = _plain(value)
            content[field.name] = value.to_dict() if isinstance(value, Design) else value
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Harmoniser":
        """Inverse of `to_json`.

        Raises
        ------
        QcordError
            The text is not that of a harmoniser.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise KeyError("format")
            values: dict[str, Any] = {name: _read(value) for name, value in content.items()}
            return cls(**{**values, "design": Design.from_dict(content["design"])})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            msg = f"The text is not a harmoniser of this version ({FORMAT}): write it anew with Harmoniser.to_json."
            raise QcordError(msg) from error


def _plain(value: FloatArray) -> dict[str, Any]:
    numbers = [float(v) if np.isfinite(v) else None for v in value.ravel()]
    return {"shape": list(value.shape), "values": numbers}


def _read(value: Any) -> Any:
    if isinstance(value, dict) and "shape" in value:
        content = np.array([np.nan if v is None else v for v in value["values"]], dtype=float)
        return content.reshape(value["shape"])
    return tuple(value) if isinstance(value, list) else value


def indices(column: "pd.Series[Any]", names: tuple[str, ...]) -> IntArray:
    """Place of each value among the names; -1 where it is absent, -2 where it is not among them."""
    place = {name: i for i, name in enumerate(names)}
    return np.array([-1 if pd.isna(v) else place.get(str(v), -2) for v in column], dtype=int)


def numbers(table: pd.DataFrame, name: str) -> FloatArray:
    """A column as floats.

    Raises
    ------
    MissingMetadata
        The column is absent.
    QcordError
        It holds text or infinite values.
    """
    require_columns(table, (name,))
    try:
        values = pd.to_numeric(table[name]).to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        msg = f"{name} holds text; a feature must be numbers, with empty cells where there is no value."
        raise QcordError(msg) from error
    if np.isinf(values).any():
        msg = f"{name} is infinite in {int(np.isinf(values).sum())} rows; leave them empty."
        raise QcordError(msg)
    return np.array(values)


def apply(harmoniser: Harmoniser, table: pd.DataFrame) -> pd.DataFrame:
    """Harmonise a table.

    Parameters
    ----------
    harmoniser : Harmoniser
    table : DataFrame
        One row per person (or session), with the columns of the batch, the covariates and the features.

    Returns
    -------
    DataFrame
        The table with the features on the scale of the reference; a value stays NaN where it was, or where the site or
        a covariate is absent. New columns: ``<feature>_se_shift``, the standard error that the harmonisation adds,
        which people of a site share. Standard errors, if the fit had them, stay in their columns, with that part in.

    Raises
    ------
    MissingMetadata
        A column is absent.
    UnknownName
        A site was not in the fit.

    Notes
    -----
    The error of the shift and scale is to first order; that of the intercept, common to all sites, is not in.
    """
    require_columns(table, (harmoniser.batch,))
    site = indices(table[harmoniser.batch], harmoniser.sites)
    if (site == -2).any():
        unknown = sorted({str(v) for v in table[harmoniser.batch][site == -2]})
        msg = f"{harmoniser.batch} {', '.join(unknown)} took no part in the fit; add it first by its manufacturer or by"
        raise UnknownName(msg + " local controls (qcord.normative.harmonise.unseen).")
    x = harmoniser.design.matrix(table)
    known = (site >= 0) & np.isfinite(x).all(axis=1)
    persons = _persons(harmoniser, table)
    out = table.copy()
    for g, feature in enumerate(harmoniser.features):
        y = numbers(table, feature)
        column = harmoniser.error_columns[g]
        error = numbers(table, column) if column is not None else np.full(len(y), np.nan)
        value, se, shared = _apply_feature(
            harmoniser,
            g,
            y=y,
            error=error,
            site=site,
            x=np.nan_to_num(x),
            known=known & np.isfinite(y),
            persons=persons,
        )
        out[feature] = value
        out[f"{feature}_se_shift"] = shared
        if column is not None:
            out[column] = se
    return out


def _persons(harmoniser: Harmoniser, table: pd.DataFrame) -> IntArray | None:
    if harmoniser.participant is None:
        return None
    require_columns(table, (harmoniser.participant,))
    codes, _ = pd.factorize(table[harmoniser.participant])
    if (codes < 0).any():
        msg = f"{harmoniser.participant} is empty in {int((codes < 0).sum())} rows; name the person of each row."
        raise MissingMetadata(msg)
    return np.asarray(codes, dtype=int)


def _apply_feature(
    h: Harmoniser,
    g: int,
    *,
    y: FloatArray,
    error: FloatArray,
    site: IntArray,
    x: FloatArray,
    known: BoolArray,
    persons: IntArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    sigma, shift, scale = h.sigma[g], h.shift[site, g], np.exp(h.log_scale[site, g])
    mean = h.intercept[g] + x @ h.slopes[:, g]
    mean_variance = np.einsum("ij,jk,ik->i", x, h.slopes_variance[:, :, g], x)
    if persons is not None and h.person_sd[g] > 0:
        own = (sigma * scale) ** 2 + np.where(np.isfinite(error), error, 0.0) ** 2
        weight = np.where(known, 1 / own, 0.0)
        total = np.bincount(persons, weight)
        rest = np.where(known, y - mean - sigma * shift, 0.0)
        posterior = 1 / (1 / h.person_sd[g] ** 2 + total)
        mean = mean + (posterior * np.bincount(persons, weight * rest))[persons]
        mean_variance = mean_variance + posterior[persons]
    deviation = ((y - mean) / sigma - shift) / scale
    value = np.where(known, mean + sigma * deviation, np.nan)
    shared = (sigma / scale * h.shift_se[site, g]) ** 2 + (sigma * deviation * h.log_scale_se[site, g]) ** 2
    shared = np.where(known, shared + (1 - 1 / scale) ** 2 * mean_variance, np.nan)
    return value, np.sqrt((error / scale) ** 2 + shared), np.sqrt(shared)
