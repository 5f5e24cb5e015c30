"""Values of the cord by region, height and damage, and what a model's parameters are in them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.labels import COMBINED, TRACTS
from qcord.phantom.body import Body
from qcord.phantom.field_strength import at_field
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.tissue import METRICS, TissueTable, axial_radial, tissue_table
from qcord.template import tables


@dataclass(frozen=True, eq=False)
class Tissue:
    """Values of some tissues at some places.

    Parameters
    ----------
    values : mapping of str to (n, t) array
        By metric, see `qcord.phantom.tissue.METRICS`.
    kinds : tuple of str
        What each of the t tissues is: ``white matter``, ``gray matter``, or a name of
        `qcord.phantom.tissue.SURROUNDINGS`.
    factors : mapping of str to (n, 1) array
        Value over that of the same tissue in health, by metric or by name of a model's parameter; 1 where there is
        no entry.
    """

    values: Mapping[str, FloatArray]
    kinds: tuple[str, ...]
    factors: Mapping[str, FloatArray]

    def __getitem__(self, metric: str) -> FloatArray:
        """One metric (n, t): as it stands, or one that follows: R1, R2, R2star, AD, RD."""
        if metric in {"R1", "R2", "R2star"}:
            return np.asarray(1 / self.values["T" + metric[1:]])
        if metric in {"AD", "RD"}:
            return axial_radial(self.values["FA"], self.values["MD"])[metric == "RD"]
        return self.values[metric]

    def factor(self, metric: str) -> FloatArray:
        """Relative change (n, 1) of a metric."""
        n = len(self.values["PD"])
        return np.asarray(self.factors.get(metric, np.ones((n, 1))))

    def take(self, rows: IntArray) -> "Tissue":
        """Values at some of the places."""
        return Tissue(
            {m: v[rows] for m, v in self.values.items()}, self.kinds, {m: f[rows] for m, f in self.factors.items()}
        )


@dataclass(frozen=True, eq=False)
class RegionValues:
    """Values of the regions of the cord, sound and damaged.

    Parameters
    ----------
    base : mapping of str to (t,) array
        Values of the tissues that differ, by metric.
    kinds : tuple of str
        What each of them is.
    members : (36,) array of int
        Which of them each region consists of.
    lesions : tuple of mapping of str to float
        Factors of each lesion.
    pinched : mapping of str to float
        Factors where the compression is worst.
    levels : mapping of str to (20,) array
        Factors at the middles of the levels, C1 first.
    body : Body
        Where the compression lies.
    """

    base: Mapping[str, FloatArray]
    kinds: tuple[str, ...]
    members: IntArray
    lesions: tuple[Mapping[str, float], ...]
    pinched: Mapping[str, float]
    levels: Mapping[str, FloatArray]
    body: Body

    @classmethod
    def of(cls, spec: PhantomSpec, body: Body) -> "RegionValues":
        """Values that a specification asks for."""
        table = tissue_values(spec)
        kinds = np.array(["gray matter" if t in COMBINED["gray matter"] else "white matter" for t in TRACTS])
        columns = np.stack([table.cord(m) for m in METRICS], axis=1)
        keyed = np.concatenate([columns, (kinds == "gray matter")[:, None]], axis=1)
        _, first, members = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
        return cls(
            {m: table.cord(m)[first] for m in METRICS},
            tuple(kinds[first].tolist()),
            members.reshape(-1),
            tuple(dict(lesion.factors) for lesion in spec.lesions),
            {} if spec.compression is None else dict(spec.compression.factors),
            {m: np.array([f.get(level, 1.0) for level in tables.LEVELS]) for m, f in spec.levels.items()},
            body,
        )

    def at(self, height: FloatArray, part: int = 0) -> Tissue:
        """Values at template heights (n,) [mm].

        Parameters
        ----------
        height : (n,) array
            Heights.
        part : int
            0 for sound tissue, k for that of the k-th lesion.
        """
        damage = self.lesions[part - 1] if part else {}
        pinch = self.body.pinch_at(height)[:, None]
        edges = tables.level_edges()
        middles = (edges[:-1] + edges[1:]) / 2
        factors = {}
        for metric in dict.fromkeys((*damage, *self.pinched, *self.levels)):
            factor = damage.get(metric, 1.0) * (1 + (self.pinched.get(metric, 1.0) - 1) * pinch)
            if metric in self.levels:
                factor = factor * np.interp(height, middles[::-1], self.levels[metric][::-1])[:, None]
            factors[metric] = np.asarray(factor)
        values = {m: np.broadcast_to(v * factors.get(m, 1.0), (len(height), len(v))) for m, v in self.base.items()}
        return Tissue(within_limits(values), self.kinds, factors)

    def fold(self, fractions: FloatArray) -> FloatArray:
        """Fractions (n, t) of the tissues that differ, from those of the regions (n, 36)."""
        folded = np.zeros((len(fractions), len(self.kinds)), dtype=fractions.dtype)
        for region, tissue in enumerate(self.members):
            folded[:, tissue] += fractions[:, region]
        return folded

    def unfold(self, values: AnyArray) -> AnyArray:
        """Values (..., 36) of the regions from those of the tissues (..., t)."""
        return np.asarray(values[..., self.members])


def within_limits(values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Values of which fractions and anisotropies stay below 1, however large their factors."""
    tops = {"FA": 0.99, "ICVF": 0.99, "ODI": 1.0, "ISOVF": 0.99}
    return {m: np.minimum(v, tops[m]) if m in tops else np.asarray(v) for m, v in values.items()}


def tissue_values(spec: PhantomSpec) -> TissueTable:
    """Arrays of the tissue values of a subject in its scanner."""
    table = tissue_table(at_field(spec.tissues, spec.tesla))
    factors = {**dict.fromkeys(METRICS, 1.0), **spec.factors}
    n = len(TRACTS)
    scaled = {m: np.concatenate([v[:n] * factors[m], v[n:]]) for m, v in table.values.items()}
    return TissueTable(table.names, scaled)


def around_tissue(table: TissueTable, name: str) -> Tissue:
    """Values (1, 1) of a tissue around the cord."""
    return Tissue({m: np.array([[v]]) for m, v in table.around(name).items()}, (name,), {})
