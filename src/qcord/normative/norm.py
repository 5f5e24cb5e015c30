"""A norm: what healthy people measure, by age, sex, size, manufacturer and site; and many of them, as JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.normative.deviating import Deviating
from qcord.normative.hierarchy import Hierarchy, Sites
from qcord.normative.shape import NORMAL, Shape
from qcord.normative.terms import Terms

FORMAT, FORMAT_WITH_STUDIES = 1, 2
"""Version of the JSON form: of norms without studies, and where one has them."""

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
                **({"study": list(h.sites.study)} if h.studied else {}),
            },
            **({"studies": list(h.studies)} if h.studied else {}),
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
        d, q = 4 + 2 * m + ("studies" in content), p + m + len(content.get("studies", ()))
        sites = Sites(
            tuple(s["name"]),
            tuple(s["manufacturer"]),
            np.array(s["count"], dtype=float),
            np.array(s["weight"], dtype=float),
            np.array(s["columns"], dtype=float).reshape(n, p),
            np.array(s["value"], dtype=float),
            tuple(s.get("study", ())),
        )
        hierarchy = Hierarchy(
            float(content["centre"]),
            float(content["spread"]),
            tuple(content["manufacturers"]),
            np.array(content["variances"], dtype=float),
            np.array(content["variances_covariance"], dtype=float).reshape(d, d),
            np.array(content["coefficients"], dtype=float),
            np.array(content["covariance"], dtype=float).reshape(q, q),
            np.array(content["coefficients_slope"], dtype=float).reshape(d, q),
            np.array(content["covariance_slope"], dtype=float).reshape(d, q, q),
            sites,
            Deviating(*(float(v) for v in content.get("deviating", ()))),
            tuple(content.get("studies", ())),
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
        form = FORMAT_WITH_STUDIES if any(norm.hierarchy.studied for norm in self) else FORMAT
        return json.dumps({"format": form, "norms": [norm.to_dict() for norm in self]}, separators=(",", ":"))

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
        if found not in (FORMAT, FORMAT_WITH_STUDIES):
            raise ImplausibleValue(
                f"The norms are of format {found}, expected {FORMAT} or {FORMAT_WITH_STUDIES}; use another version of "
                "qcord."
            )
        try:
            return cls.of([Norm.from_dict(one) for one in norms])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise ImplausibleValue(
                "A norm of the file is not whole; expected JSON as `qcord norm fit` wrote it - copy or make it again."
            ) from None


def with_card(norm: Norm, **entries: Any) -> Norm:
    """The norm with further entries of its card."""
    return replace(norm, card={**norm.card, **entries})


def _plain(values: FloatArray) -> Any:
    return [float(f"{v:.{_DIGITS}g}") for v in np.ravel(values)]
