import numpy as np
import pytest

from decay_model import DECAY, REFERENCE, S0
from qcord.core.errors import ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.compare import corrected_criterion, support
from qcord.estimate.fit import fit
from qcord.estimate.simulate import simulate

CONSTANT = SignalModel("constant", (S0,), ("EchoTime",), lambda t, p, g: t[..., :1] + 0 * p["EchoTime"], REFERENCE)
ECHOES = Protocol({"EchoTime": np.arange(1, 13) * 4e-3})
GRID = Grid((6, 5, 4), np.eye(4))


def fits_of(rate):
    theta = np.broadcast_to([500.0, rate], (*GRID.shape, 2))
    series = Series(Image(simulate(DECAY, theta, ECHOES, Gaussian(5.0), seed=1), GRID), ECHOES)
    return {m.name: fit(m, series, noise=Gaussian(5.0)) for m in (CONSTANT, DECAY)}


def test_criterion_is_the_formula_of_the_paper():
    squares, n, p = np.array([12.0]), 10, 3
    by_hand = 10 * np.log(1.2) + 2 * 4 + 2 * 4 * 5 / (10 - 4 - 1)
    np.testing.assert_allclose(corrected_criterion(squares, n, p), by_hand)
    assert np.isnan(corrected_criterion(squares, 5, 3)).all()


def test_the_model_that_made_the_data_is_supported():
    falling, level = (support(fits_of(rate)) for rate in (30.0, 0.0))
    assert np.all(falling["decay"].data > 0.999)
    assert np.median(level["constant"].data) > 0.6
    np.testing.assert_allclose(falling["decay"].data + falling["constant"].data, 1, rtol=1e-6)


def test_fits_of_other_measurements_are_refused():
    fits = fits_of(30.0)
    theta = np.broadcast_to([500.0, 30.0], (*GRID.shape, 2))
    short = ECHOES.take(np.arange(6))
    other = fit(DECAY, Series(Image(simulate(DECAY, theta, short), GRID), short))
    with pytest.raises(ImplausibleValue, match="expected two or more of the same measurements"):
        support({**fits, "decay": other})
    with pytest.raises(ImplausibleValue, match="expected two or more"):
        support({"decay": other})
