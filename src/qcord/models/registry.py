"""All models by name."""

from collections.abc import Mapping
from types import MappingProxyType

from qcord.core.errors import UnknownName
from qcord.core.model import SignalModel
from qcord.models.covariance_tensor import QTI
from qcord.models.inhomogeneous_mt import IHMTR, IHMTSAT
from qcord.models.inversion_recovery import INVERSION_RECOVERY, INVERSION_RECOVERY_TR
from qcord.models.ivim import IVIM
from qcord.models.kurtosis import KURTOSIS
from qcord.models.magnetisation_transfer_ratio import MTR
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS
from qcord.models.microscopic_anisotropy import CUMULANT, GAMMA
from qcord.models.mp2rage import MP2RAGE
from qcord.models.multi_parameter_mapping import MPM
from qcord.models.myelin_water import MYELIN_WATER, MYELIN_WATER_CSF
from qcord.models.noddi import NODDI
from qcord.models.quantitative_mt import QUANTITATIVE_MT
from qcord.models.spherical_mean import SMT, SMT_MC
from qcord.models.spoiled_gradient_echo import MTSAT, MTSAT_ERNST
from qcord.models.tensor import TENSOR
from qcord.models.transmit_field import ACTUAL_FLIP_ANGLE, DOUBLE_ANGLE
from qcord.models.transverse_relaxation import R2STAR_MODEL, T2
from qcord.models.variable_flip_angle import VFA

_DIFFUSION = (TENSOR, KURTOSIS, MEAN_SIGNAL_KURTOSIS, IVIM, GAMMA, CUMULANT, QTI, NODDI, SMT, SMT_MC)
_TRANSFER = (MTR, MTSAT, MTSAT_ERNST, IHMTR, IHMTSAT, QUANTITATIVE_MT, MPM)
_RELAXATION = (
    *(MYELIN_WATER, MYELIN_WATER_CSF),
    *(VFA, INVERSION_RECOVERY, INVERSION_RECOVERY_TR, MP2RAGE, T2, R2STAR_MODEL),
)
_FIELD = (DOUBLE_ANGLE, ACTUAL_FLIP_ANGLE)
MODELS: Mapping[str, SignalModel] = MappingProxyType(
    {m.name: m for m in (*_DIFFUSION, *_TRANSFER, *_RELAXATION, *_FIELD)}
)
"""Name to model."""


def get(name: str) -> SignalModel:
    """Model of a name.

    Raises
    ------
    UnknownName
        If there is none; lists those that exist.
    """
    if name not in MODELS:
        raise UnknownName(f"There is no model '{name}'; expected one of {', '.join(MODELS)}.")
    return MODELS[name]
