"""BIDS file names as data: ordered entities, suffix and extension."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qcord.core.errors import UnknownName

ORDER = (
    *("sub", "ses", "sample", "task", "tracksys", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "from", "to", "mode", "space", "split", "recording", "chunk"),
    *("atlas", "seg", "scale", "res", "den", "model", "param", "label", "desc"),
)
"""Order of entities in a file name (BIDS 1.11.1; model and param as QSIRecon places them)."""

_PAIR = re.compile(r"^([a-zA-Z]+)-([a-zA-Z0-9+]+)$")


@dataclass(frozen=True)
class Entities(Mapping[str, str]):
    """Entities, suffix and extension of one BIDS file name.

    Parameters
    ----------
    pairs : tuple of (str, str)
        Entity and value, in the order of BIDS.
    suffix : str
        The last part of the name, for example ``T2w``.
    extension : str
        With its leading dot, for example ``.nii.gz``.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    suffix: str = ""
    extension: str = ".nii.gz"
    _lookup: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rank = {name: i for i, name in enumerate(ORDER)}
        ordered = tuple(sorted(self.pairs, key=lambda p: (rank.get(p[0], len(ORDER)), p[0])))
        object.__setattr__(self, "pairs", ordered)
        object.__setattr__(self, "_lookup", dict(ordered))

    @classmethod
    def of(cls, suffix: str = "", extension: str = ".nii.gz", **pairs: str | None) -> "Entities":
        """Build from keywords; a value of None leaves the entity out (``from_`` stands for ``from``)."""
        kept = tuple((k.rstrip("_"), str(v)) for k, v in pairs.items() if v is not None)
        return cls(kept, suffix, extension)

    @classmethod
    def parse(cls, name: str) -> "Entities":
        """Read a file name.

        Raises
        ------
        UnknownName
            If a part before the suffix is not of the form ``entity-value``.
        """
        stem, dot, extension = name.partition(".")
        *parts, suffix = stem.split("_")
        pairs = []
        for part in parts:
            match = _PAIR.match(part)
            if match is None:
                raise UnknownName(
                    f"'{part}' in file name {name} is not of the form entity-value (as in sub-01_ses-1_T2w.nii.gz); "
                    "rename the file by BIDS."
                )
            pairs.append((match[1], match[2]))
        if _PAIR.match(suffix):
            raise UnknownName(f"File name {name} has no suffix (such as T2w or dwi); rename it by BIDS.")
        return cls(tuple(pairs), suffix, dot + extension)

    def replace(self, suffix: str | None = None, extension: str | None = None, **pairs: str | None) -> "Entities":
        """Return a copy with other values; None removes an entity."""
        merged: dict[str, str | None] = dict(self.pairs)
        merged.update({k.rstrip("_"): v for k, v in pairs.items()})
        kept = tuple((k, v) for k, v in merged.items() if v is not None)
        return Entities(
            kept,
            self.suffix if suffix is None else suffix,
            self.extension if extension is None else extension,
        )

    @property
    def name(self) -> str:
        """File name."""
        parts = [f"{k}-{v}" for k, v in self.pairs]
        return "_".join([*parts, self.suffix]) + self.extension if self.suffix else "_".join(parts)

    @property
    def session_prefix(self) -> str:
        """``sub-X[_ses-Y]``."""
        return "_".join(f"{k}-{v}" for k, v in self.pairs if k in {"sub", "ses"})

    def __getitem__(self, key: str) -> str:
        return self._lookup[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lookup)

    def __len__(self) -> int:
        return len(self._lookup)

    def __hash__(self) -> int:
        return hash((self.pairs, self.suffix, self.extension))
