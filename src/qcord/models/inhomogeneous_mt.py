"""Inhomogeneous magnetisation transfer: what a pulse at two offsets takes away beyond one at a single offset.

The protocol column ``MTFrequencies`` counts the offset frequencies that the transfer pulse irradiates: 0 without
pulse, 1 at +f or -f, 2 at both with the same total power. ``MTState`` is its truth value. Images at +f and at -f
are both rows with 1; their mean is taken, which cancels asymmetry of the macromolecular line to first order.
"""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import B1_DEPENDENCE, helms_inverse, saturation


def ratio_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal without, with single-frequency and with dual-frequency transfer pulse.

    Parameters
    ----------
    theta : (..., 3) array
        S0 [1], MTR of the single-frequency pulse [percent], ihMTR [percent].
    protocol : Protocol
        MTFrequencies: 0, 1 or 2.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Notes
    -----
    ihMTR counts the difference of single- and dual-frequency images twice, as sums of two images each are compared
    (Varma 2015); half of it is what the dual pulse takes away in addition.

    References
    ----------
    Varma, Duhamel, de Bazelaire and Alsop 2015, doi:10.1002/mrm.25174.
    """
    count = frequencies(protocol)
    lost = theta[..., 1:2] / 100 * (count > 0) + theta[..., 2:3] / 200 * (count > 1)
    return np.asarray(theta[..., :1] * (1 - lost))


def saturation_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spoiled gradient echo for small angles and short repetition times.

    Parameters
    ----------
    theta : (..., 4) array
        A [1], R1 [1/s], MTsat of the single-frequency pulse [percent], ihMTsat [percent].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s], MTFrequencies: 0, 1 or 2.
    given : (..., 1) array
        B1 [1], actual over nominal flip angle.

    Returns
    -------
    (..., n) array
        Signal, unit of A.

    Notes
    -----
    ihMTsat is MTsat of the dual-frequency pulse minus that of the single-frequency pulse. Both saturations are taken
    to depend on the transmit field in the same way (`qcord.models.spoiled_gradient_echo.saturation`). That law was
    found for MTsat; for ihMTsat it is an assumption.

    References
    ----------
    Munsch et al. 2021, doi:10.1016/j.neuroimage.2020.117442 (ihMTsat);
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732, with erratum 2010, doi:10.1002/mrm.22607.
    """
    b1, count = given[..., :1], frequencies(protocol)
    angle = b1 * np.deg2rad(protocol["FlipAngle"])
    relaxed = theta[..., 1:2] * protocol["RepetitionTimeExcitation"]
    mtsat = theta[..., 2:3] * (count > 0) + theta[..., 3:4] * (count > 1)
    return np.asarray(theta[..., :1] * angle * relaxed / (relaxed + angle**2 / 2 + saturation(mtsat, b1)))


def frequencies(protocol: Protocol) -> FloatArray:
    """Number of irradiated frequencies (n,) of each row.

    Raises
    ------
    MissingMetadata
        If the column is absent, holds something else than 0, 1 and 2, or contradicts ``MTState``.
    """
    count = np.asarray(protocol["MTFrequencies"], dtype=float)
    if not np.isin(count, (0, 1, 2)).all():
        raise MissingMetadata(
            f"MTFrequencies of {protocol.source or 'the series'} is {count.tolist()}, expected 0 (no pulse), 1 (single "
            "offset) or 2 (dual offset) a volume; correct it."
        )
    if "MTState" in protocol and not np.array_equal(protocol["MTState"].astype(bool), count > 0):
        raise MissingMetadata(
            f"MTFrequencies {count.astype(int).tolist()} of {protocol.source or 'the series'} contradicts MTState "
            f"{protocol['MTState'].astype(int).tolist()}, expected pulses in the same volumes; correct one of them."
        )
    return count


def ratio_rows(protocol: Protocol) -> tuple[list[int], list[int], list[int]]:
    """Rows without, with single- and with dual-frequency pulse that are alike in flip angle and repetition time.

    Raises
    ------
    MissingMetadata
        If one of the three is absent.
    """
    count = frequencies(protocol)
    dual = np.flatnonzero(count == 2)
    groups = [
        [int(r) for r in np.flatnonzero(count == k) if dual.size and _alike(protocol, int(r), dual)] for k in (0, 1, 2)
    ]
    if not all(groups):
        raise MissingMetadata(
            f"{protocol.source or 'The series'} holds {', '.join(str(len(g)) for g in groups)} volumes with 0, 1, 2 "
            "transfer frequencies at the flip angle and repetition time of the dual-frequency images, expected at "
            "least one of each; check MTFrequencies, FlipAngle and RepetitionTimeExcitation."
        )
    return groups[0], groups[1], groups[2]


def saturation_rows(protocol: Protocol) -> tuple[list[int], list[int], list[int], list[int]]:
    """Rows with single- and dual-frequency pulse, proton-density weighting and T1 weighting.

    Raises
    ------
    MissingMetadata
        If a setting or one of the four is absent, or settings within one of them differ.
    """
    absent = [n for n in ("FlipAngle", "RepetitionTimeExcitation", "MTFrequencies") if not protocol.has(n)]
    if absent:
        raise MissingMetadata(
            f"{' and '.join(absent)} of some volumes are absent from {protocol.source or 'the series'}; ihMTsat needs "
            "them: add them to the JSON sidecars."
        )
    count = frequencies(protocol)
    weight = np.deg2rad(protocol["FlipAngle"]) ** 2 / protocol["RepetitionTimeExcitation"]
    plain = np.flatnonzero(count == 0)
    low = plain[np.isclose(weight[plain], weight[plain].min(initial=np.inf), rtol=1e-3)]
    groups = [np.flatnonzero(count == 1), np.flatnonzero(count == 2), low, np.setdiff1d(plain, low)]
    single, dual, density, relaxation = ([int(r) for r in g] for g in groups)
    complete = all(map(len, groups)) and all(_alike(protocol, int(g[0]), g) for g in groups)
    if not complete:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has {len(single)} single-, {len(dual)} dual-frequency, {len(density)} "
            f"proton-density and {len(relaxation)} T1-weighted volumes, expected at least one of each, of one flip "
            "angle and repetition time each; check MTFrequencies, FlipAngle and RepetitionTimeExcitation."
        )
    return single, dual, density, relaxation


def _alike(protocol: Protocol, row: int, others: AnyArray) -> bool:
    for name in ("FlipAngle", "RepetitionTimeExcitation"):
        column = protocol.columns.get(name)
        if column is not None and not np.allclose(column[row], column[others], rtol=1e-3, equal_nan=True):
            return False
    return True


def dual_inverse(
    signals: AnyArray, angles: AnyArray, repetition_times: FloatArray, b1: AnyArray | float, *, dependence: float
) -> AnyArray:
    """A, R1 [1/s], MTsat and ihMTsat [percent], (4, ...), in closed form.

    Parameters
    ----------
    signals, angles, repetition_times : (4, ...) array
        Single- and dual-frequency, proton-density and T1-weighted images; nominal flip angles [rad]; times [s].
    b1 : (...) array
        Actual over nominal flip angle.
    dependence : float
        See `qcord.models.spoiled_gradient_echo.B1_DEPENDENCE`.
    """
    one, two = [0, 2, 3], [1, 2, 3]
    single = helms_inverse(signals[one], angles[one], repetition_times[one], b1, dependence=dependence)
    dual = helms_inverse(signals[two], angles[two], repetition_times[two], b1, dependence=dependence)
    return np.concatenate([single, dual[2:] - single[2:]])


def _ratio_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3): means of the images of each kind."""
    count = protocol["MTFrequencies"]
    means = [measured[..., count == k].mean(axis=-1) if (count == k).any() else np.nan for k in (0, 1, 2)]
    plain, single, dual = np.broadcast_arrays(*means)
    with np.errstate(all="ignore"):
        return np.stack([plain, 100 * (plain - single) / plain, 200 * (single - dual) / plain], axis=-1)


def _saturation_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 4): the closed form where there are the images for it, else typical tissue."""
    theta = np.broadcast_to(np.array([np.nan, 1.0, 3.0, 0.5]), (*measured.shape[:-1], 4)).copy()
    unit = saturation_signal(np.array([1.0, 1.0, 3.0, 0.5]), protocol, given)
    theta[..., 0] = (measured * unit).sum(axis=-1) / (unit**2).sum(axis=-1)
    try:
        groups = saturation_rows(protocol)
    except MissingMetadata:
        return theta
    first = [g[0] for g in groups]
    angles, times = np.deg2rad(protocol["FlipAngle"])[first], protocol["RepetitionTimeExcitation"][first]
    means = np.stack([measured[..., g].mean(axis=-1) for g in groups])
    shape = (4,) + (1,) * (means.ndim - 1)
    with np.errstate(all="ignore"):
        exact = dual_inverse(means, angles.reshape(shape), times, given[..., 0], dependence=B1_DEPENDENCE)
    exact = np.moveaxis(exact, 0, -1)
    usable = np.isfinite(exact).all(axis=-1) & (exact[..., 0] > 0) & (exact[..., 1] > 0)
    return np.where(usable[..., None], exact, theta)


def _relaxation_time(theta: AnyArray) -> AnyArray:
    return np.asarray(1 / theta[..., 1])


def _dual_saturation(theta: AnyArray) -> AnyArray:
    return np.asarray(theta[..., 2] + theta[..., 3])


def example() -> Protocol:
    """A cord protocol: reference, two single- and two dual-frequency images and a T1-weighted one."""
    return Protocol(
        {
            "FlipAngle": np.repeat([9.0, 15.0], [5, 1]),
            "RepetitionTimeExcitation": np.repeat([0.03, 0.015], [5, 1]),
            "MTState": np.array([False, True, True, True, True, False]),
            "MTFrequencies": np.array([0.0, 1.0, 1.0, 2.0, 2.0, 0.0]),
        },
        "example",
    )


def _ratio_example() -> Protocol:
    return example().take([0, 1, 2, 3, 4])


_ASSUMED = "ihMTR of the cord 8 to 12 % in white and 5 to 6 % in gray matter, sequence-dependent; not checked"

IHMTR = SignalModel(
    name="ihmtr",
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without transfer pulse"),
        Parameter("MTR", "percent", (-100.0, 100.0), 40.0, "part that the single-frequency pulse takes away"),
        Parameter("ihMTR", "percent", (-100.0, 100.0), 8.0, "twice the part that the dual-frequency pulse takes more"),
    ),
    needs=("MTFrequencies",),
    signal=ratio_signal,
    references=("Varma, Duhamel, de Bazelaire and Alsop 2015, doi:10.1002/mrm.25174",),
    start=_ratio_start,
    title="Inhomogeneous magnetisation transfer ratio",
    example=_ratio_example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1000.0, "MTR": 47.0, "ihMTR": 10.0}, _ASSUMED, "assumed"),
        Typical("gray matter, 3 T", {"S0": 1100.0, "MTR": 46.0, "ihMTR": 5.5}, _ASSUMED, "assumed"),
    ),
)
"""Inhomogeneous magnetisation transfer ratio."""

IHMTSAT = SignalModel(
    name="ihmtsat",
    free=(
        Parameter("A", "1", (0.0, np.inf), 1.0, "signal amplitude: density, receive field, transverse decay"),
        Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate, apparent unless B1 is given"),
        Parameter("MTsat", "percent", (-100.0, 100.0), 3.0, "saturation by one single-frequency pulse"),
        Parameter("ihMTsat", "percent", (-100.0, 100.0), 0.5, "saturation by a dual- beyond a single-frequency pulse"),
    ),
    needs=("FlipAngle", "RepetitionTimeExcitation", "MTFrequencies"),
    signal=saturation_signal,
    references=(
        "Munsch et al. 2021, doi:10.1016/j.neuroimage.2020.117442",
        "Varma, Duhamel, de Bazelaire and Alsop 2015, doi:10.1002/mrm.25174",
        "Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732",
        "Helms, Dathe, Kallenberg and Dechent 2010 (erratum), doi:10.1002/mrm.22607",
    ),
    given=(Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle"),),
    derived=(Derived("T1", "s", _relaxation_time), Derived("MTsatDual", "percent", _dual_saturation)),
    start=_saturation_start,
    title="Inhomogeneous magnetisation transfer saturation from spoiled gradient echoes",
    example=example,
    typical=(
        Typical(
            "white matter, 3 T",
            {"A": 1000.0, "R1": 1.14, "MTsat": 4.0, "ihMTsat": 0.9},
            "T1 of Smith 2008; MTsat of the spine-generic data; ihMTsat that goes with " + _ASSUMED,
            "assumed",
        ),
        Typical(
            "gray matter, 3 T",
            {"A": 1100.0, "R1": 1.03, "MTsat": 3.6, "ihMTsat": 0.45},
            "T1 of Smith 2008; MTsat of the spine-generic data; ihMTsat that goes with " + _ASSUMED,
            "assumed",
        ),
    ),
)
"""Inhomogeneous magnetisation transfer saturation; inverted in closed form by `dual_inverse`."""
