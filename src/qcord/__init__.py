"""Quantitative spinal cord MRI: from a raw scan to values per tract and level, each with its error.

The verbs of the command line are functions in `qcord.api`.
"""

from importlib.metadata import version

__version__ = version("qcord")
