import shutil
import zipfile

import pytest

from qcord.core.errors import UnknownName, UnreadableFile
from qcord.pipeline.assets import assets, installed
from qcord.pipeline.templates import load_template


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QCORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_nothing_is_installed_at_first_and_the_built_in_template_is_used():
    assert assets() == {"pam50": "not installed"}
    assert load_template().name == "qcord"


@pytest.mark.real
def test_a_folder_is_installed_with_its_checksums(data_dir, cache, tmp_path):
    copy = tmp_path / "copy" / "data" / "PAM50"
    shutil.copytree(data_dir / "templates" / "PAM50", copy)
    spoilt = copy / "atlas" / "PAM50_atlas_07.nii.gz"
    good = spoilt.read_bytes()
    spoilt.write_bytes(good[:-1])
    with pytest.raises(UnreadableFile, match="PAM50_atlas_07.nii.gz is not that of the release"):
        assets("get", source=tmp_path / "copy")
    assert installed("pam50") is None
    assert list(cache.iterdir()) == []
    spoilt.write_bytes(good)
    assert assets("get", source=tmp_path / "copy")["pam50"] == str(cache / "pam50")
    assert load_template().name == "PAM50"
    assert load_template("pam50").discs["C3/C4"] == pytest.approx(-126.34, abs=0.01)


def test_what_holds_no_template_is_refused(tmp_path, cache):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("readme.txt", "nothing")
    with pytest.raises(UnreadableFile, match="no folder with template/ and atlas/"):
        assets("get", source=archive)
    with pytest.raises(UnreadableFile, match="does not exist"):
        assets("get", source=tmp_path / "absent")
    broken = tmp_path / "b.tar.gz"
    broken.write_bytes(b"not an archive")
    with pytest.raises(UnreadableFile, match="cannot be unpacked"):
        assets("get", source=broken)
    with pytest.raises(UnknownName, match="Asset 'x'"):
        assets("get", "x")
    with pytest.raises(UnknownName, match="list or get"):
        assets("eat")
    assert list(cache.iterdir()) == []
