"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

from qcord.core.grid import Grid

ROOT = Path(__file__).resolve().parents[1]


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
