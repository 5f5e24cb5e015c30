"""Diffusional kurtosis: the logarithm of the signal to second order in b, one tensor of each order a voxel."""

from collections.abc import Callable

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.encoding import require_linear
from qcord.models.kurtosis_metrics import (
    COUNT,
    INDICES,
    Graded,
    axial_kurtosis,
    axial_kurtosis_gradient,
    kurtosis_anisotropy,
    mean_kurtosis,
    mean_kurtosis_gradient,
    mean_of_kurtosis_tensor,
    mean_of_kurtosis_tensor_gradient,
    positive,
    radial_kurtosis,
    radial_kurtosis_gradient,
)
from qcord.models.tensor import TENSOR, b_matrix

ELEMENTS = tuple("V" + "".join("xyz"[axis] for axis in index) for index in INDICES)
"""Elements of the kurtosis tensor times the squared mean diffusivity, by their axes."""

DIRECTIONS = 15
"""Fewest directions that determine a kurtosis tensor."""

SPREAD = 1.25
"""Least ratio of two b-values that count as two shells."""

Formula = Callable[[AnyArray, AnyArray], AnyArray]

_LARGEST = 4e-4
"""Bound of the elements [mm4/s2]: the square of the largest diffusivity that the tensor may reach."""


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal of a voxel to second order of the cumulant expansion.

    Parameters
    ----------
    theta : (..., 22) array
        S0 [1]; Dxx, Dyy, Dzz, Dxy, Dxz, Dyz [mm2/s]; and the kurtosis tensor times the squared mean diffusivity,
        Vxxxx, Vxxxy, Vxxxz, Vxxyy, Vxxyz, Vxxzz, Vxyyy, Vxyyz, Vxyzz, Vxzzz, Vyyyy, Vyyyz, Vyyzz, Vyzzz, Vzzzz
        [mm4/s2]; all in world axes.
    protocol : Protocol
        BValue [s/mm2], Direction (unit vectors in world axes).
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Jensen, Helpern, Ramani, Lu and Kaczynski 2005, doi:10.1002/mrm.20508.
    """
    # einsum, not @: a BLAS product would start threads below the threads that run over blocks of voxels
    return np.asarray(theta[..., :1] * np.exp(np.einsum("...k,nk->...n", theta[..., 1:], _columns(protocol)[:, 1:])))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 22) from signals (..., n): unweighted straight line through their logarithms."""
    top = np.fmax.reduce(measured, axis=-1, keepdims=True)
    logs = np.log(np.fmax(measured, np.fmax(1e-3 * top, 1e-300)))
    columns = _columns(protocol)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    theta = np.einsum("...n,kn->...k", logs, np.linalg.pinv(columns / scale)) / scale
    return np.concatenate([np.exp(theta[..., :1]), theta[..., 1:]], axis=-1)


def log_design(protocol: Protocol) -> FloatArray:
    """Matrix (n, 22) that takes (ln S0, Dxx, ..., Vzzzz) to the logarithm of the signal.

    Raises
    ------
    NotIdentifiable
        If the volumes do not determine a kurtosis tensor.
    ImplausibleValue
        If a b-tensor is not linear.
    """
    require_linear(protocol, "kurtosis")
    columns = _columns(protocol)
    where = protocol.source or "the series"
    levels, directions = protocol["BValue"], protocol["Direction"]
    weighted = levels[(levels > 0) & directions.any(axis=1)]
    if not weighted.size or weighted.max() < SPREAD * weighted.min():
        found = f"one b-value above 0 ({weighted.max():g} s/mm2)" if weighted.size else "no b-value above 0"
        raise NotIdentifiable(
            f"{where} has {found} with directions, expected two for kurtosis (such as 700 and 2000 s/mm2); "
            "kurtosis needs another acquisition."
        )
    count = len(distinct_axes(directions))
    if count < DIRECTIONS:
        raise NotIdentifiable(
            f"{where} has {count} directions, expected at least {DIRECTIONS} for a kurtosis tensor; "
            "fit mean-signal-kurtosis or acquire more directions."
        )
    scaled = columns / np.maximum(np.abs(columns).max(axis=0), 1e-300)
    rank = np.linalg.matrix_rank(scaled, tol=1e-3 * np.sqrt(len(scaled)))
    if rank < len(columns.T):
        raise NotIdentifiable(
            f"The {len(protocol)} volumes of {where} determine {rank} of the {len(columns.T)} unknowns of a kurtosis "
            "tensor; it takes three b-values (as b = 0 and two more) and 15 directions spread over the sphere."
        )
    return columns


def fourth_order(directions: FloatArray) -> FloatArray:
    """Weights (n, 15) of the elements of V in V(n, n, n, n); zero vectors count as the mean over all directions."""
    even = [np.prod([(1, 0, 1, 0, 3)[i.count(axis)] for axis in range(3)]) / 15 for i in INDICES]
    products = np.stack([directions[:, list(i)].prod(axis=1) for i in INDICES], axis=1)
    directed: BoolArray = np.asarray(directions.any(axis=1, keepdims=True))
    return np.asarray(COUNT * np.where(directed, products, even))


def _columns(protocol: Protocol) -> FloatArray:
    b, directions = protocol["BValue"][:, None], protocol["Direction"]
    return np.concatenate([np.ones_like(b), -b_matrix(protocol), b**2 / 6 * fourth_order(directions)], axis=1)


def distinct_axes(directions: FloatArray) -> FloatArray:
    """Those of some vectors (n, 3) that are not zero and differ by more than about 2 degrees from all before them."""
    units: FloatArray = np.asarray(directions[np.asarray(directions.any(axis=1))])
    same: BoolArray = np.asarray(np.abs(np.einsum("ia,ja->ij", units, units)) > 0.9995)
    return np.asarray(units[np.argmax(same, axis=1) == np.arange(len(units))] if len(units) else units)


def even_directions(count: int) -> FloatArray:
    """Directions (count, 3) spread evenly over half a sphere along a spiral."""
    k = np.arange(count) + 0.5
    height, turn = 1 - k / count, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def example() -> Protocol:
    """Protocol of 7 volumes at b = 0, 24 at 700 and 36 at 2000 s/mm2."""
    b = np.repeat([0.0, 700.0, 2000.0], [7, 24, 36])
    return Protocol({"BValue": b, "Direction": np.concatenate([np.zeros((7, 3)), *map(even_directions, (24, 36))])})


def _of_tensor(derived: Derived) -> Derived:
    """A derived value of the diffusion tensor for parameters that go on after it."""

    def slope(theta: AnyArray) -> AnyArray:
        assert derived.gradient is not None
        first = derived.gradient(theta[..., :7])
        return np.concatenate([first, np.zeros_like(theta[..., 7:])], axis=-1)

    gradient = None if derived.gradient is None else slope
    return Derived(derived.name, derived.unit, lambda theta: derived.formula(theta[..., :7]), gradient)


def _of_both(name: str, formula: Formula, gradient: Callable[[FloatArray, FloatArray], Graded]) -> Derived:
    """A derived value of both tensors; eigenvalues of D near or below zero count as `LEAST` times the largest."""

    def slope(theta: AnyArray) -> AnyArray:
        values, graded = gradient(*_tensors(theta))
        return np.moveaxis(np.concatenate([np.zeros_like(values)[None], graded]), 0, -1)

    return Derived(name, "1", lambda theta: np.asarray(formula(*_tensors(theta))), slope)


def _tensors(theta: AnyArray) -> tuple[AnyArray, AnyArray]:
    elements = np.moveaxis(theta, -1, 0)
    return positive(elements[1:7])[0], elements[7:]


def _about_z(axial: float, radial: float, along: float, across: float, between: float) -> dict[str, float]:
    """Parameters of tensors about the z axis: diffusivities, and V along the axis, across it and mixed."""
    values = dict.fromkeys((p.name for p in _FREE), 0.0)
    values |= {"S0": 1.0, "Dxx": radial, "Dyy": radial, "Dzz": axial, "Vzzzz": along, "Vxxxx": across, "Vyyyy": across}
    return values | {"Vxxyy": across / 3, "Vxxzz": between, "Vyyzz": between}


_FREE = (
    *TENSOR.free,
    *(Parameter(n, "mm4/s2", (-_LARGEST, _LARGEST), 0.0, "kurtosis tensor times MD^2, element") for n in ELEMENTS),
)

KURTOSIS = SignalModel(
    name="kurtosis",
    free=_FREE,
    needs=("BValue", "Direction"),
    signal=signal,
    references=(
        "Jensen, Helpern, Ramani, Lu and Kaczynski 2005, doi:10.1002/mrm.20508",
        "Tabesh et al. 2011, doi:10.1002/mrm.22932",
        "Hansen et al. 2013, doi:10.1002/mrm.24743",
        "Glenn et al. 2015, doi:10.1002/nbm.3271",
    ),
    derived=(
        *(_of_tensor(derived) for derived in TENSOR.derived),
        _of_both("MK", mean_kurtosis, mean_kurtosis_gradient),
        _of_both("AK", axial_kurtosis, axial_kurtosis_gradient),
        _of_both("RK", radial_kurtosis, radial_kurtosis_gradient),
        _of_both("MKT", mean_of_kurtosis_tensor, mean_of_kurtosis_tensor_gradient),
        Derived("KFA", "1", lambda theta: kurtosis_anisotropy(np.moveaxis(theta, -1, 0)[7:])),
    ),
    start=start,
    title="Diffusional kurtosis: diffusion and kurtosis tensor, mean, axial and radial kurtosis",
    example=example,
    typical=(
        Typical(
            "white matter, 3 T",
            _about_z(1.9e-3, 0.5e-3, 2.35e-6, 3.25e-7, 2.95e-7),
            "diffusivities as in cervical tensor studies; MK .95, AK .65, RK 1.3",
            "assumed",
        ),
        Typical(
            "gray matter, 3 T",
            _about_z(1.5e-3, 0.55e-3, 1.35e-6, 2.7e-7, 2e-7),
            "diffusivities as in cervical tensor studies; MK near .7",
            "assumed",
        ),
    ),
)
"""The kurtosis model; S0, six and fifteen elements in world axes, and what is read off them."""
