"""Any registered model can be scanned: its example protocol, or one of the user's."""

import numpy as np
import pytest

from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.core.units import bids_unit
from qcord.models import registry
from qcord.models.tensor import TENSOR
from qcord.phantom import checks, parameters, scan, spec
from qcord.phantom.acquisition import scan_acquisition
from qcord.phantom.body import make_body
from qcord.phantom.contrast import rotation_between, tissue_signal
from qcord.phantom.facts import Facts
from qcord.phantom.parameters import fibre_axis, model_metrics, oriented, theta_of, typical_values, unmodelled
from qcord.phantom.scan import Scan, half_sphere, prepared, suggested_suffix
from qcord.phantom.spec import Lesion, PhantomSpec
from qcord.phantom.subject import bids_images, make_subject

EXAMPLES = [name for name, model in registry.MODELS.items() if model.example is not None]
SMALL = (34, 28, 3)


def _scanned(name, **settings):
    small = Scan(name, name="x", matrix=SMALL, **settings)
    return make_subject(PhantomSpec(series=("x",), scans=(small,)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_model_with_an_example_can_be_scanned(name):
    """Files, tables and maps are there, and pure voxels hold the signal of the values that the maps state."""
    model = registry.get(name)
    subject = _scanned(name, source="model")
    series, truth = subject.series["x"], subject.truth["x"]
    assert np.isfinite(series.data).all()
    assert truth.sigma > 0
    names = [image.entities.name for image in bids_images(subject)]
    assert len(set(names)) == len(names)
    required = {"MTS": "MTState", "MTR": "MTState", "MESE": "EchoTime", "VFA": "FlipAngle", "IRT1": "InversionTime"}
    for image in bids_images(subject):
        field = required.get(image.entities.suffix, "MagneticFieldStrength")
        assert image.metadata[field] is not None, "BIDS asks for it"
    metrics = model_metrics(model)
    assert set(metrics) <= set(truth.maps)
    rows = subject.regions[(subject.regions["region"] == "white matter") & (subject.regions["level"] == "C3")]
    assert set(metrics) <= set(rows["metric"])
    assert all(bids_unit(unit) for unit in rows["unit"])
    assert rows["value"].notna().all()
    pure = np.argwhere(truth.weights[:, [4]].toarray().reshape(truth.cord.data.shape) > 0.99)
    assert len(pure) > 0
    free = [p.name for p in model.free]
    if any(oriented(p) for p in free):
        return
    place = tuple(pure[0])
    theta = np.array([float(truth.maps[p].data[place]) if p in truth.maps else 1.0 for p in free])
    scale = [k for k, p in enumerate(model.free) if p.unit == "1" and np.isinf(p.bounds[1])]
    if len(scale) > 1:
        return
    given = model.given_defaults()
    for k, parameter in enumerate(model.given):
        if parameter.name == "R1":
            given[k] = 1 / 0.863
    expected = np.asarray(model.signal(theta, series.protocol, given), dtype=float)
    found = truth.noise_free.data[place].astype(float)
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=3e-3)


def _decay(name="decay", **changes):
    """A model that no one has registered: amplitude, a rate of its own, an angle, a fraction."""

    def signal(theta, protocol, given):
        return theta[..., :1] * np.exp(-theta[..., 1:2] * protocol["EchoTime"]) * (1 - theta[..., 2:3])

    settings = {
        "free": (
            Parameter("Strength", "1", (0.0, np.inf), 1.0, "amplitude"),
            Parameter("Rate", "1/s", (0.0, 100.0), 5.0, "a rate"),
            Parameter("MWF", "1", (0.0, 1.0), 0.1, "a fraction"),
        ),
        "needs": ("EchoTime",),
        "signal": signal,
        "references": ("Nobody 2026, doi:10.1000/182",),
        "example": lambda: Protocol({"EchoTime": [0.01, 0.02, 0.05]}),
        "typical": (
            Typical("white matter, 3 T", {"Strength": 500.0, "Rate": 10.0, "MWF": 0.2}, "none", "assumed"),
            Typical("white matter, 7 T", {"Strength": 500.0, "Rate": 14.0, "MWF": 0.2}, "none", "assumed"),
            Typical("grey matter, 3 T", {"Strength": 600.0, "Rate": 8.0, "MWF": 0.1}, "none", "assumed"),
        ),
    }
    return SignalModel(name, **{**settings, **changes})


@pytest.fixture
def unheard(monkeypatch):
    model = _decay()
    models = {**registry.MODELS, "decay": model}
    for module in (registry, checks, spec):
        monkeypatch.setattr(module, "MODELS", models)
    return model


def test_a_model_that_was_never_heard_of(unheard):
    """Typical values by tissue and field strength, density as amplitude, lesions by the metric that it follows."""
    whole = PhantomSpec(series=("decay",), lesions=(Lesion("C3", factors={"MTsat": 0.5, "Rate": 2.0}, radius=4.0),))
    facts = Facts.of(whole)
    height = np.array([-120.0, facts.lesions[0].centre[2]])
    sound, hurt = facts.tissue(height), facts.tissue(height, 1)
    white, gray = sound.kinds.index("white matter"), sound.kinds.index("gray matter")
    theta, damaged = theta_of(unheard, sound), theta_of(unheard, hurt)
    np.testing.assert_allclose(theta[0, white], [70, 10, 0.2])
    np.testing.assert_allclose(theta[0, gray], [80, 8, 0.1])
    np.testing.assert_allclose(damaged[1, white], [70, 20, 0.1])
    assert theta_of(unheard, sound, 7.0)[0, white, 1] == 14.0
    assert typical_values(unheard, "fluid")["MWF"] == 0.0
    plan = scan_acquisition(Scan("decay"), make_body(whole))
    signal = tissue_signal(plan, sound, np.tile([0.0, 0, 1], (2, 1)), gradient_echo="mtsat")
    np.testing.assert_allclose(signal[0, white], 70 * np.exp(-10 * np.array([0.01, 0.02, 0.05])) * 0.8)
    subject = make_subject(whole.replace(scans=(Scan("decay", matrix=SMALL),)))
    values = subject.regions.set_index(["region", "level", "metric"])["value"]
    assert values["GM left dorsal horn", "C5", "Rate"] == pytest.approx(8.0)
    assert bids_images(subject)[0].entities.name == "sub-phantom_acq-decay_echo-1_MESE.nii.gz"


def test_what_a_model_leaves_out_is_weighted_by_the_tissue(unheard):
    """Recovery and decay that the protocol has and the formula has not."""
    tissue = Facts.of(PhantomSpec(series=())).tissue(np.array([-120.0]))
    protocol = Protocol({"EchoTime": [0.01, 0.02], "RepetitionTime": [1.0, 2.0]})
    found = unmodelled(unheard, tissue, protocol)[0, 0]
    np.testing.assert_allclose(found, 1 - np.exp(-np.array([1.0, 2.0]) / tissue["T1"][0, 0]))
    blind = _decay(needs=("SliceThickness",))
    protocol = Protocol({"EchoTime": [0.01], "RepetitionTimeExcitation": [0.03], "FlipAngle": [20.0]})
    e1, a = np.exp(-0.03 / tissue["T1"][0, 0]), np.deg2rad(20)
    ernst = np.sin(a) * (1 - e1) / (1 - np.cos(a) * e1)
    assert unmodelled(blind, tissue, protocol)[0, 0, 0] == pytest.approx(ernst * np.exp(-0.01 / tissue["T2star"][0, 0]))


def test_models_with_directions_are_turned_into_the_cord():
    """The tensor by its own formula, whose typical fibres point up, along any axis."""
    g = half_sphere(12)
    protocol = Protocol({"BValue": np.full(12, 900.0), "Direction": g})
    plan = scan_acquisition(Scan("tensor", protocol, source="model"), make_body(PhantomSpec()))
    tissue = Facts.of(PhantomSpec(series=())).tissue(np.array([-120.0, -130.0]))
    tangent = np.array([[0, 0.6, 0.8], [0.36, 0.48, 0.8]])
    found = tissue_signal(plan, tissue, tangent, gradient_echo="mtsat")
    column = tissue.kinds.index("gray matter")
    typical = typical_values(TENSOR, "gray matter")
    along, across = max(typical[d] for d in ("Dxx", "Dyy", "Dzz")), min(typical[d] for d in ("Dxx", "Dyy", "Dzz"))
    shape = np.exp(-900 * (across + (along - across) * (tangent @ g.T) ** 2))
    np.testing.assert_allclose(
        found[:, column] / found[:, column].max(axis=1)[:, None], shape / shape.max(axis=1)[:, None], rtol=1e-4
    )


@pytest.mark.parametrize("axis", [[0, 0, 1], [0.6, 0.48, 0.64], [1, 0, 0]])
def test_axis_of_a_model_is_found(axis):
    axis = np.array(axis, dtype=float)
    x, y, z = axis
    theta = np.array([1.0, *(0.5e-3 + 1.4e-3 * axis**2), *(1.4e-3 * np.array([x * y, x * z, y * z]))])
    found = fibre_axis(TENSOR, theta, registry.get("tensor").example())
    assert abs(found @ axis) == pytest.approx(1.0, abs=1e-9)
    round_tensor = np.array([1.0, 1e-3, 1e-3, 1e-3, 0, 0, 0])
    np.testing.assert_array_equal(fibre_axis(TENSOR, round_tensor, registry.get("tensor").example()), [0, 0, 1])


def test_shortest_rotation():
    first, second = np.array([0.0, 0.6, 0.8]), np.array([0.0, 0.0, 1.0])
    turn = rotation_between(first, second)
    np.testing.assert_allclose(turn @ first, second, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn @ [1, 0, 0], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"BValue": [0.0, 800], "Direction": np.zeros((2, 3))}, "dwi"),
        ({"MTState": np.array([True, False]), "FlipAngle": [9.0, 9.0]}, "MTR"),
        ({"MTState": np.array([True, False, False]), "FlipAngle": [9.0, 9.0, 15.0]}, "MTS"),
        ({"MTState": np.array([True, False]), "FlipAngle": [6.0, 20.0], "EchoTime": [0.002, 0.004]}, "MPM"),
        ({"FlipAngle": [4.0, 20.0], "RepetitionTimeExcitation": [0.02, 0.02]}, "VFA"),
        ({"InversionTime": [0.1, 0.9]}, "IRT1"),
        ({"InversionTime": [0.7, 2.5], "NumberShots": [100.0, 100.0]}, "MP2RAGE"),
        ({"EchoTime": [0.002, 0.004, 0.006]}, "MEGRE"),
    ],
)
def test_suffix_follows_the_columns(columns, expected):
    assert suggested_suffix("mtr", Protocol(columns)) == expected


def test_protocols_without_directions_get_some():
    powder = prepared(Protocol({"BValue": [0.0, 1000, 1000], "BDelta": [0.0, 1.0, 0.0]}))
    assert len(powder) == 1 + 12 + 12
    linear = (powder["BDelta"] == 1) & (powder["BValue"] > 0)
    np.testing.assert_allclose(np.linalg.norm(powder["Direction"][linear], axis=1), 1)
    assert not powder["Direction"][~linear].any()
    several = prepared(Protocol({"BValue": [0.0, 0, 500, 500, 500]}))
    assert len(several) == 5
    assert np.linalg.matrix_rank(several["Direction"]) == 3
    assert (several["EchoTime"] == 0.075).all()


def test_own_protocol_geometry_and_truth():
    protocol = Protocol(
        {
            "BValue": np.repeat([0.0, 700.0, 2200.0], [2, 8, 8]),
            "Direction": np.concatenate([np.zeros((2, 3)), half_sphere(8), half_sphere(8)]),
        }
    )
    mine = Scan("tensor", protocol, name="my scan", matrix=(30, 26, 4), pixel=1.1, thickness=4.0, snr=50.0)
    assert mine.by_compartments
    assert not Scan("tensor").by_compartments
    subject = make_subject(PhantomSpec(series=("my scan",), scans=(mine,)))
    series, truth = subject.series["my scan"], subject.truth["my scan"]
    assert series.data.shape == (30, 26, 4, 18)
    assert series.image.grid.spacing == pytest.approx((1.1, 1.1, 4.0))
    assert series.image.entities.name == "sub-phantom_acq-myscan_dwi.nii.gz"
    assert {"FA", "MD", "ICVF", "ODI", "ISOVF", "tensor"} <= set(truth.maps)
    pure = truth.white.data > 0.99
    signal = truth.noise_free.data[pure]
    # kurtosis: the drop over the second shell is less than that of one exponential
    first, second = (
        np.log(signal[:, 0] / signal[:, 2:10].mean(axis=1)),
        np.log(signal[:, 0] / signal[:, 10:].mean(axis=1)),
    )
    assert (second < 0.9 * first * 2200 / 700).all()
    white = truth.noise_free.data[pure][:, 0].mean() / truth.sigma
    assert white == pytest.approx(50, rel=0.15)


def test_apparent_values_are_what_the_model_gives_without_noise():
    """Mean signal of two shells by a tensor: its apparent MD lies below the true one, by kurtosis."""
    from qcord.phantom.apparent import apparent_values

    tissue = Facts.of(PhantomSpec(series=(), lesions=(Lesion(),))).tissue(np.array([-120.0, -121.0]), 1)
    protocol = Scan(
        "tensor",
        Protocol(
            {"BValue": np.repeat([0.0, 800], [1, 30]), "Direction": np.concatenate([np.zeros((1, 3)), half_sphere(30)])}
        ),
    ).settings
    found = apparent_values("tensor", tissue, protocol)
    assert set(found) == set(model_metrics(TENSOR))
    assert found["FA"].shape == tissue["FA"].shape
    np.testing.assert_array_equal(found["FA"][0], found["FA"][1])
    from qcord.phantom.facts import compartment_values

    truth = compartment_values(tissue)
    assert (found["MD"] < truth["MD"]).all()
    np.testing.assert_allclose(found["MD"], truth["MD"], rtol=0.2)


def test_rules_name_only_what_tissues_have():
    tissue = Facts.of(PhantomSpec(series=())).tissue(np.array([-120.0]))
    for name, rule in parameters.RULES.items():
        assert np.isfinite(rule(tissue)).all(), name
    assert scan.SOURCES == ("", "model", "compartments")
