"""A norm: what healthy people measure, by age, sex, size, manufacturer and site; and many of them, as JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.normative.deviating import Deviating, membership
from qcord.normative.hierarchical import spreads
from qcord.normative.hierarchy import Hierarchy, Sites
from qcord.normative.shape import NORMAL, Shape
from qcord.normative.terms import Terms

FORMAT = 1
"""Version of the JSON form."""

_DIGITS = 10


class Cell(NamedTuple):
    """What a norm is of."""

    metric: str
    region: str
    level: str


@dataclass(frozen=True, eq=False)
class Norm:
    """Norm of one cell.

    Parameters
    ----------
    cell : Cell
        Metric, region, level.
    unit : str
        Of the values.
    terms : Terms
        Covariates.
    hierarchy : Hierarchy
        Effects and variances with errors.
    shape : Shape
        Distribution of people's departures.
    widening : float
        Change of the logarithm of the spread of people over 20 years.
    ages : tuple of float
        Youngest and oldest person [years].
    card : mapping
        What it was made from, how it was judged, and its limits.
    """

    cell: Cell
    unit: str
    terms: Terms
    hierarchy: Hierarchy
    shape: Shape = NORMAL
    widening: float = 0.0
    ages: tuple[float, float] = (0.0, 120.0)
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """People it was made from."""
        return int(self.card.get("people", round(float(self.hierarchy.sites.count.sum()))))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text."""
        h = self.hierarchy
        arrays = (
            "variances",
            "variances_covariance",
            "coefficients",
            "covariance",
            "coefficients_slope",
            "covariance_slope",
        )
        return {
            "cell": list(self.cell),
            "unit": self.unit,
            "terms": {"knots": list(self.terms.knots), "sex": self.terms.sex, "height": self.terms.height},
            "centre": h.centre,
            "spread": h.spread,
            "manufacturers": list(h.manufacturers),
            **{name: _plain(getattr(h, name)) for name in arrays},
            "sites": {
                "name": list(h.sites.name),
                "manufacturer": list(h.sites.manufacturer),
                **{name: _plain(getattr(h.sites, name)) for name in ("count", "weight", "columns", "value")},
            },
            "shape": [self.shape.middle, self.shape.width, self.shape.skew, self.shape.tail],
            "widening": self.widening,
            "deviating": [h.deviating.share, h.deviating.width, h.deviating.doubt],
            "ages": list(self.ages),
            "card": dict(self.card),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Norm":
        """Inverse of `to_dict`."""
        terms = content["terms"]
        s = content["sites"]
        made = Terms(tuple(terms["knots"]), terms["sex"], terms["height"])
        n, p, m = len(s["name"]), len(made.names), len(content["manufacturers"])
        d = 4 + 2 * m
        sites = Sites(
            tuple(s["name"]),
            tuple(s["manufacturer"]),
            np.array(s["count"], dtype=float),
            np.array(s["weight"], dtype=float),
            np.array(s["columns"], dtype=float).reshape(n, p),
            np.array(s["value"], dtype=float),
        )
        hierarchy = Hierarchy(
            float(content["centre"]),
            float(content["spread"]),
            tuple(content["manufacturers"]),
            np.array(content["variances"], dtype=float),
            np.array(content["variances_covariance"], dtype=float).reshape(d, d),
            np.array(content["coefficients"], dtype=float),
            np.array(content["covariance"], dtype=float).reshape(p + m, p + m),
            np.array(content["coefficients_slope"], dtype=float).reshape(d, p + m),
            np.array(content["covariance_slope"], dtype=float).reshape(d, p + m, p + m),
            sites,
            Deviating(*(float(v) for v in content.get("deviating", ()))),
        )
        return cls(
            Cell(*content["cell"]),
            content["unit"],
            made,
            hierarchy,
            Shape(*content["shape"]),
            float(content["widening"]),
            (float(content["ages"][0]), float(content["ages"][1])),
            content["card"],
        )


@dataclass(frozen=True, eq=False)
class Norms:
    """Norms of many cells.

    Parameters
    ----------
    cells : mapping of Cell to Norm
        By metric, region and level.
    """

    cells: Mapping[Cell, Norm]

    def __iter__(self) -> Iterator[Norm]:
        return iter(self.cells.values())

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, cell: tuple[str, str, str]) -> Norm:
        """Norm of a cell.

        Raises
        ------
        UnknownName
            If there is none.
        """
        found = self.cells.get(Cell(*cell))
        if found is None:
            raise UnknownName(f"There is no norm of {' / '.join(cell)}; there are {len(self.cells)} others.")
        return found

    @classmethod
    def of(cls, norms: Iterable[Norm]) -> "Norms":
        """From single ones."""
        return cls({norm.cell: norm for norm in sorted(norms, key=lambda norm: norm.cell)})

    def to_json(self) -> str:
        """Text that `from_json` reads; numbers have 10 digits."""
        return json.dumps({"format": FORMAT, "norms": [norm.to_dict() for norm in self]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Norms":
        """Norms from text.

        Raises
        ------
        ImplausibleValue
            If it is no such text, or of a later version.
        """
        try:
            content = json.loads(text)
            found = content["format"]
            norms = content["norms"]
        except (ValueError, KeyError, TypeError):
            raise ImplausibleValue("The file holds no norms; expected JSON that `qcord norm fit` wrote.") from None
        if found != FORMAT:
            raise ImplausibleValue(f"The norms are of format {found}, expected {FORMAT}; use another version of qcord.")
        return cls.of(Norm.from_dict(one) for one in norms)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a healthy person of each row is expected to measure; units of ``hierarchy.spread`` about its centre.

    Parameters
    ----------
    mean : (n,) array
        Expected value.
    people : (n,) array
        Spread of people.
    unsure : (n,) array
        Standard deviation of the error of the mean, with that of the shift of a site that is not known.
    freedom : (n,) array
        Degrees of freedom of the whole variance.
    basis : (n,) array of str
        ``site``, ``manufacturer`` or ``other``: whose values they are.
    """

    mean: FloatArray
    people: FloatArray
    unsure: FloatArray
    freedom: FloatArray
    basis: "np.ndarray[tuple[int], np.dtype[np.object_]]"


class Part(NamedTuple):
    """Prediction for sites of one kind.

    Parameters
    ----------
    weight : (n,) array
        Probability that the site of each row is of this kind.
    prediction : Prediction
        What is expected then.
    """

    weight: FloatArray
    prediction: Prediction


def predict(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    *,
    site: Iterable[str],
    manufacturer: Iterable[str],
    variance: FloatArray,
) -> Prediction:
    """Predict from covariates; where sites may deviate, mean and variance of the whole.

    Parameters are those of `predict_parts`.
    """
    first, *others = predict_parts(norm, design, age, site=site, manufacturer=manufacturer, variance=variance)
    if not others:
        return first.prediction
    parts = (first, *others)
    mean = np.asarray(sum(part.weight * part.prediction.mean for part in parts))
    unsure2 = sum(w * (p.unsure**2 + (p.mean - mean) ** 2) for w, p in parts)
    return replace(first.prediction, mean=mean, unsure=np.sqrt(np.asarray(unsure2)))


def predict_parts(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    *,
    site: Iterable[str],
    manufacturer: Iterable[str],
    variance: FloatArray,
) -> tuple[Part, ...]:
    """Predict from covariates, one part for sites like most and, where some deviate, one for these.

    Parameters
    ----------
    norm : Norm
        The norm.
    design : (n, p) array
        Columns of its terms.
    age : (n,) array
        Age [years].
    site, manufacturer : n str
        Where it is measured.
    variance : (n,) array
        Squared standard error of the value, over the squared spread of the hierarchy; for the degrees of freedom.
    """
    sites, makers = list(site), list(manufacturer)
    plain, chance = _part(norm, design, age, (sites, makers), variance, width=0.0)
    if norm.hierarchy.deviating.none:
        return (Part(np.ones(len(design)), plain),)
    wide, _ = _part(norm, design, age, (sites, makers), variance, width=norm.hierarchy.deviating.width)
    return Part(1 - chance, plain), Part(chance, wide)


def _part(
    norm: Norm,
    design: FloatArray,
    age: FloatArray,
    place_names: tuple[list[str], list[str]],
    variance: FloatArray,
    *,
    width: float,
) -> tuple[Prediction, FloatArray]:
    """Prediction if shifts of sites are wider by some spreads of people; probability that each site deviates."""
    site, manufacturer = place_names
    h = norm.hierarchy
    m, p, n = len(h.manufacturers), design.shape[1], len(design)
    number = {name: k for k, name in enumerate(h.manufacturers)}
    place = {name: k for k, name in enumerate(h.sites.name)}
    at = np.array([place.get(str(s), -1) for s in site])
    # a site that is known stays with its manufacturer
    maker = np.array(
        [number.get(h.sites.manufacturer[k] if k >= 0 else str(v), -1) for k, v in zip(at, manufacturer, strict=True)]
    )
    people, sites, makers, _ = spreads(h.variances, m)
    sigma2 = np.where(maker >= 0, people[maker], np.exp(h.variances[0])) ** 2
    tau2 = np.where(maker >= 0, sites[maker], np.exp(h.variances[0] + h.variances[1])) ** 2
    sigma2 = sigma2 * np.exp(2 * norm.widening * (age - 50.0) / 20.0)
    known, foreign = at >= 0, maker < 0
    # what is not known of a manufacturer counts as part of the shift of the site
    unlike = np.where(foreign, makers**2, 0.0)
    wide2 = (width * np.exp(h.variances[0])) ** 2
    prior = tau2 + unlike + wide2
    # the last row stands for sites that are not known
    nothing = np.zeros((1, p))
    weight = np.append(h.sites.weight, 0.0)[at]
    columns, value = np.concatenate([h.sites.columns, nothing])[at], np.append(h.sites.value, 0.0)[at]
    rest = 1 / (weight + 1 / prior)
    row = np.zeros((n, p + m))
    row[:, :p] = design
    row[np.flatnonzero(~foreign), p + maker[~foreign]] = 1.0
    seen = np.zeros((n, p + m))
    seen[:, :p] = columns
    seen[np.flatnonzero(~foreign), p + maker[~foreign]] = weight[~foreign]
    shrunk = row - rest[:, None] * seen
    mean = shrunk @ h.coefficients + rest * value
    moved = shrunk @ h.coefficients_slope.T
    unsure2 = np.einsum("ni,ij,nj->n", shrunk, h.covariance, shrunk) + rest
    unsure2 += np.einsum("ni,ij,nj->n", moved, h.variances_covariance, moved)
    # change of the whole variance with the logarithms of the spreads
    slope = np.einsum("ni,dij,nj->nd", shrunk, h.covariance_slope, shrunk)
    by_prior = (rest / prior) ** 2
    by_weight = 2 * rest**2 * weight
    slope[:, 0] += 2 * sigma2 + 2 * by_prior * prior + by_weight
    slope[:, 1] += 2 * by_prior * tau2
    slope[:, 2] += 2 * by_prior * unlike
    mine = np.flatnonzero(~foreign)
    slope[mine, 4 + maker[mine]] += (2 * sigma2 + by_weight)[mine]
    slope[mine, 4 + m + maker[mine]] += (2 * by_prior * tau2)[mine]
    whole = sigma2 + unsure2 + variance
    doubt = np.einsum("ni,ij,nj->n", slope, h.variances_covariance, slope)
    doubt += (2 * by_prior * wide2) ** 2 * h.deviating.doubt
    freedom = np.clip(2 * whole**2 / np.maximum(doubt, 1e-300), 1.0, 1e6)
    basis = np.where(known, "site", np.where(foreign, "other", "manufacturer")).astype(object)
    chance = _chance(h, np.where(known, weight, 0.0), seen, value, prior)
    return Prediction(mean, np.sqrt(sigma2), np.sqrt(unsure2), freedom, basis), chance


def _chance(h: Hierarchy, weight: FloatArray, seen: FloatArray, value: FloatArray, prior: FloatArray) -> FloatArray:
    """Probability that the site of each row deviates, from weighted sums of its people; the share where it has none."""
    chance = np.full(len(weight), h.deviating.share)
    known = np.flatnonzero(weight > 0)
    if known.size and not h.deviating.none:
        own = seen[known] / weight[known, None]
        residual = value[known] / weight[known] - own @ h.coefficients
        variance = prior[known] + 1 / weight[known] + np.einsum("ni,ij,nj->n", own, h.covariance, own)
        chance[known] = membership(h.deviating, residual, variance, within=float(np.exp(h.variances[0])))
    return chance


def with_card(norm: Norm, **entries: Any) -> Norm:
    """The norm with further entries of its card."""
    return replace(norm, card={**norm.card, **entries})


def _plain(values: FloatArray) -> Any:
    return [float(f"{v:.{_DIGITS}g}") for v in np.ravel(values)]
