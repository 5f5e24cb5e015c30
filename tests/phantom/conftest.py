import pytest

from qcord.phantom.spec import Compression, Lesion, PhantomSpec
from qcord.phantom.subject import PhantomSubject, make_subject


@pytest.fixture(scope="session")
def healthy() -> PhantomSubject:
    """All series of a healthy subject."""
    return make_subject(PhantomSpec(label="healthy", seed=3))


@pytest.fixture(scope="session")
def injured() -> PhantomSubject:
    """Diffusion and transfer series of a subject with a compression and a lesion."""
    spec = PhantomSpec(
        label="injured",
        seed=4,
        compression=Compression("C5/C6", 0.4, 14.0),
        lesions=(Lesion("C3", "fasciculus gracilis", "right", 1.8, 12.0),),
        series=("dwi", "MTS"),
    )
    return make_subject(spec)
