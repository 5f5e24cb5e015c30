"""BIDS data sets: which subjects, sessions and scans there are, with inherited sidecars."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue, UnknownName, UnreadableFile
from qcord.ingest.nifti import read_sidecar

MODALITIES = ("anat", "dwi", "func", "fmap", "perf")


@dataclass(frozen=True)
class Scan:
    """One image file of a data set.

    Parameters
    ----------
    path : path
        The NIfTI file.
    root : path
        Folder of the data set.
    entities : Entities
        Its name, taken apart.
    metadata : mapping
        Its sidecar, with what higher folders add (inheritance principle).
    """

    path: Path
    root: Path
    entities: Entities
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Path relative to the data set, for messages."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def uri(self) -> str:
        """BIDS URI of the file, as ``Sources`` want it."""
        return f"bids:raw:{self.name}"


@dataclass(frozen=True)
class Visit:
    """One subject in one session.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``; None where the data set has no sessions.
    folder : path
        Holds ``anat``, ``dwi`` and so on.
    """

    subject: str
    session: str | None
    folder: Path

    @property
    def prefix(self) -> str:
        """``sub-X[_ses-Y]``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def relative(self) -> Path:
        """``sub-X[/ses-Y]``."""
        return Path(f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []))


def find_visits(
    root: Path, subjects: Iterable[str] | None = None, sessions: Iterable[str] | None = None
) -> tuple[Visit, ...]:
    """List subjects and sessions of a data set.

    Parameters
    ----------
    root : path
        Folder of the data set.
    subjects, sessions : iterable of str, optional
        Labels to keep, with or without their prefix.

    Raises
    ------
    UnreadableFile
        If the folder does not exist or holds no ``sub-*`` folder.
    UnknownName
        If a wanted subject or session is not there.
    """
    if not root.is_dir():
        raise UnreadableFile(f"Data set folder {root} does not exist; check the path.")
    found: list[Visit] = []
    for folder in sorted(p for p in root.glob("sub-*") if p.is_dir()):
        subject = folder.name.removeprefix("sub-")
        inner = sorted(p for p in folder.glob("ses-*") if p.is_dir())
        found += [Visit(subject, p.name.removeprefix("ses-"), p) for p in inner]
        if any((folder / m).is_dir() for m in MODALITIES):
            found.append(Visit(subject, None, folder))
        elif _unnamed_sessions(folder):
            found.append(Visit(subject, None, folder))  # its processing says what is wrong, that of others goes on
    if not found:
        raise UnreadableFile(f"{root} holds no sub-* folder with {', '.join(MODALITIES)}; expected a BIDS data set.")
    kept = _select(found, subjects, "sub-", lambda v: v.subject)
    return tuple(_select(kept, sessions, "ses-", lambda v: v.session or ""))


def stem_of(path: Path) -> str:
    """File name of an image without ``.nii`` or ``.nii.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _select(visits: list[Visit], wanted: Iterable[str] | None, prefix: str, key: Any) -> list[Visit]:
    if wanted is None:
        return visits
    labels = [w.removeprefix(prefix) for w in wanted]
    present = {key(v) for v in visits}
    absent = [w for w in labels if w not in present]
    if absent:
        some = ", ".join(sorted(p for p in present if p)[:8])
        raise UnknownName(f"{prefix}{absent[0]} is not in the data set; it has {some or 'none'} - check the label.")
    return [v for v in visits if key(v) in labels]


def _unnamed_sessions(folder: Path) -> list[str]:
    """Folders of a subject that hold what a session holds but are not called ``ses-*``."""
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("ses-"))
    return [p.name for p in inner if any((p / m).is_dir() for m in MODALITIES)]


def find_scans(root: Path, visit: Visit) -> tuple[Scan, ...]:
    """List the images of one visit, sorted by name; files whose names are not BIDS are left out.

    Raises
    ------
    UnknownName
        If the folders of the sessions are not called ``ses-*``.
    ImplausibleValue
        If a file is named after another subject or session, or is there compressed and uncompressed.
    """
    own = visit.session or any((visit.folder / m).is_dir() for m in MODALITIES)
    if not own and (sessions := _unnamed_sessions(visit.folder)):
        raise UnknownName(
            f"{visit.folder.name} holds a folder '{sessions[0]}' with scans, expected the name ses-"
            f"{''.join(c for c in sessions[0] if c.isalnum()) or '01'}; rename it and put ses- into its files' names."
        )
    scans = []
    for path in _images(visit):
        try:
            entities = Entities.parse(path.name)
        except UnknownName:
            continue
        _require_own(path, entities, visit)
        scans.append(Scan(path, root, entities, inherited_metadata(path, root, entities)))
    return tuple(scans)


def misnamed(root: Path, visit: Visit) -> tuple[tuple[str, str], ...]:
    """Images of a visit whose names are not BIDS, relative to the data set, each with the reason in one sentence."""
    found = []
    for path in _images(visit):
        try:
            Entities.parse(path.name)
        except UnknownName as error:
            found.append((path.relative_to(root).as_posix(), str(error)))
    return tuple(found)


def _images(visit: Visit) -> list[Path]:
    return [p for m in MODALITIES for p in sorted((visit.folder / m).glob("*.nii*")) if p.is_file()]


def _require_own(path: Path, entities: Entities, visit: Visit) -> None:
    """Raise `ImplausibleValue` unless a file belongs to the visit in whose folder it lies, once."""
    for key, label in (("sub", visit.subject), ("ses", visit.session)):
        if entities.get(key, label) != label:
            where = f"sub-{visit.subject}" + (f"/ses-{visit.session}" if visit.session else "")
            raise ImplausibleValue(
                f"{path.name} lies in the folder of {where}, expected there a file of this {_WORDS[key]}; find out "
                "whose it is and move or rename it."
            )
    if path.name.endswith(".nii") and path.with_name(path.name + ".gz").is_file():
        raise ImplausibleValue(f"{path.name} is there as .nii and as .nii.gz, expected one of them; remove the other.")


_WORDS = {"sub": "subject", "ses": "session"}


def inherited_metadata(path: Path, root: Path, entities: Entities) -> dict[str, Any]:
    """Sidecar content of a file: JSON files of its own and higher folders, the nearest last."""
    merged: dict[str, Any] = {}
    for sidecar in inherited_files(path, root, entities, ".json"):
        merged.update(read_sidecar(sidecar))
    return merged


def inherited_files(path: Path, root: Path, entities: Entities, extension: str) -> list[Path]:
    """Files that apply to an image by the inheritance principle, farthest first."""
    folders = [path.parent]
    while folders[-1] != root and root in folders[-1].parents:
        folders.append(folders[-1].parent)
    found: list[Path] = []
    for folder in reversed(folders):
        candidates = []
        for file in folder.glob(f"*{entities.suffix}{extension}"):
            try:
                other = Entities.parse(file.name)
            except UnknownName:
                continue
            if other.suffix == entities.suffix and all(entities.get(k) == v for k, v in other.items()):
                candidates.append((len(other), file.name, file))
        found += [c[2] for c in sorted(candidates)]
    return found
