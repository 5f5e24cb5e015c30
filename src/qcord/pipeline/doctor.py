"""Whether this machine is fit for the work, and what to do if not."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from qcord.core.errors import QcordError
from qcord.core.threads import thread_count
from qcord.pipeline.assets import cache_folder, installed
from qcord.pipeline.store import package_version, require_writable

PACKAGES = ("numpy", "scipy", "nibabel", "pandas", "pydantic", "matplotlib", "duckdb", "onnxruntime")
FREE_DISK = 2.0
"""Gigabytes: a visit writes some 100 MB, and PAM50 takes 100 MB."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        What.
    good : bool
        Whether it is as it should be.
    detail : str
        What was found, and the remedy if it is not good.
    """

    name: str
    good: bool
    detail: str


def doctor() -> tuple[Finding, ...]:
    """Look at Python, packages, threads, disk, cache, template and the network that finds the cord."""
    return (
        Finding("qcord", True, package_version()),
        Finding(
            "python",
            sys.version_info >= (3, 11),
            f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        ),
        *(_package(name) for name in PACKAGES),
        Finding("threads", True, f"{thread_count()} of {os.cpu_count()} processors"),
        _checked("cache", _cache),
        _template(),
        _checked("cord network", _network),
    )


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, f"absent; install it with 'pip install {name}'")


def _checked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except (QcordError, OSError, RuntimeError, ImportError) as error:
        return Finding(name, False, str(error))


def _cache() -> str:
    folder = cache_folder()
    require_writable(folder)
    free = shutil.disk_usage(folder).free / 1e9
    if free < FREE_DISK:
        raise OSError(f"{free:.1f} GB free for the cache, expected {FREE_DISK:g}; free some space")
    return f"writable, {free:.0f} GB free"


def _template() -> Finding:
    found = installed("pam50")
    detail = (
        "PAM50 is installed" if found else "PAM50 is not installed, the built-in template is used; see 'qcord assets'"
    )
    return Finding("template", True, detail)


def _network() -> str:
    """Find a bright cord in a plain image; a wrong answer means that the runtime of the network is broken."""
    from qcord.anatomy.segment import segment_cord
    from qcord.core.grid import Grid
    from qcord.core.image import Image

    grid = Grid((48, 48, 6), np.diag([0.8, 0.8, 5.0, 1.0]))
    x, y = np.meshgrid(np.arange(48) - 24, np.arange(48) - 24, indexing="ij")
    cord = ((x / 7.5) ** 2 + (y / 5.0) ** 2) <= 1
    canal = ((x / 13) ** 2 + (y / 10) ** 2) <= 1
    plane = np.where(cord, 300.0, np.where(canal, 900.0, 150.0))
    noise = np.random.default_rng(0).normal(0, 10, (48, 48, 6))
    found = segment_cord(Image(plane[..., None] + noise, grid), "T2w")
    truth = np.repeat(cord[..., None], 6, axis=2)
    mask = np.asarray(found.mask.data, dtype=bool)
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    if dice < 0.7:
        raise RuntimeError(f"finds a plain cord with an overlap of {dice:.2f}, expected 0.7; reinstall onnxruntime")
    return f"works (overlap {dice:.2f} on a drawn cord)"
