import re

import numpy as np
import pytest

from qcord.core.errors import UnknownName
from qcord.core.protocol import Protocol
from qcord.core.units import bids_unit
from qcord.models.registry import MODELS, get


@pytest.mark.parametrize("name", MODELS)
def test_models_state_units_sources_and_possible_starts(name):
    model = get(name)
    assert model.name == name
    for value in (*model.free, *model.given, *model.derived):
        assert bids_unit(value.unit)
    for parameter in (*model.free, *model.given):
        assert parameter.bounds[0] <= parameter.start <= parameter.bounds[1]
        assert parameter.description
    assert model.references
    assert all(re.search(r"\d{4}.*doi:10\.\d{4,}/", r) for r in model.references)


@pytest.mark.parametrize("name", MODELS)
def test_docstrings_of_signals_name_parameters_and_columns(name):
    model = get(name)
    text = model.signal.__doc__ or ""
    for word in (*(p.name for p in model.free), *model.needs, *(p.name for p in model.given), "doi:"):
        assert word in text


@pytest.mark.parametrize("name", MODELS)
def test_signals_are_float_and_read_only_what_they_need(name):
    model = get(name)
    protocol = Protocol({k: model.example().columns[k] for k in model.needs})
    theta = np.array([p.start for p in model.free])
    for batch in ((), (1,), (7, 8, 9)):
        signal = model.signal(np.broadcast_to(theta, (*batch, len(theta))), protocol, model.given_defaults())
        assert signal.shape == (*batch, len(protocol))
        assert signal.dtype == np.float64


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(UnknownName, match="expected one of tensor, .*mtsat"):
        get("tensr")
