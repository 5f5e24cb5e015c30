"""The verbs of the command ``qcord`` as functions of the same names and arguments, loaded on first use.

>>> from qcord import api
>>> sorted(api.__all__)[:3]
['assets', 'demo', 'doctor']
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "run": "qcord.pipeline.run",
    "gather": "qcord.pipeline.run",
    "demo": "qcord.pipeline.demo",
    "phantom": "qcord.pipeline.phantom",
    "fit": "qcord.pipeline.fit",
    "segment": "qcord.pipeline.segment",
    "register": "qcord.pipeline.register",
    "extract": "qcord.pipeline.extract",
    "norm_add": "qcord.pipeline.norm_database",
    "norm_query": "qcord.pipeline.norm_database",
    "norm_export": "qcord.pipeline.norm_federation",
    "norm_merge": "qcord.pipeline.norm_federation",
    "norm_score": "qcord.pipeline.norm_score",
    "norm_fit": "qcord.pipeline.norm_models",
    "norm_adapt": "qcord.pipeline.norm_models",
    "assets": "qcord.pipeline.assets",
    "doctor": "qcord.pipeline.doctor",
    "load_template": "qcord.pipeline.templates",
    "parametric_template": "qcord.template.parametric",
    "read_image": "qcord.ingest.nifti",
}

__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'qcord.api' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
