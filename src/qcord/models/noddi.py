"""Neurite orientation dispersion and density (NODDI): dispersed sticks, hindered space around them, free water.

The Watson distribution of axes and the signal of a stick are both expanded in Legendre polynomials, whose
coefficients multiply (the expansion of a convolution on the sphere). The expansion goes on until its terms fall
below 1e-12, and the coefficients of the distribution come from a quadrature that holds from parallel to isotropic
axes.

Published implementations differ in what they take from the paper. Some stop the expansion at a fixed order, which
rounds off the signal of narrow distributions at high b-values; some search a dictionary, so that estimates gather at
its nodes; some divide by the mean of the unweighted volumes instead of estimating S0; most take magnitudes as if their
noise were normal. The constant diffusivity along neurites, 1.7e-3 mm2/s in the paper, is at times replaced (fixed
tissue, gray matter, cord). Estimates with different constants do not compare: with a larger one both ICVF and ODI come
out larger. So it is a given parameter here and stands in the history of each map.
"""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models import tensor
from qcord.models.encoding import UNWEIGHTED, require_linear

PARALLEL_DIFFUSIVITY = 1.7e-3
"""Diffusivity along neurites [mm2/s] (Zhang 2012). Diffusivities of 2 to 2.5e-3 have since been estimated in white
matter (Howard et al. 2022); the value is a convention that makes studies comparable."""

ISOTROPIC_DIFFUSIVITY = 3.0e-3
"""Diffusivity of free water at body temperature [mm2/s] (Zhang 2012)."""

_gauss = lru_cache(np.polynomial.legendre.leggauss)
_HALF, _HALF_WEIGHTS = (_gauss(64)[0] + 1) / 2, _gauss(64)[1] / 2
_SMALLEST = 1e-12
_HIGHEST = 60
_STRETCH = 4.0
"""Where the quadrature over axes puts its nodes; 4 gives 1e-14 with 24 nodes for orders up to 20."""


def watson_moments(odi: AnyArray, order: int, nodes: int = 32) -> AnyArray:
    """Mean of the even Legendre polynomials of the cosine to the axis of a Watson distribution.

    Parameters
    ----------
    odi : (...) array
        Orientation dispersion index, 0 (parallel) to 1 (isotropic), both included.
    order : int
        Highest polynomial, even.
    nodes : int
        Nodes of the quadrature.

    Returns
    -------
    (order / 2 + 1, ...) array
        Of order 0 (which is 1), 2, 4, ...

    Notes
    -----
    The density is proportional to exp(kappa x^2), kappa = cot(pi ODI / 2). Gauss-Legendre nodes are moved towards
    x = 1 as the distribution narrows, by a rational map in sine and cosine of pi ODI / 2: no case is special.
    """
    x, weights = _gauss(nodes)
    u, weights = (a.reshape(-1, *(1,) * np.ndim(odi)) for a in ((x + 1) / 2, weights))
    sine, cosine = np.sin(np.pi / 2 * odi), np.cos(np.pi / 2 * odi)
    apart = sine + cosine * (1 - u) / _STRETCH
    fall = u * sine / apart
    density = weights * np.exp(-u * cosine / apart * (2 - fall)) / apart**2
    total = density.sum(axis=0)
    return np.stack([(density * p).sum(axis=0) / total for p in legendre(1 - fall, order)])


def legendre(x: AnyArray, order: int) -> list[AnyArray]:
    """Legendre polynomials of order 0, 2, 4, ... of x."""
    before, now = np.ones_like(x), x
    even = [before]
    for k in range(1, order):
        before, now = now, ((2 * k + 1) * x * now - k * before) / (k + 1)
        if k % 2:
            even.append(now)
    return even


def stick_coefficients(exponent: FloatArray, order: int) -> FloatArray:
    """Coefficients of even Legendre polynomials in exp(-exponent x^2).

    Parameters
    ----------
    exponent : (...) array
        b-value times diffusivity along the stick.
    order : int
        Highest polynomial, even.

    Returns
    -------
    (order / 2 + 1, ...) array
        Of order 0, 2, 4, ...
    """
    decay = np.exp(-np.asarray(exponent)[..., None] * _HALF**2) * _HALF_WEIGHTS
    even = legendre(_HALF, order)
    return np.stack([(4 * k + 1) * (decay * even[k]).sum(axis=-1) for k in range(order // 2 + 1)])


def expansion_order(exponent: float, smallest: float = _SMALLEST) -> int:
    """Order at which the expansion of a stick may stop, for the largest b-value times diffusivity."""
    size = np.abs(stick_coefficients(np.asarray(exponent), _HIGHEST))
    return 2 * max(1, int(np.flatnonzero(size > smallest)[-1]))


def axis_of(right: AnyArray, anterior: AnyArray) -> AnyArray:
    """Unit vectors (..., 3) of the axis that is tilted from the vertical [deg]."""
    r, a = np.deg2rad(1.0) * right, np.deg2rad(1.0) * anterior
    return np.stack([np.sin(r), np.cos(r) * np.sin(a), np.cos(r) * np.cos(a)], axis=-1)


def tilt_of(axis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Tilt to the right and to the front [deg] of unit vectors (3, ...)."""
    x, y, z = axis
    return np.rad2deg(np.arcsin(np.clip(x, -1, 1))), np.rad2deg(np.arctan2(y, z))


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal of dispersed neurites, the space around them, and free water.

    Parameters
    ----------
    theta : (..., 6) array
        S0 [1]; ICVF [1], part of the tissue inside neurites; ODI [1], orientation dispersion index; ISOVF [1],
        part of the voxel that is free water; TiltRight, TiltAnterior [deg], direction of the mean axis away from
        the vertical.
    protocol : Protocol
        BValue [s/mm2], Direction (unit vectors in world axes).
    given : (..., 2) array
        ParallelDiffusivity, IsotropicDiffusivity [mm2/s].

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Notes
    -----
    The diffusivities of the hindered space are those of the paper: the tortuosity limit across each neurite,
    averaged as a tensor over the distribution of axes. The two tilts are smooth but for fibres that run exactly
    left to right.

    References
    ----------
    Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072.
    """
    s0, icvf, odi, isovf = (theta[..., k : k + 1] for k in range(4))
    b = protocol["BValue"]
    parallel, isotropic = given[..., :1], given[..., 1:2]
    cosine = np.einsum("...k,nk->...n", axis_of(theta[..., 4], theta[..., 5]), protocol["Direction"])
    values, rows = np.unique(b, return_inverse=True)
    order = expansion_order(float(np.max(parallel)) * float(b.max(initial=0)))
    moments = watson_moments(odi, order)
    coefficients = stick_coefficients(values * parallel, order)[..., rows]
    even = legendre(cosine, order)
    inside = sum(c * w * p for c, w, p in zip(coefficients, moments, even, strict=True))
    hindered = np.exp(-b * parallel * (1 - 2 / 3 * icvf * (1 - moments[1] * even[1])))
    tissue = icvf * inside + (1 - icvf) * hindered
    return np.asarray(s0 * ((1 - isovf) * tissue + isovf * np.exp(-b * isotropic)))


def shells_of(protocol: Protocol) -> list[IntArray]:
    """Rows of each shell, by rising b-value; unweighted volumes first. b-values within 10 % and 50 s/mm2 are one."""
    b = protocol["BValue"]
    order = np.argsort(b, kind="stable")
    low, high = b[order][:-1], b[order][1:]
    apart = (high - low > np.maximum(50.0, 0.1 * high)) | (high > UNWEIGHTED) & (low <= UNWEIGHTED)
    return np.split(order, np.flatnonzero(apart) + 1)


def require_shells(protocol: Protocol) -> None:
    """Raise unless the volumes determine the model.

    Raises
    ------
    NotIdentifiable
        If there are not two shells, the upper of 1500 s/mm2 or more, with directions enough, and b = 0.
    ImplausibleValue
        If encoding is not linear.
    """
    require_linear(protocol, NODDI.name)
    source = protocol.source or "The series"
    b, directed = protocol["BValue"], np.asarray(protocol["Direction"].any(axis=1))
    shells = [rows[directed[rows]] for rows in shells_of(protocol) if b[rows].mean() > UNWEIGHTED]
    found = ", ".join(f"{len(rows)} at {b[rows].mean():.0f}" for rows in shells if len(rows)) or "none"
    usable = [rows for rows in shells if len(rows) >= 6]
    upper = [rows for rows in usable if b[rows].mean() >= 1450 and len(rows) >= 15]
    unweighted = int(np.count_nonzero(b <= UNWEIGHTED))
    if len(usable) < 2 or not upper or not unweighted:
        raise NotIdentifiable(
            f"{source} has {unweighted} volumes at b = 0 and weighted ones with direction: {found} "
            "s/mm2; NODDI takes b = 0 and two shells, of 6 directions and of 15 at 1500 s/mm2 or more."
        )
    tensor.log_design(protocol)


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 6) from signals (..., n).

    The axis is that of the tensor. Each shell is projected on Legendre polynomials of the angle to it; of a table of
    (ICVF, ODI), the entry is taken that explains these best together with some free water.
    """
    batch, n = measured.shape[:-1], measured.shape[-1]
    flat = np.where(np.isfinite(measured), measured, 0.0).reshape(-1, n)
    elements = tensor.start(np.maximum(flat, 0), protocol, given)[:, 1:].T
    with np.errstate(all="ignore"):
        axis = np.nan_to_num(tensor.first_eigenvector(elements, tensor.eigenvalues(elements)[0]))
    parallel, isotropic = np.mean(given.reshape(-1, 2), axis=0)
    table, water, found = [], [], []
    icvf, odi = (g.ravel() for g in np.meshgrid(_ICVF, _ODI))
    for rows in shells_of(protocol):
        b = protocol["BValue"][rows].mean()
        highest = 4 if len(rows) >= 15 else 2 if len(rows) >= 6 else 0
        highest = 0 if b <= UNWEIGHTED else highest
        weight = np.sqrt(len(rows) / (2 * np.arange(0, highest + 1, 2) + 1))[:, None]
        table.append(weight * _zonal(icvf, odi, b * parallel, highest))
        water.append(weight[:, 0] * np.exp(-b * isotropic) * (np.arange(len(weight)) == 0))
        found.append(weight * _project(flat[:, rows].T, protocol["Direction"][rows] @ axis, highest))
    best, tissue, free = _explain(np.concatenate(table), np.concatenate(water), np.concatenate(found))
    s0 = np.maximum(tissue + free, 1e-12)
    theta = np.stack([s0, icvf[best], odi[best], np.clip(free / s0, 0, 0.98), *tilt_of(axis)], axis=-1)
    return theta.reshape(*batch, 6)


_ICVF = np.linspace(0.05, 0.98, 14)
_ODI = np.array([0.02, 0.05, 0.09, 0.14, 0.2, 0.27, 0.35, 0.44, 0.54, 0.66, 0.8, 0.95])


def _zonal(icvf: FloatArray, odi: FloatArray, exponent: float, highest: int) -> FloatArray:
    """Legendre coefficients (k, g) of the tissue's signal."""
    order = max(2, highest)
    moments = watson_moments(odi, order)
    x = _HALF[:, None]
    even = legendre(x, order)
    hindered = np.exp(-exponent * (1 - 2 / 3 * icvf * (1 - moments[1] * even[1])))
    sticks = stick_coefficients(np.asarray(exponent), order)
    return np.stack(
        [
            icvf * sticks[k] * moments[k]
            + (1 - icvf) * (4 * k + 1) * (_HALF_WEIGHTS[:, None] * hindered * even[k]).sum(axis=0)
            for k in range(highest // 2 + 1)
        ]
    )


def _project(values: FloatArray, cosine: FloatArray, highest: int) -> FloatArray:
    """Legendre coefficients (k, v) of values (m, v) at cosines (m, v), by least squares."""
    even = np.stack(legendre(cosine, max(2, highest))[: highest // 2 + 1])
    gram = np.einsum("imv,jmv->vij", even, even) + 1e-6 * len(values) * np.eye(len(even))
    return np.asarray(np.linalg.solve(gram, np.einsum("imv,mv->vi", even, values)[..., None])[..., 0].T)


def _explain(table: FloatArray, water: FloatArray, found: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Entry of a table (k, g) that explains found (k, v) best with some water (k,), and both amounts, none negative."""
    tt, tw, ww = (table**2).sum(axis=0)[:, None], (water @ table)[:, None], float(water @ water)
    ft, fw = np.einsum("kg,kv->gv", table, found), np.einsum("k,kv->v", water, found)
    determinant = tt * ww - tw * tw
    tissue = np.maximum(ww * ft - tw * fw, 0) / determinant
    free = np.maximum(fw - tw * tissue, 0) / ww
    tissue = np.where(free > 0, tissue, np.maximum(ft, 0) / tt)
    gain = tissue * (2 * ft - tissue * tt - 2 * free * tw) + free * (2 * fw - free * ww)
    best = np.argmax(gain, axis=0)
    here = np.arange(found.shape[1])
    return best, tissue[best, here], free[best, here]


def example() -> Protocol:
    """Seven volumes without weighting, 24 directions at 700 and 36 at 2000 s/mm2."""
    b = np.repeat([0.0, 700.0, 2000.0], [7, 24, 36])
    directions = np.concatenate([np.zeros((7, 3)), _spiral(24, 0.0), _spiral(36, 1.0)])
    return Protocol({"BValue": b, "Direction": directions}, "example of a two-shell protocol")


def _spiral(n: int, turn: float) -> FloatArray:
    """Directions spread evenly over half the sphere."""
    k = np.arange(n) + 0.5
    height, angle = 1 - k / n, np.pi * (1 + 5**0.5) * k + turn
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def _typical(tissue: str, icvf: float, odi: float, isovf: float, source: str) -> Typical:
    values = {"S0": 1.0, "ICVF": icvf, "ODI": odi, "ISOVF": isovf, "TiltRight": 2.0, "TiltAnterior": 5.0}
    return Typical(tissue, values, source, "assumed")


NODDI = SignalModel(
    name="noddi",
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
        Parameter("ICVF", "1", (0.0, 1.0), 0.5, "part of the tissue inside neurites"),
        Parameter("ODI", "1", (1e-3, 1.0), 0.1, "orientation dispersion index"),
        Parameter("ISOVF", "1", (0.0, 1.0), 0.1, "part of the voxel that is free water"),
        Parameter("TiltRight", "deg", (-180.0, 180.0), 0.0, "tilt of the mean axis to the right of the vertical"),
        Parameter("TiltAnterior", "deg", (-360.0, 360.0), 0.0, "tilt of the mean axis to the front of the vertical"),
    ),
    needs=("BValue", "Direction"),
    signal=signal,
    references=("Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072",),
    given=(
        Parameter("ParallelDiffusivity", "mm2/s", (5e-4, 4e-3), PARALLEL_DIFFUSIVITY, "diffusivity along neurites"),
        Parameter("IsotropicDiffusivity", "mm2/s", (1e-3, 5e-3), ISOTROPIC_DIFFUSIVITY, "diffusivity of free water"),
    ),
    derived=(Derived("INVF", "1", lambda theta: np.asarray((1 - theta[..., 3]) * theta[..., 1])),),
    start=start,
    title="Neurite orientation dispersion and density (NODDI, Watson distribution)",
    example=example,
    typical=(
        _typical("white matter, 3 T", 0.58, 0.04, 0.06, "range of Grussu et al. 2015, from memory"),
        _typical("gray matter, 3 T", 0.40, 0.12, 0.05, "range of Grussu et al. 2015, from memory"),
    ),
)
"""The NODDI model; INVF is the part of the whole voxel inside neurites, (1 - ISOVF) ICVF."""
