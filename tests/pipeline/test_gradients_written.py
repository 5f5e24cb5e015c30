import numpy as np
from scipy.spatial.transform import Rotation

from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.ingest.gradients import read_gradients
from qcord.ingest.series import stored_affine
from qcord.pipeline.outputs import write_gradients


def test_written_gradients_are_read_as_they_were(tmp_path, oblique_grid):
    frame = Rotation.random(4, random_state=7).as_matrix()
    first, second = frame[:, 0].copy(), frame[:, 1].copy()
    first[:1], second[:3] = 0, 0
    protocol = Protocol(
        {
            "BValue": [0.0, 700, 1400, 2000],
            "BDelta": [1, 0.25, 1, -0.5],
            "Direction": first,
            "SecondDirection": second,
        }
    )
    image = Image(np.zeros((*oblique_grid.shape, 4)), oblique_grid)
    write_gradients(tmp_path / "a_dwi.nii.gz", image, protocol)
    again = read_gradients(
        tmp_path / "a_dwi.bval",
        tmp_path / "a_dwi.bvec",
        stored_affine(image),
        4,
        bdelta=tmp_path / "a_dwi.bdelta",
        bvec2=tmp_path / "a_dwi.bvec2",
    )
    for name in protocol.columns:
        np.testing.assert_allclose(again[name], protocol[name], atol=2e-6)


def test_linear_encoding_is_written_in_two_files(tmp_path, oblique_grid):
    protocol = Protocol({"BValue": [0.0, 700], "Direction": np.array([[0, 0, 0], [0, 0, 1.0]])})
    write_gradients(tmp_path / "a_dwi.nii.gz", Image(np.zeros((*oblique_grid.shape, 2)), oblique_grid), protocol)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_dwi.bval", "a_dwi.bvec"]
