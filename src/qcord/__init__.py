"""Quantitative spinal cord MRI: from a raw scan to values per tract and level, each with its error.

The functions below are also the verbs of the command ``qcord``. They are loaded on first use, so that importing
the package stays quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("qcord")

_PLACES = {
    "run": "qcord.pipeline.run",
    "gather": "qcord.pipeline.run",
    "demo": "qcord.pipeline.demo",
    "phantom": "qcord.pipeline.phantom",
    "fit": "qcord.pipeline.fit",
    "segment": "qcord.pipeline.segment",
    "register": "qcord.pipeline.register",
    "extract": "qcord.pipeline.extract",
    "assets": "qcord.pipeline.assets",
    "doctor": "qcord.pipeline.doctor",
    "load_template": "qcord.pipeline.templates",
    "read_image": "qcord.ingest.nifti",
    "parametric_template": "qcord.template.parametric",
}

__all__ = ["__version__", *sorted(_PLACES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'qcord' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
