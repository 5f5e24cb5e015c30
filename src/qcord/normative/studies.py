"""Shifts of studies in the equations of a norm: taken out, as no two studies share a site, and put back when solved.

Their block of the equations is diagonal, so that any number of studies costs what their sites do.
"""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.normative.statistics import UNKNOWN


@dataclass(frozen=True, eq=False)
class Studies:
    """Which sites are of which of c studies.

    Parameters
    ----------
    name : (c,) tuple of str
        Studies, in alphabetical order.
    of_site : (s,) array of int
        Number of the study of each site; -1 for a study of its own.
    order : (t,) array of int
        Sites that have a study, by study.
    starts : (c,) array of int
        Where each begins in ``order``.
    """

    name: tuple[str, ...]
    of_site: IntArray
    order: IntArray
    starts: IntArray

    def block(
        self, kept: FloatArray, sums: tuple[FloatArray, FloatArray, FloatArray], of_maker: BoolArray, prior: FloatArray
    ) -> "Block":
        """Equations of their shifts.

        Parameters
        ----------
        kept : (b, s) array
            What the shift of each site leaves of its sums, for b sets of variances.
        sums : (b, s), (b, s, p), (b, s) array
            Weight of each site, weighted columns and value.
        of_maker : (s, m) array of bool
            Whether each site is of a manufacturer.
        prior : (b, 1) array
            Variance of the shifts.
        """
        weight, columns, value = sums
        own = kept * weight
        cross = np.concatenate([kept[:, :, None] * columns, own[:, :, None] * of_maker], axis=2)
        return Block(self._sums(own) + 1 / prior, self._sums(kept * value), self._sums(cross))

    def _sums(self, x: FloatArray) -> FloatArray:
        """Sums (b, c, ...) over the sites of each study of what is known of each site (b, s, ...)."""
        return np.asarray(np.add.reduceat(x[:, self.order], self.starts, axis=1))


@dataclass(frozen=True, eq=False)
class Block:
    """Part of the equations that is of studies, for b sets of variances.

    Parameters
    ----------
    precision, right : (b, c) array
        Diagonal with the prior, and right side.
    cross : (b, c, q) array
        Products with the other coefficients.
    """

    precision: FloatArray
    right: FloatArray
    cross: FloatArray

    def taken_out(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the other equations (b, q, q), their right side (b, q) and the squares (b,) lose."""
        scaled = self.cross / self.precision[:, :, None]
        return (
            np.einsum("bki,bkj->bij", scaled, self.cross),
            np.einsum("bki,bk->bi", scaled, self.right),
            (self.right**2 / self.precision).sum(axis=1),
        )

    def put_back(self, coefficients: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients (b, q + c) and their covariance, from those of the others."""
        scaled = self.cross / self.precision[:, :, None]
        shifts = self.right / self.precision - np.einsum("bki,bi->bk", scaled, coefficients)
        across = -np.einsum("bki,bij->bkj", scaled, covariance)
        own = -np.einsum("bki,bli->bkl", across, scaled)
        number = np.arange(own.shape[1])
        own[:, number, number] += 1 / self.precision
        upper = np.concatenate([covariance, across.transpose(0, 2, 1)], axis=2)
        return (
            np.concatenate([coefficients, shifts], axis=1),
            np.concatenate([upper, np.concatenate([across, own], axis=2)], axis=1),
        )


def studies_of(study: tuple[str, ...]) -> Studies:
    """Studies from that of each site, `UNKNOWN` for none."""
    name = tuple(sorted(set(study) - {UNKNOWN}))
    number = {one: k for k, one in enumerate(name)}
    of_site = np.array([number.get(one, -1) for one in study], dtype=np.int64)
    order = np.argsort(of_site, kind="stable")[int((of_site < 0).sum()) :]
    return Studies(name, of_site, order, np.searchsorted(of_site[order], np.arange(len(name))))
