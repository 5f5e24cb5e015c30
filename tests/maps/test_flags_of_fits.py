import numpy as np
import pytest

from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.models.registry import MODELS, get


@pytest.mark.parametrize("name", MODELS)
def test_a_regular_voxel_has_a_value_and_an_error_in_every_map(name):
    model = get(name)
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    clean = simulate(model, theta, protocol)
    sigma = float(np.abs(clean).max()) / 12
    noise = Gaussian(sigma) if (clean < 0).any() else Rician(sigma)
    shape = (4, 10, 10)
    measured = simulate(model, np.broadcast_to(theta, (*shape, len(theta))), protocol, noise, seed=5)
    method = "nonlinear" if name.startswith("mufa") else None  # of averages, which have no directions
    result = fit(name, Series(Image(measured, Grid(shape, np.eye(4))), protocol), method=method, noise=noise)
    regular = result.flag.data == Flag.OK
    for metric, image in result.maps.items():
        assert np.isfinite(image.data[regular]).all(), metric
        if metric in result.std:
            assert np.isfinite(result.std[metric].data[regular]).all(), metric
    gap = result.flag.data == Flag.NO_VALUE
    assert gap.any() == any(np.isnan(image.data[gap]).any() for image in result.maps.values())
