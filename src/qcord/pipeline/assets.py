"""Files that are not part of the package: templates, kept in the user's cache folder."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pooch import os_cache, retrieve  # type: ignore[attr-defined]

from qcord.core.errors import UnknownName, UnreadableFile
from qcord.ingest.pam50 import read_template
from qcord.pipeline.store import require_writable


@dataclass(frozen=True)
class Asset:
    """Something to fetch.

    Parameters
    ----------
    name : str
        Name in commands.
    url : str
        Archive.
    description : str
        What it is, and its licence.
    """

    name: str
    url: str
    description: str


ASSETS: Mapping[str, Asset] = {
    "pam50": Asset(
        "pam50",
        "https://github.com/spinalcordtoolbox/PAM50/archive/refs/tags/r20250730.zip",
        "PAM50 template of the brainstem and spinal cord (De Leener 2018, doi:10.1016/j.neuroimage.2017.10.041); "
        "its repository states no licence",
    )
}


def cache_folder() -> Path:
    """Folder of installed assets (``QCORD_CACHE``, else the system's cache folder)."""
    return Path(os.environ.get("QCORD_CACHE") or os_cache("qcord"))


def installed(name: str) -> Path | None:
    """Folder of an installed asset, or None."""
    folder = cache_folder() / name
    return folder if (folder / "template").is_dir() and (folder / "atlas").is_dir() else None


def assets(
    action: str = "list", name: str = "pam50", *, source: Path | None = None, any_version: bool = False
) -> dict[str, str]:
    """List or install assets.

    Parameters
    ----------
    action : str
        ``list`` or ``get``.
    name : str
        Asset to install.
    source : path, optional
        A folder, an archive or an installation of another tool that holds it, instead of the download.
    any_version : bool
        Install files even if their checksums are not those of the release that qcord was tested with.

    Returns
    -------
    dict of str to str
        Asset name to the folder where it lies, or ``not installed``.

    Raises
    ------
    UnknownName
        If action or asset is not known.
    UnreadableFile
        If the source or the download does not hold the asset; nothing is installed then.
    """
    if action not in {"list", "get"}:
        raise UnknownName(f"'{action}' is not something to do with assets, expected list or get.")
    if name not in ASSETS:
        raise UnknownName(f"Asset '{name}' is not known, expected one of {', '.join(ASSETS)}.")
    if action == "get":
        install(ASSETS[name], source, any_version=any_version)
    return {a: str(installed(a) or "not installed") for a in ASSETS}


def install(asset: Asset, source: Path | None = None, *, any_version: bool = False) -> Path:
    """Put an asset into the cache: complete, of the known checksums and readable, or not at all."""
    require_writable(cache_folder())
    with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
        found = _unpacked(asset, source, Path(work))
        fresh = Path(work) / "fresh"
        for part in ("template", "atlas"):
            shutil.copytree(found / part, fresh / part)
        if not any_version:
            require_checksums(fresh, asset.name)
        read_template(fresh)
        final = cache_folder() / asset.name
        if final.exists():
            final.rename(Path(work) / "old")
        fresh.rename(final)
    return final


def require_checksums(folder: Path, name: str) -> None:
    """Raise `UnreadableFile` unless all files of the known release are there, byte for byte."""
    listed = files("qcord.pipeline").joinpath(f"{name}.sha256").read_text(encoding="ascii")
    for line in listed.splitlines():
        expected, file = line.split()
        path = folder / file
        if not path.is_file():
            raise UnreadableFile(f"{file} is absent from this copy of {name}; get a complete one.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise UnreadableFile(
                f"{file} is not that of the release that qcord was tested with (its checksum differs); "
                "get that release, or pass --any-version if you trust this one."
            )


def _unpacked(asset: Asset, source: Path | None, work: Path) -> Path:
    """Folder that holds ``template`` and ``atlas``."""
    place = source if source is not None else _download(asset, work)
    if not place.exists():
        raise UnreadableFile(f"{place} does not exist; check the path.")
    if place.is_file():
        place = _extract(place, work / "archive")
    for candidate in sorted([place, *place.rglob("*")], key=lambda p: len(p.parts)):
        if (candidate / "template").is_dir() and (candidate / "atlas").is_dir():
            return candidate
    raise UnreadableFile(f"{place.name} holds no folder with template/ and atlas/; give the one that does.")


def _extract(archive: Path, target: Path) -> Path:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(target)
        else:
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(target, filter="data")
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UnreadableFile(f"{archive.name} cannot be unpacked ({error}); download it again.") from error
    return target


def _download(asset: Asset, work: Path) -> Path:
    try:
        return Path(retrieve(asset.url, known_hash=None, path=work, fname="download.zip", progressbar=False))
    except Exception as error:
        raise UnreadableFile(
            f"{asset.name} could not be downloaded ({type(error).__name__}); "
            "check the network, or give a copy with --from."
        ) from error
