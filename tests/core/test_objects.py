import numpy as np
import pytest

from qcord.core import errors
from qcord.core.entities import Entities
from qcord.core.errors import (
    EmptyRegion,
    GridMismatch,
    ImplausibleValue,
    MissingMetadata,
    QcordError,
    UnitMismatch,
    UnknownName,
)
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image, Step, mask_of
from qcord.core.labels import (
    CLUSTERS,
    COMBINED,
    COMBINED_NUMBERS,
    CSF,
    DISCS,
    TRACTS,
    VERTEBRAE,
    disc_name,
    regions_of,
    vertebra_name,
    vertebra_number,
)
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.core.threads import limit_threads, thread_count
from qcord.core.units import bids_unit, require_plausible, require_unit

GRID = Grid((3, 4, 5), np.diag([1.0, 2, 3, 1]))


def test_all_errors_of_users_share_one_root():
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    for kind in kinds:
        assert issubclass(kind, QcordError) or issubclass(kind, UserWarning)
    assert issubclass(QcordError, ValueError)


def test_entities_are_parsed_ordered_and_replaced():
    name = Entities.parse("sub-01_ses-a_acq-ax_run-2_T2w.nii.gz")
    assert dict(name) == {"sub": "01", "ses": "a", "acq": "ax", "run": "2"}
    assert name.suffix == "T2w"
    assert name.replace(desc="se", label="SC", acq=None).name == "sub-01_ses-a_run-2_label-SC_desc-se_T2w.nii.gz"
    made = Entities.of("dwimap", param="fa", model="tensor", sub="01", desc="se")
    assert made.name == "sub-01_model-tensor_param-fa_desc-se_dwimap.nii.gz"
    assert Entities.of("xfm", from_="T2w", to="PAM50", sub="1", mode="image").name == (
        "sub-1_from-T2w_to-PAM50_mode-image_xfm.nii.gz"
    )
    assert name.session_prefix == "sub-01_ses-a"
    for wrong in ("notbids_T2w.nii", "sub-01.nii.gz"):
        with pytest.raises(UnknownName):
            Entities.parse(wrong)


def test_image_checks_its_shape_and_keeps_history():
    with pytest.raises(GridMismatch, match=r"\(3, 4, 6\)"):
        Image(np.zeros((3, 4, 6)), GRID)
    image = Image(np.zeros((3, 4, 5, 2)), GRID, source="a.nii")
    derived = image.derive(np.ones((3, 4, 5)), Step("mean"), unit="s")
    assert derived.history[-1].name == "mean"
    assert derived.unit == "s"
    assert (image.n_volumes, derived.n_volumes) == (2, 1)
    assert image.volume(1).data.shape == (3, 4, 5)


def test_masks_are_booleans_on_the_grid():
    data = np.zeros((3, 4, 5))
    with pytest.raises(EmptyRegion, match="holds no voxel"):
        mask_of(Image(data, GRID, source="mask.nii"), GRID)
    data[1, 1, 1], data[2, 2, 2] = 0.7, np.nan
    assert mask_of(Image(data, GRID), GRID).sum() == 1
    assert mask_of(None, GRID).all()
    with pytest.raises(GridMismatch):
        mask_of(Image(data, GRID), Grid((3, 4, 5), np.eye(4)))


def test_protocol_names_what_is_missing():
    protocol = Protocol({"FlipAngle": [9, np.nan], "MTState": [True, False]}, "a.json")
    assert len(protocol) == 2
    assert protocol.has("MTState")
    assert not protocol.has("FlipAngle")
    with pytest.raises(MissingMetadata, match="FlipAngle is absent from a.json"):
        protocol["FlipAngle"]
    with pytest.raises(MissingMetadata, match="EchoTime"):
        protocol["EchoTime"]
    full = protocol.replace(FlipAngle=[9, 15], RepetitionTimeExcitation=0.03)
    assert full["RepetitionTimeExcitation"].tolist() == [0.03, 0.03]
    assert full.take([True, False])["FlipAngle"].tolist() == [9]
    with pytest.raises(ImplausibleValue, match="milliseconds"):
        Protocol({"RepetitionTimeExcitation": [35.0]})
    with pytest.raises(ImplausibleValue, match="differ in length"):
        Protocol({"FlipAngle": [9.0], "MTState": [True, False]})


def test_series_needs_one_row_a_volume():
    image = Image(np.zeros((3, 4, 5, 2)), GRID, source="a.nii")
    with pytest.raises(GridMismatch, match="has 2 volumes, b.json describes 3"):
        Series(image, Protocol({"FlipAngle": [1.0, 2, 3]}, "b.json"))
    series = Series(image, Protocol({"FlipAngle": [1.0, 2]}))
    assert series.take([1]).protocol["FlipAngle"].tolist() == [2]
    assert Series(Image(np.zeros((3, 4, 5)), GRID), Protocol({"FlipAngle": [1.0]})).data.shape == (3, 4, 5, 1)


def test_units():
    assert bids_unit("s") == "second"
    with pytest.raises(UnitMismatch, match="'furlong' is not known"):
        bids_unit("furlong")
    with pytest.raises(UnitMismatch, match="T1 is in 'ms', expected 's'"):
        require_unit("ms", "s", "T1")
    with pytest.raises(ImplausibleValue, match="milliseconds"):
        require_plausible("T1", [0.9, 900.0], "T1map.nii")
    require_plausible("T1", [0.9])
    require_plausible("unheard of", [1e9])


def test_labels_agree_with_each_other():
    assert len(TRACTS) == 36
    assert TRACTS[4:6] == ("WM left lateral corticospinal tract", "WM right lateral corticospinal tract")
    assert set(COMBINED["white matter"]) | set(COMBINED["gray matter"]) == set(TRACTS)
    funiculi = [set(COMBINED[k]) for k in ("dorsal columns", "lateral funiculi", "ventral funiculi")]
    assert set.union(*funiculi) == set(COMBINED["white matter"])
    assert sum(map(len, funiculi)) == 30
    assert COMBINED_NUMBERS["spinal cord"] == 50
    assert COMBINED_NUMBERS["ventral funiculi"] == 55
    assert [m for members in CLUSTERS.values() for m in members] == [*TRACTS, CSF]
    assert (vertebra_number("C1"), vertebra_number("T1"), vertebra_number("L1")) == (1, 8, 20)
    assert vertebra_name(8) == "T1"
    assert disc_name(3) == "C2/C3"
    assert disc_name(8) == "C7/T1"
    assert len(DISCS) == len(VERTEBRAE)
    assert regions_of("White Matter") == COMBINED["white matter"]
    assert regions_of(TRACTS[7]) == (TRACTS[7],)
    for call in (
        lambda: vertebra_number("C9"),
        lambda: vertebra_name(0),
        lambda: disc_name(99),
        lambda: regions_of("x"),
    ):
        with pytest.raises(UnknownName):
            call()


def test_each_flag_has_a_sentence():
    assert all(f.sentence.endswith(".") for f in Flag)
    assert len({f.word for f in Flag}) == len(Flag)


def test_threads_are_limited_and_released():
    limit_threads(3)
    assert thread_count() == 3
    limit_threads(None)
    assert thread_count() >= 1
    with pytest.raises(ImplausibleValue, match="at least 1"):
        limit_threads(0)
