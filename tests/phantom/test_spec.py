import pytest

from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.phantom.spec import SERIES, Compression, Lesion, PhantomSpec, preset


@pytest.mark.parametrize("name", ["healthy", "compression", "lesion"])
def test_presets(name):
    spec = preset(name)
    assert spec.label == name
    assert (spec.compression is not None) == (name == "compression")
    assert (spec.lesion is not None) == (name == "lesion")
    assert spec.series == SERIES


def test_replace_leaves_the_rest():
    spec = preset("lesion").replace(seed=7)
    assert spec.seed == 7
    assert spec.lesion == Lesion()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: preset("ill"), UnknownName, "expected one of healthy, compression, lesion"),
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
    ],
)
def test_impossible_subjects(make, error, message):
    with pytest.raises(error, match=message):
        make()
