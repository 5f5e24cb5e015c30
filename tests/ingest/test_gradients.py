import numpy as np
import pytest

from qcord.core.errors import ImplausibleValue, MissingMetadata, UnreadableFile
from qcord.ingest.gradients import read_gradients, to_fsl, to_world

B = np.array([0, 800, 800, 5, 1000.0])
V = np.array([[0, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 0], [0, 0, -1.0]])


def write(folder, b=B, v=V.T, sep=" "):
    (folder / "a.bval").write_text(sep.join(map(str, b)) + "\n")
    (folder / "a.bvec").write_text("\n".join(sep.join(map(str, row)) for row in v) + "\n")
    return folder / "a.bval", folder / "a.bvec"


@pytest.mark.parametrize("layout", [V.T, V])
@pytest.mark.parametrize("sep", [" ", "\t", ", "])
def test_both_layouts_give_the_same_directions(tmp_path, layout, sep):
    protocol = read_gradients(*write(tmp_path, v=layout, sep=sep), np.diag([-1.0, 1, 1, 1]), 5)
    np.testing.assert_allclose(protocol["BValue"], B)
    np.testing.assert_allclose(protocol["Direction"], V * [-1, 1, 1], atol=1e-12)


def test_x_is_reversed_for_a_positive_determinant():
    v = np.array([[0.6, 0.8, 0]])
    np.testing.assert_allclose(to_world(v, np.diag([2.0, 2, 2, 1])), [[-0.6, 0.8, 0]])
    np.testing.assert_allclose(to_world(v, np.diag([-2.0, 2, 2, 1])), [[-0.6, 0.8, 0]])


def test_world_and_file_directions_are_inverse(oblique_grid):
    v = np.random.default_rng(1).normal(size=(6, 3))
    np.testing.assert_allclose(to_fsl(to_world(v, oblique_grid.affine), oblique_grid.affine), v, atol=1e-12)


def test_directions_are_made_unit_vectors(tmp_path):
    protocol = read_gradients(*write(tmp_path, v=0.9 * V.T), np.eye(4), 5)
    np.testing.assert_allclose(np.linalg.norm(protocol["Direction"], axis=1), [0, 1, 1, 0, 1])


def test_wrong_numbers_and_missing_directions(tmp_path):
    with pytest.raises(ImplausibleValue, match="describes 5 volumes, the image has 6"):
        read_gradients(*write(tmp_path), np.eye(4), 6)
    lacking = V.copy()
    lacking[2] = 0
    with pytest.raises(ImplausibleValue, match="no direction for volume 2"):
        read_gradients(*write(tmp_path, v=lacking.T), np.eye(4), 5)
    with pytest.raises(ImplausibleValue, match="expected 3 x n"):
        read_gradients(*write(tmp_path, v=V[:, :2]), np.eye(4), 5)
    with pytest.raises(MissingMetadata, match=r"none\.bval"):
        read_gradients(tmp_path / "none.bval", tmp_path / "a.bvec", np.eye(4), 5)
    (tmp_path / "bad.bvec").write_text("a b c")
    with pytest.raises(UnreadableFile, match="rows of numbers"):
        read_gradients(tmp_path / "a.bval", tmp_path / "bad.bvec", np.eye(4), 5)


@pytest.mark.parametrize("text", ["1 1 0 1 -0.5", "LTE\nlte\nSTE\n1\nPTE\n", "linear, 1, spherical, 1.0, planar"])
def test_shapes_are_numbers_or_words(tmp_path, text):
    (tmp_path / "a.bdelta").write_text(text)
    protocol = read_gradients(*write(tmp_path), np.eye(4), 5, bdelta=tmp_path / "a.bdelta")
    np.testing.assert_allclose(protocol["BDelta"], [1, 1, 0, 1, -0.5])
    assert protocol.source == "a.bval, a.bvec and a.bdelta"


def test_spherical_volumes_alone_need_no_direction(tmp_path):
    lacking = V.copy()
    lacking[2] = 0
    (tmp_path / "a.bdelta").write_text("1 1 0 1 1")
    protocol = read_gradients(*write(tmp_path, v=lacking.T), np.eye(4), 5, bdelta=tmp_path / "a.bdelta")
    assert not protocol["Direction"][2].any()
    (tmp_path / "a.bdelta").write_text("1 1 0.2 1 1")
    with pytest.raises(ImplausibleValue, match="no direction for volume 2"):
        read_gradients(*write(tmp_path, v=lacking.T), np.eye(4), 5, bdelta=tmp_path / "a.bdelta")


def test_wrong_shapes_are_named(tmp_path):
    file = tmp_path / "a.bdelta"
    for text, error, words in [
        ("1 1 0", ImplausibleValue, "a.bdelta describes 3 volumes, the image has 5"),
        ("1 1 0 1 round", UnreadableFile, "a.bdelta holds something other than numbers and the words LTE"),
        ("1 1 0 1 -1", ImplausibleValue, "BDelta in a.bval, a.bvec and a.bdelta is -1, expected -0.5 to 1"),
    ]:
        file.write_text(text)
        with pytest.raises(error, match=words):
            read_gradients(*write(tmp_path), np.eye(4), 5, bdelta=file)


def test_second_directions_turn_with_the_first(tmp_path, oblique_grid):
    second = np.roll(V, 1, axis=1)
    (tmp_path / "a.bvec2").write_text("\n".join(" ".join(map(str, row)) for row in 0.98 * second))
    protocol = read_gradients(*write(tmp_path), oblique_grid.affine, 5, bvec2=tmp_path / "a.bvec2")
    for name, expected in (("Direction", V), ("SecondDirection", second)):
        np.testing.assert_allclose(to_fsl(protocol[name], oblique_grid.affine), expected, atol=1e-12)
    lacking = V.copy()
    lacking[2] = 0
    (tmp_path / "a.bdelta").write_text("1 1 0 1 1")
    with pytest.raises(ImplausibleValue, match="a.bvec2 gives volume 2 a second direction, a.bvec gives it no first"):
        read_gradients(
            *write(tmp_path, v=lacking.T), np.eye(4), 5, bdelta=tmp_path / "a.bdelta", bvec2=tmp_path / "a.bvec2"
        )


@pytest.mark.parametrize("length", [0.2, 1.7])
def test_directions_of_one_length_are_made_unit_vectors(tmp_path, length):
    protocol = read_gradients(*write(tmp_path, v=length * V.T), np.eye(4), 5)
    np.testing.assert_allclose(to_fsl(protocol["Direction"], np.eye(4)), V, atol=1e-6)


def test_directions_of_unequal_length_at_one_b_value_are_refused(tmp_path):
    """Either they were never made unit vectors, or their square is the share of the b-value."""
    scaled = V.copy()
    scaled[2] *= np.sqrt(0.5)
    with pytest.raises(ImplausibleValue, match="length 0.707 and 1 at b = 800"):
        read_gradients(*write(tmp_path, v=scaled.T), np.eye(4), 5)
    shells = np.array([0, 400, 800, 5, 400.0])
    scaled = V * np.sqrt(shells / 800)[:, None]
    protocol = read_gradients(*write(tmp_path, b=shells, v=scaled.T), np.eye(4), 5)
    np.testing.assert_allclose(to_fsl(protocol["Direction"], np.eye(4)), V, atol=1e-6)


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (B / 1000, "is 1, expected hundreds of s/mm2 .often ms/um2"),
        (np.where(B == 1000, np.nan, B), "gives volume 4 the b-value nan"),
        (np.where(B == 1000, np.inf, B), "gives volume 4 the b-value inf"),
    ],
)
def test_b_values_that_are_none(tmp_path, b, words):
    with pytest.raises(ImplausibleValue, match=words):
        read_gradients(*write(tmp_path, b=b), np.eye(4), 5)


def test_infinite_directions_ragged_rows_and_byte_order_marks(tmp_path):
    odd = V.copy()
    odd[2, 1] = np.inf
    with pytest.raises(ImplausibleValue, match="no direction for volume 2"):
        read_gradients(*write(tmp_path, v=odd.T), np.eye(4), 5)
    bval, bvec = write(tmp_path)
    bval.write_text("\ufeff" + bval.read_text(), encoding="utf-8")
    assert read_gradients(bval, bvec, np.eye(4), 5)["BValue"][4] == 1000
    bvec.write_text("0 1 0 0 0\n0 0 0.6 0\n0 0 0.8 0 -1\n")
    with pytest.raises(ImplausibleValue, match="rows of 4 and of 5 numbers"):
        read_gradients(bval, bvec, np.eye(4), 5)
