"""Kind of contrast from names and sidecars."""

import numpy as np
import pytest

from qcord.anatomy.contrast import POLARITY, contrast_of
from qcord.core.entities import Entities
from qcord.core.grid import Grid
from qcord.core.image import Image


def image(name, **metadata):
    entities = Entities.parse(name) if name else Entities()
    return Image(np.zeros((3, 4, 5)), Grid((3, 4, 5), np.eye(4)), entities=entities, metadata=metadata)


@pytest.mark.parametrize(
    ("name", "metadata", "kind"),
    [
        ("sub-1_T2w.nii.gz", {}, "T2w"),
        ("sub-1_acq-ax_T2w.nii.gz", {}, "T2w"),
        ("sub-1_T2star.nii.gz", {}, "T2star"),
        ("sub-1_T2starw.nii.gz", {}, "T2star"),
        ("sub-1_echo-1_MEGRE.nii.gz", {}, "T2star"),
        ("sub-1_T1w.nii.gz", {}, "T1w"),
        ("sub-1_dwi.nii.gz", {}, "dwi"),
        ("sub-1_desc-b0_dwi.nii.gz", {}, "b0"),
        ("sub-1_task-rest_bold.nii.gz", {}, "bold"),
        ("sub-1_flip-1_mt-on_MTS.nii.gz", {}, "MTon"),
        ("sub-1_flip-1_mt-off_MTS.nii.gz", {"MTState": True}, "MToff"),
        ("sub-1_flip-2_mt-off_MTS.nii.gz", {}, "T1w"),
        ("sub-1_acq-T1w_MTS.nii.gz", {}, "T1w"),
        ("sub-1_mt-on_MTR.nii.gz", {}, "MTon"),
        ("sub-1_acq-a_MTR.nii.gz", {"MTState": False}, "MToff"),
        ("sub-1_acq-a_MTR.nii.gz", {"MTState": True}, "MTon"),
        ("sub-1_MTR.nii.gz", {}, None),
        ("sub-1_FLAIR.nii.gz", {}, None),
        ("", {}, None),
    ],
)
def test_kind(name, metadata, kind):
    assert contrast_of(image(name, **metadata)) == kind
    assert kind is None or kind in POLARITY
