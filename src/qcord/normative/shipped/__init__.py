"""Norms that come with qcord: coefficients and cards of models of published data, no value of a person.

Made by ``python tools/ship_norms.py``. Each card says what it was made from, how it was judged, and its limits.
"""

from functools import lru_cache
from importlib.resources import files

from qcord.normative.norm import Norm, Norms

FILES = ("quantitative.json", "morphometry.json")


@lru_cache(maxsize=1)
def shipped_norms() -> Norms:
    """Norms of the package: quantitative maps at C2 to C5, and shape of the cord by level."""
    found: list[Norm] = []
    for name in FILES:
        place = files(__name__).joinpath(name)
        if place.is_file():
            found.extend(Norms.from_json(place.read_text(encoding="utf-8")))
    return Norms.of(found)
