"""Which models can be fitted to the series that are present, and why the others can not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray
from qcord.core.errors import QcordError
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.maps.mean_signal_kurtosis import mean_weights
from qcord.maps.microscopic_anisotropy import powder_check
from qcord.maps.spherical_mean import spherical_mean_check
from qcord.models.covariance_tensor import QTI, covariance_design
from qcord.models.encoding import UNWEIGHTED
from qcord.models.inhomogeneous_mt import IHMTR, IHMTSAT, ratio_rows, saturation_rows
from qcord.models.inversion_recovery import INVERSION_RECOVERY, inversion_rows
from qcord.models.ivim import IVIM, require_segments
from qcord.models.kurtosis import KURTOSIS
from qcord.models.kurtosis import log_design as kurtosis_design
from qcord.models.magnetisation_transfer_ratio import MTR, pair_rows
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS
from qcord.models.microscopic_anisotropy import GAMMA
from qcord.models.mp2rage import MP2RAGE, two_inversions
from qcord.models.multi_parameter_mapping import MPM, weightings
from qcord.models.myelin_water import MYELIN_WATER, require_echo_train
from qcord.models.noddi import NODDI, require_shells
from qcord.models.quantitative_mt import QUANTITATIVE_MT, require_pulses
from qcord.models.spherical_mean import SMT, SMT_MC
from qcord.models.spoiled_gradient_echo import MTSAT, triplet_rows
from qcord.models.tensor import TENSOR, log_design
from qcord.models.transmit_field import ACTUAL_FLIP_ANGLE, DOUBLE_ANGLE, angle_pair, repetition_pair
from qcord.models.transverse_relaxation import R2STAR_MODEL, T2, echo_rows
from qcord.models.variable_flip_angle import VFA, flip_angle_rows

_GAUSSIAN = 1250.0
"""b-value [s/mm2] up to which a tensor describes the cord; beyond it, kurtosis raises FA and lowers MD. The shells of
1000 s/mm2 that scanners round upwards are below it."""

_PERFUSION = 200.0
"""b-value [s/mm2] below which a signal shows what flows in capillaries."""


@dataclass(frozen=True)
class Rule:
    """When a model can be fitted.

    Parameters
    ----------
    model : str
        Name of the model.
    metrics : tuple of str
        Maps that go into tables.
    column : str
        Protocol column by which a series is a candidate.
    check : callable
        Raises a `QcordError` that says what a protocol lacks.
    also : tuple of str
        Further columns that make a series a candidate only together with the first.
    suffixes : tuple of str
        BIDS suffixes of the candidates, where the columns alone do not tell them.
    when : callable
        Whether a protocol that has the columns was meant for the model, so that its lack is worth a note.
    near_cord : bool
        Whether the fit takes so long that it is made about the cord only.
    rows : callable
        Measurements that the model describes; all by default.
    """

    model: str
    metrics: tuple[str, ...]
    column: str
    check: Callable[[Protocol], object]
    also: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    when: Callable[[Protocol], bool] = lambda protocol: True
    near_cord: bool = False
    rows: Callable[[Protocol], BoolArray] = lambda protocol: np.ones(len(protocol), dtype=bool)

    def suits(self, series: Series) -> bool:
        """Whether a series is a candidate."""
        known = not self.suffixes or series.image.entities.suffix in self.suffixes
        return known and all(column in series.protocol for column in (self.column, *self.also))


def gaussian_rows(protocol: Protocol) -> BoolArray:
    """Measurements that are weak enough for a tensor; all where those do not determine one."""
    weak = np.asarray(protocol["BValue"] <= _GAUSSIAN)
    try:
        log_design(protocol.take(weak))
    except QcordError:
        return np.ones(len(protocol), dtype=bool)
    return weak


def _several_shells(protocol: Protocol) -> bool:
    b = protocol["BValue"]
    weighted = b[b > UNWEIGHTED]
    return bool(weighted.size) and bool(np.ptp(weighted) > 0.2 * weighted.max())


def _low_shells(protocol: Protocol) -> bool:
    b = protocol["BValue"]
    return bool(((b > 0) & (b < _PERFUSION)).any()) and _several_shells(protocol)


RULES = (
    Rule(TENSOR.name, ("FA", "MD", "AD", "RD"), "BValue", log_design, rows=gaussian_rows),
    Rule(GAMMA.name, ("muFA", "MK_I", "MK_A"), "BDelta", powder_check),
    Rule(QTI.name, ("C_mu", "C_c", "C_MD", "OP", "K_bulk", "K_shear"), "BDelta", covariance_design),
    Rule(MTR.name, ("MTR",), "MTState", pair_rows),
    Rule(MTSAT.name, ("MTsat", "T1"), "MTState", triplet_rows),
    Rule(IHMTR.name, ("ihMTR",), "MTFrequencies", ratio_rows),
    Rule(IHMTSAT.name, ("ihMTsat",), "MTFrequencies", saturation_rows),
    Rule(QUANTITATIVE_MT.name, ("F", "kf", "T2b"), "MTFlipAngle", require_pulses, near_cord=True),
    Rule(MPM.name, ("R1", "R2star", "MTsat"), "EchoTime", weightings, also=("MTState",)),
    Rule(
        MYELIN_WATER.name,
        ("MWF", "T2ie"),
        "EchoTime",
        require_echo_train,
        also=("RefocusingFlipAngle",),
        near_cord=True,
    ),
    Rule(KURTOSIS.name, ("MK", "AK", "RK", "MKT"), "BValue", kurtosis_design, when=_several_shells),
    Rule(MEAN_SIGNAL_KURTOSIS.name, ("MSD", "MSK"), "BValue", mean_weights, when=_several_shells),
    Rule(IVIM.name, ("f", "Dstar", "D"), "BValue", require_segments, when=_low_shells, near_cord=True),
    Rule(VFA.name, ("T1",), "FlipAngle", flip_angle_rows, suffixes=("VFA",)),
    Rule(INVERSION_RECOVERY.name, ("T1",), "InversionTime", inversion_rows, suffixes=("IRT1",)),
    Rule(MP2RAGE.name, ("T1",), "InversionTime", two_inversions, suffixes=("MP2RAGE",)),
    Rule(T2.name, ("T2",), "EchoTime", echo_rows, suffixes=("MESE",)),
    Rule(R2STAR_MODEL.name, ("R2star", "T2star"), "EchoTime", echo_rows, suffixes=("MEGRE",)),
    Rule(DOUBLE_ANGLE.name, ("B1",), "FlipAngle", angle_pair, suffixes=("TB1DAM",)),
    Rule(ACTUAL_FLIP_ANGLE.name, ("B1",), "RepetitionTimeExcitation", repetition_pair, suffixes=("TB1AFI",)),
    Rule(NODDI.name, ("ICVF", "ODI", "ISOVF"), "BValue", require_shells, when=_several_shells),
    Rule(SMT.name, ("MicroFA", "MicroMD"), "BValue", spherical_mean_check, when=_several_shells),
    Rule(SMT_MC.name, ("NeuriteFraction", "NeuriteDiffusivity"), "BValue", spherical_mean_check, when=_several_shells),
)
"""One row a model; a new contrast adds one."""

_BESIDE = {GAMMA.name: ("OP",)}
"""Maps that an estimator gives beside those of its model, and that go into tables too."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A model for a series, or the reason why there is none.

    Parameters
    ----------
    model : str
        Name of the model.
    metrics : tuple of str
        Maps that go into tables.
    series : Series
        What it is fitted to.
    near_cord : bool
        Whether the fit takes so long that it is made about the cord only.
    meant : bool
        Whether the series was meant for the model, so that its lack is worth a note.
    reason : str
        Empty if the model can be fitted, else one sentence that says what is missing.
    """

    model: str
    metrics: tuple[str, ...]
    series: Series
    near_cord: bool = False
    meant: bool = True
    reason: str = ""

    @property
    def possible(self) -> bool:
        """Whether the model can be fitted."""
        return not self.reason


def recipe(series: Sequence[Series]) -> list[Planned]:
    """Decide from the protocols which models can be fitted to which series.

    Parameters
    ----------
    series : sequence of Series
        What is present.

    Returns
    -------
    list of Planned
        One entry for each series and each model that its columns make a candidate, in that order.
    """
    return [_plan(rule, one) for one in series for rule in RULES if rule.suits(one)]


def _plan(rule: Rule, series: Series) -> Planned:
    reason = _lack(rule, series.protocol)
    rows = np.ones(len(series.protocol), dtype=bool) if reason else rule.rows(series.protocol)
    used = series if rows.all() else series.take(rows)
    return Planned(rule.model, rule.metrics, used, rule.near_cord, rule.when(series.protocol), reason)


def table_metrics(model: str) -> tuple[str, ...]:
    """Maps of a model that go into tables."""
    return (*(metric for rule in RULES if rule.model == model for metric in rule.metrics), *_BESIDE.get(model, ()))


def _lack(rule: Rule, protocol: Protocol) -> str:
    try:
        rule.check(protocol)
    except QcordError as error:
        return str(error)
    return ""
