"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from qcord.core.grid import Grid
from qcord.pipeline.phantom import phantom
from qcord.pipeline.run import run

ROOT = Path(__file__).resolve().parents[1]

# The same examples on every machine, without a time limit; HYPOTHESIS_PROFILE=default looks for new ones.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real scans; tests that use it are skipped where it does not exist."""
    folder = Path(os.environ.get("QCORD_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip("the folder of real scans (QCORD_TEST_DATA) does not exist")
    return folder


@pytest.fixture
def oblique_grid() -> Grid:
    """Grid of unequal sizes whose axes are turned by 20 degrees about R and 7 about S."""
    a, b = np.deg2rad(20), np.deg2rad(7)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_s = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_s @ about_r @ np.diag([0.9, 1.1, 5.0])
    affine[:3, 3] = [-3, 12, 40]
    return Grid((7, 8, 9), affine)


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Raw data set of one healthy phantom."""
    return phantom(tmp_path_factory.mktemp("phantom") / "raw", seed=3)


@pytest.fixture(scope="session")
def output(raw, tmp_path_factory):
    """Its outputs, by one thread."""
    out = tmp_path_factory.mktemp("run") / "qcord"
    outcomes = run(raw, out, derivatives=[raw / "derivatives" / "landmarks"], template="qcord", n_threads=1)
    assert [o.error for o in outcomes] == [""]
    return out
