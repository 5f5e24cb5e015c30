"""What a site has already given away: keyed hashes of people per export, and the privacy budget that was spent.

The ledger and its secret stay at the site. A hash changes with the person's covariates and value, so that a corrected
age or value counts as one person leaving and another one coming: the difference of two exports would show the
correction.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qcord.core.errors import QcordError
from qcord.normative.federation.cells import TooRevealing
from qcord.normative.federation.overlap import smallest

_FORMAT = "qcord ledger 1"
_LENGTH = 20


class BrokenLedger(QcordError):
    """The ledger of a site cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One export.

    Parameters
    ----------
    request : str
        Name of what was asked for; the same request on the same data is the same entry.
    design : str
        Columns of the design: sums of the same people by further columns would be further equations for their values.
    members : tuple of str
        Hashes of all people, by their labels alone.
    people : mapping of str to tuple of str
        For each set of people whose sums left (one per site and cell), hashes of the people with their covariates.
    values : mapping of str to tuple of str
        The same with their values.
    epsilon, delta : float
        Privacy budget; infinite for an export without noise.
    """

    request: str
    design: str
    members: tuple[str, ...]
    people: Mapping[str, tuple[str, ...]]
    values: Mapping[str, tuple[str, ...]]
    epsilon: float = float("inf")
    delta: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether the sums left without noise."""
        return self.epsilon == float("inf")


@dataclass(frozen=True)
class Ledger:
    """All exports of a site.

    Parameters
    ----------
    secret : bytes
        Key of the hashes; without it a hash tells nothing of a participant, as labels are easily guessed.
    entries : tuple of Entry
        Exports so far.
    """

    secret: bytes = field(repr=False)
    entries: tuple[Entry, ...] = ()

    def token(self, *parts: object) -> str:
        """Keyed hash of a few texts and numbers."""
        text = json.dumps([repr(p) if isinstance(p, float) else str(p) for p in parts])
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    def seed(self, *parts: object) -> int:
        """Seed of noise that only this site can know and that is the same for the same export."""
        return int.from_bytes(hmac.new(self.secret, repr(parts).encode(), hashlib.sha256).digest())

    @property
    def spent(self) -> tuple[float, float]:
        """Sum of epsilon and of delta over the exports with noise (basic composition)."""
        noisy = [e for e in self.entries if not e.exact]
        return sum(e.epsilon for e in noisy), sum(e.delta for e in noisy)

    def holds(self, entry: Entry) -> bool:
        """Whether the very same export was made before."""
        return entry in self.entries

    def add(self, entry: Entry, cell_size: int, budget: tuple[float, float] | None = None) -> "Ledger":
        """Ledger with one more export, if nobody is singled out by it and the earlier ones.

        Parameters
        ----------
        entry : Entry
            The export.
        cell_size : int
            Fewest people that any combination of sums may touch.
        budget : (epsilon, delta), optional
            Most that may be spent in all; needed for an export with noise.

        Raises
        ------
        TooRevealing
            If two exports differ in fewer people, or the budget is spent.
        """
        if self.holds(entry):
            return self
        if entry.exact:
            self._check_overlap(entry, cell_size)
        else:
            self._check_budget(entry, budget)
        return replace(self, entries=(*self.entries, entry))

    def _check_overlap(self, entry: Entry, cell_size: int) -> None:
        earlier = [e for e in self.entries if e.exact]
        if any(e.design != entry.design and not set(entry.members).isdisjoint(e.members) for e in earlier):
            raise TooRevealing(
                "The same people were exported with other columns of the design; both together would narrow down their "
                "values, so use the settings of the first export."
            )
        groups = [_unique([*(e.people.values() for e in earlier), entry.people.values()])]
        for cell, tokens in entry.values.items():
            groups.append(_unique([*([e.values[cell]] for e in earlier if cell in e.values), [tokens]]))
        found = [n for n in map(smallest, groups) if 0 < n < cell_size]
        if found:
            raise TooRevealing(
                f"This export and earlier ones differ in {min(found)} people (come, gone or corrected), fewer than "
                f"{cell_size}, whom their difference would show; export the same people again, or wait for more."
            )

    def _check_budget(self, entry: Entry, budget: tuple[float, float] | None) -> None:
        if budget is None:
            raise TooRevealing("An export with noise needs the total budget of the site; state it (epsilon and delta).")
        epsilon, delta = (spent + new for spent, new in zip(self.spent, (entry.epsilon, entry.delta), strict=True))
        if epsilon > budget[0] * (1 + 1e-12) or delta > budget[1] * (1 + 1e-12):
            raise TooRevealing(
                f"With this export epsilon would sum up to {epsilon:.3g} and delta to {delta:.1g}, more than the "
                f"{budget[0]:.3g} and {budget[1]:.1g} declared for the site; no further export of these people."
            )

    def to_json(self) -> str:
        """Text of the ledger file: it holds the secret, so it stays at the site."""
        entries = [
            {
                "request": e.request,
                "design": e.design,
                "members": list(e.members),
                "people": {k: list(v) for k, v in e.people.items()},
                "values": {k: list(v) for k, v in e.values.items()},
                "epsilon": None if e.exact else e.epsilon,
                "delta": e.delta,
            }
            for e in self.entries
        ]
        return json.dumps({"format": _FORMAT, "secret": self.secret.hex(), "entries": entries}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Ledger":
        """Read a ledger.

        Raises
        ------
        BrokenLedger
            If the text is none: an export must not go on as if nothing had been exported yet.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
            entries = tuple(
                Entry(
                    str(e["request"]),
                    str(e["design"]),
                    tuple(e["members"]),
                    {str(k): tuple(v) for k, v in e["people"].items()},
                    {str(k): tuple(v) for k, v in e["values"].items()},
                    float("inf") if e["epsilon"] is None else float(e["epsilon"]),
                    float(e["delta"]),
                )
                for e in content["entries"]
            )
            return cls(bytes.fromhex(content["secret"]), entries)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenLedger(
                "The ledger of exports cannot be read; restore it from a backup, since without it no export can be "
                "checked against the earlier ones."
            ) from error


def new_ledger() -> Ledger:
    """Empty ledger with a fresh secret."""
    return Ledger(secrets.token_bytes(32))


def _unique(collections: Sequence[Iterable[tuple[str, ...]]]) -> list[frozenset[str]]:
    """Different sets, in order."""
    return list(dict.fromkeys(frozenset(people) for sets in collections for people in sets))
