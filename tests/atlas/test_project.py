import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.anatomy.levels import levels_from_landmarks
from qcord.anatomy.register import centerline_of_cord, register
from qcord.atlas import project
from qcord.atlas.project import project_atlas
from qcord.core.image import Image
from qcord.core.labels import CSF
from qcord.phantom.spec import preset
from qcord.phantom.subject import make_subject
from qcord.pipeline.templates import load_template


@pytest.fixture(scope="module", params=[0.85, 1.1])
def scanned(request):
    """Cord of a phantom of some size on a diffusion grid, its true share of each voxel, and the registration."""
    template = load_template("qcord")
    spec = preset("healthy").replace(series=("dwi",), area_factor=request.param)
    subject = make_subject(spec)
    truth = subject.truth["dwi"]
    share = np.asarray(truth.cord.data, dtype=float)
    cord = Image(share.astype(np.float32), truth.cord.grid, "probability")
    discs = subject.landmarks[subject.landmarks["kind"] == "disc"]
    marks = {row.name: np.array([row.x, row.y, row.z]) for row in discs.itertuples(index=False)}
    levels = levels_from_landmarks(centerline_of_cord(cord), marks, template)
    return share, cord, register(cord, template, levels)


def cord_of(atlas):
    share = np.zeros(atlas.grid.shape)
    inner = [k for k, name in enumerate(atlas.regions) if name != CSF]
    share[tuple(atlas.index.T)] = atlas.weights[:, inner].sum(axis=1)
    return share


def test_voxels_inside_the_edge_hold_no_fluid(scanned):
    share, cord, registration = scanned
    found = cord_of(project_atlas(registration, cord))
    assert found[share == 1].mean() > 0.995
    assert found.sum() == pytest.approx(share.sum(), rel=0.015)
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 0.99)):
        part = (share > low) & (share < high)
        assert found[part].mean() == pytest.approx(share[part].mean(), abs=0.03)


def test_the_edge_of_a_template_as_it_stands_would_put_fluid_there(scanned, monkeypatch):
    share, cord, registration = scanned
    sharp = 1 - cord_of(project_atlas(registration, cord))[share == 1]
    monkeypatch.setattr(project, "BLURRED", 0.0)
    blurred = 1 - cord_of(project_atlas(registration, cord))[share == 1]
    assert blurred.mean() > 3 * sharp.mean()


@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 5.0]))
@settings(max_examples=40, deadline=None)
def test_sharpening_moves_only_between_cord_and_fluid(seed, steep):
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet([0.5] * 5, 30) * generator.choice([1.0, 0.7, 0.0], (30, 1))
    fluid = np.array([False, False, False, False, True])
    found = project._sharpened(weights, fluid, steep)
    np.testing.assert_allclose(found.sum(axis=1), weights.sum(axis=1), atol=1e-12)
    assert (found >= 0).all()
    cord, after = weights[:, :4].sum(axis=1), found[:, :4].sum(axis=1)
    more = cord > weights[:, 4]
    assert (after[more] >= cord[more] - 1e-12).all()
    assert (after[~more] <= cord[~more] + 1e-12).all()
    both = (cord > 1e-9) & (after > 1e-9)
    np.testing.assert_allclose(found[both, :4] / after[both, None], weights[both, :4] / cord[both, None], atol=1e-9)


def test_fluid_and_cord_alone_stay_as_they_are():
    pure = np.eye(3)
    np.testing.assert_array_equal(project._sharpened(pure, np.array([False, False, True]), 2.0), pure)
