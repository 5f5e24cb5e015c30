"""The document that a site sends: sums over groups of people, the design they belong to, and what it declares."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcord.core.arrays import FloatArray
from qcord.core.errors import QcordError
from qcord.normative.federation.cells import FLOOR
from qcord.normative.federation.signature import Key, canonical, sign, verify
from qcord.normative.norm import Cell
from qcord.normative.statistics import Statistics
from qcord.normative.terms import CENTRE, HEIGHT, HEIGHT_UNIT, UNIT, Terms

FORMAT = "qcord exchange 1"

_MOST_KNOTS = 20


class UnreadableExchange(QcordError):
    """A document is not of the form that sites send, or its numbers contradict each other."""


class _Strict(BaseModel):
    """Nothing but the fields named here can be in a document: no row, no identifier, no remark."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Design(_Strict):
    """Columns of the design, with the constants that their numbers depend on."""

    knots: list[float]
    sex: bool
    height: bool
    age_centre: float = CENTRE
    age_unit: float = UNIT
    height_centre: float = HEIGHT
    height_unit: float = HEIGHT_UNIT

    @classmethod
    def of(cls, terms: Terms) -> "Design":
        """Design of terms."""
        return cls(knots=[float(k) for k in terms.knots], sex=terms.sex, height=terms.height)

    @property
    def terms(self) -> Terms:
        """Terms of the design."""
        return Terms(tuple(self.knots), self.sex, self.height)


class Privacy(_Strict):
    """Noise that was added, and what it guarantees (see `qcord.normative.federation.privacy`)."""

    mechanism: Literal["analytic Gaussian"] = "analytic Gaussian"
    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    age_bounds: tuple[float, float]
    height_bounds: tuple[float, float] | None = None


class Noise(_Strict):
    """Noise of one cell: bounds of the values, and the standard deviation of each sum where these run from -1 to 1."""

    bounds: tuple[float, float]
    sigma: float = Field(gt=0)


class Group(_Strict):
    """Sums over the people of one site; ``xx`` is the upper triangle, row by row."""

    site: str = Field(min_length=1)
    manufacturer: str = Field(min_length=1)
    count: float = Field(ge=1)
    variance: float = Field(ge=0)
    xx: list[float]
    xy: list[float]
    yy: float = Field(ge=0)
    ages: tuple[float, float]


class CellRecord(_Strict):
    """Groups of one cell."""

    metric: str = Field(min_length=1)
    region: str
    level: str
    unit: str
    noise: Noise | None = None
    groups: list[Group] = Field(min_length=1)

    @property
    def cell(self) -> Cell:
        """Metric, region, level."""
        return Cell(self.metric, self.region, self.level)


class Declaration(_Strict):
    """What the document holds, for those who are asked to let it leave."""

    sites: list[str]
    people: dict[str, float]
    ages: tuple[float, float]
    cell_size: int = Field(ge=FLOOR)
    withheld: list[str]
    privacy: Privacy | None
    statement: str


class _Document(_Strict):
    format: Literal["qcord exchange 1"]
    software: str
    design: Design
    cells: list[CellRecord] = Field(min_length=1)
    declaration: Declaration


@dataclass(frozen=True, eq=False)
class Exchange:
    """What one site shares.

    Parameters
    ----------
    terms : Terms
        Design.
    statistics : dict of cell to Statistics
        Sums.
    units : dict of cell to str
        Unit of the values.
    declaration : Declaration
        What it holds.
    software : str
        Name and version of what wrote it.
    noise : dict of cell to Noise
        Standard deviations of the noise; empty if the sums are exact.
    """

    terms: Terms
    statistics: Mapping[Cell, Statistics]
    units: Mapping[Cell, str]
    declaration: Declaration
    software: str
    noise: Mapping[Cell, Noise] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites, sorted."""
        return tuple(self.declaration.sites)

    def content(self) -> dict[str, Any]:
        """JSON of the document, without signature."""
        cells = [
            CellRecord(
                metric=cell[0],
                region=cell[1],
                level=cell[2],
                unit=self.units[cell],
                noise=self.noise.get(cell),
                groups=_groups(self.statistics[cell]),
            )
            for cell in sorted(self.statistics)
        ]
        document = _Document(
            format="qcord exchange 1",
            software=self.software,
            design=Design.of(self.terms),
            cells=cells,
            declaration=self.declaration,
        )
        return document.model_dump(mode="json")

    def to_bytes(self, key: Key) -> bytes:
        """Signed document; numbers read back exactly."""
        return sign(self.content(), key)

    @classmethod
    def from_bytes(cls, document: bytes, key: Key, name: str = "The document") -> "Exchange":
        """Read a signed document.

        Parameters
        ----------
        document : bytes
            What a site sent.
        key : Key
            Key of the federation.
        name : str
            How messages call the document.

        Raises
        ------
        WrongSignature, UnreadableExchange
            If it was not signed with the key, or does not hold what such documents hold.
        """
        return cls.from_content(verify(document, key, name), name)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], name: str = "The document") -> "Exchange":
        """Read the content of a document; see `from_bytes`."""
        try:
            read = _Document.model_validate_json(canonical(content))
        except (ValidationError, ValueError) as error:
            raise UnreadableExchange(
                f"{name} is not of the form {FORMAT!r}: {_first(error)}; export it anew."
            ) from error
        terms = read.design.terms
        if list(terms.knots) != sorted(set(terms.knots)) or len(terms.knots) > _MOST_KNOTS:
            raise UnreadableExchange(f"{name} has knots of age that do not rise; export it anew.")
        if read.design != Design.of(terms):
            raise UnreadableExchange(
                f"{name} centres its design otherwise than this version of qcord; use one version."
            )
        statistics = {record.cell: _statistics(record.groups, terms, name) for record in read.cells}
        if len(statistics) != len(read.cells):
            raise UnreadableExchange(f"{name} holds a cell twice; export it anew.")
        found = sorted({site for s in statistics.values() for site in s.site})
        if found != read.declaration.sites:
            raise UnreadableExchange(f"{name} declares other sites than it holds; export it anew.")
        return cls(
            terms,
            statistics,
            {record.cell: record.unit for record in read.cells},
            read.declaration,
            read.software,
            {record.cell: record.noise for record in read.cells if record.noise is not None},
        )


def _groups(statistics: Statistics) -> list[Group]:
    upper = np.triu_indices(statistics.xx.shape[1])
    return [
        Group(
            site=statistics.site[k],
            manufacturer=statistics.manufacturer[k],
            count=float(statistics.count[k]),
            variance=float(statistics.variance[k]),
            xx=[float(v) for v in statistics.xx[k][upper]],
            xy=[float(v) for v in statistics.xy[k]],
            yy=float(statistics.yy[k]),
            ages=(float(statistics.ages[k, 0]), float(statistics.ages[k, 1])),
        )
        for k in np.argsort(np.array(statistics.site, dtype=object), kind="stable")
    ]


def _statistics(groups: Iterable[Group], terms: Terms, name: str) -> Statistics:
    groups, p = list(groups), len(terms.names)
    if any(len(g.xx) != p * (p + 1) // 2 or len(g.xy) != p for g in groups):
        raise UnreadableExchange(f"{name} holds sums of another number of columns than its design; export it anew.")
    if len({g.site for g in groups}) != len(groups):
        raise UnreadableExchange(f"{name} holds a site twice in one cell; export it anew.")
    xx = np.zeros((len(groups), p, p))
    rows, columns = np.triu_indices(p)
    xx[:, rows, columns] = xx[:, columns, rows] = np.array([g.xx for g in groups])
    result = Statistics(
        terms,
        tuple(g.site for g in groups),
        tuple(g.manufacturer for g in groups),
        np.array([g.count for g in groups]),
        np.array([g.variance for g in groups]),
        xx,
        np.array([g.xy for g in groups]),
        np.array([g.yy for g in groups]),
        np.array([g.ages for g in groups]),
    )
    if not all(map(_possible, joint(result))) or (result.ages[:, 0] > result.ages[:, 1]).any():
        raise UnreadableExchange(f"{name} holds sums that no group of people can have; export it anew.")
    return result


def joint(statistics: Statistics) -> FloatArray:
    """Sums of products of columns and values in one matrix (k, p + 1, p + 1)."""
    k, p = statistics.xy.shape
    matrix = np.zeros((k, p + 1, p + 1))
    matrix[:, :p, :p] = statistics.xx
    matrix[:, :p, p] = matrix[:, p, :p] = statistics.xy
    matrix[:, p, p] = statistics.yy
    return matrix


def _possible(matrix: FloatArray) -> bool:
    """Whether a matrix of sums of products has no negative direction, up to rounding."""
    scale = np.sqrt(np.diag(matrix).clip(min=0))
    scale[scale == 0] = 1
    return bool(np.linalg.eigvalsh(matrix / np.outer(scale, scale)).min() > -1e-9)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg'].lower()}"
    return "a number is not finite"
