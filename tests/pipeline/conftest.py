"""One phantom subject, run once, for all tests of the pipeline."""

import pytest

from qcord.pipeline.phantom import phantom
from qcord.pipeline.run import run


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
