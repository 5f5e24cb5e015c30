import pytest

from qcord.core.errors import ImplausibleValue, MissingMetadata, UnknownName
from qcord.core.protocol import Protocol
from qcord.phantom.effects import Effects, usual_effects
from qcord.phantom.scan import Scan
from qcord.phantom.spec import SERIES, Compression, Lesion, PhantomSpec, preset


@pytest.mark.parametrize(
    ("name", "pinched", "lesions"),
    [("healthy", False, 0), ("dcm", True, 2), ("ms", False, 4), ("compression", True, 0), ("lesion", False, 1)],
)
def test_presets(name, pinched, lesions):
    spec = preset(name)
    assert spec.label == name
    assert (spec.compression is not None) == pinched
    assert len(spec.lesions) == lesions
    assert spec.series == SERIES
    assert spec.effects == Effects(), "nothing goes wrong unless it is asked for"


def test_replace_leaves_the_rest():
    spec = preset("lesion").replace(seed=7)
    assert spec.seed == 7
    assert spec.lesions == (Lesion(),)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: preset("ill"), UnknownName, "expected one of healthy, dcm, ms"),
        (lambda: Compression(disc="C9/C10"), UnknownName, "not a disc"),
        (lambda: Compression(severity=1.2), ImplausibleValue, "severity of the compression is 1.2"),
        (lambda: Lesion(tract="pyramid"), UnknownName, "not a tract"),
        (lambda: Lesion(side="middle"), UnknownName, "left, right"),
        (lambda: Lesion(radius=0.0), ImplausibleValue, "radius of the lesion"),
        (lambda: Lesion(factors={"FAA": 0.5}), UnknownName, "not a metric"),
        (lambda: PhantomSpec(series=("T3w",)), UnknownName, "not a series"),
        (lambda: PhantomSpec(snr={"T2w": 20}), ImplausibleValue, "SNR of T2star is 0"),
        (lambda: PhantomSpec(area_factor=9), ImplausibleValue, "area_factor is 9"),
        (lambda: PhantomSpec(gradient_echo="vfa"), UnknownName, "mtsat-ernst"),
        (lambda: PhantomSpec(motion_mm=-1), ImplausibleValue, "motion_mm"),
        (lambda: PhantomSpec(tesla=4.7), ImplausibleValue, "4.7, expected one of 1.5, 3.0, 7.0 T"),
        (lambda: PhantomSpec(factors={"FAA": 2.0}), UnknownName, "not a metric"),
        (lambda: PhantomSpec(levels={"FA": {"C9": 0.9}}), UnknownName, "not a level"),
        (lambda: Effects(channels=0), ImplausibleValue, "channels is 0"),
        (lambda: Effects(combination="mean"), UnknownName, "adaptive, sum-of-squares"),
        (lambda: usual_effects("ghosts"), UnknownName, "not an effect"),
        (lambda: Scan("tensr"), UnknownName, "no model"),
        (lambda: Scan("tensor", Protocol({"BValue": [0.0]})), MissingMetadata, "Direction is absent"),
    ],
)
def test_impossible_subjects(make, error, message):
    with pytest.raises(error, match=message):
        make()
