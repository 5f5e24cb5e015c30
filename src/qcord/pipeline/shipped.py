"""Norms that come with the package."""

from functools import lru_cache
from importlib.resources import files

from qcord.normative.norm import Norms


@lru_cache(maxsize=1)
def shipped_norms() -> Norms | None:
    """Norms of the package; None if it has none."""
    folder = files("qcord.normative").joinpath("shipped")
    if not folder.is_dir():
        return None
    found = sorted((p for p in folder.iterdir() if p.name.endswith(".json")), key=lambda p: p.name)
    norms = [n for p in found for n in Norms.from_json(p.read_text(encoding="utf-8"))]
    return Norms.of(norms) if norms else None
