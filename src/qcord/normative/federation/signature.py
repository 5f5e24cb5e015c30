"""Who wrote a document and whether it was changed: HMAC-SHA256 with a key that the members share.

Any holder of the key can sign in the name of any site: the signature keeps strangers and faults of transmission out,
not a member who lies.

References
----------
Krawczyk, Bellare and Canetti 1997, doi:10.17487/RFC2104.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qcord.core.errors import QcordError

ALGORITHM = "HMAC-SHA256"
_HEADER = "qcord federation key 1"
_BYTES = 32


class WrongSignature(QcordError):
    """A document is unsigned, was changed after it was signed, or was signed with another key."""


@dataclass(frozen=True)
class Key:
    """Secret that the members of a federation share.

    Parameters
    ----------
    secret : bytes
        32 random bytes; not shown when printed.
    """

    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Public name of the key, by which documents say with which one they were signed."""
        return hashlib.sha256(_HEADER.encode() + b" name" + self.secret).hexdigest()[:16]

    def to_text(self) -> str:
        """Content of a key file."""
        return f"{_HEADER}\n{self.secret.hex()}\n"

    @classmethod
    def from_text(cls, text: str) -> "Key":
        """Read a key file.

        Raises
        ------
        WrongSignature
            If it is none.
        """
        lines = text.split("\n")
        if len(lines) >= 2 and lines[0].strip() == _HEADER:
            try:
                secret = bytes.fromhex(lines[1].strip())
            except ValueError:
                secret = b""
            if len(secret) == _BYTES:
                return cls(secret)
        raise WrongSignature("The key file is not one of qcord; make one with 'qcord norm export --new-key FILE'.")


def new_key() -> Key:
    """Make a key from the random numbers of the operating system."""
    return Key(secrets.token_bytes(_BYTES))


def canonical(content: Mapping[str, Any]) -> bytes:
    """One and only form of a JSON document: sorted names, no spaces, shortest numbers that read back exactly.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form: the name of a document."""
    return hashlib.sha256(canonical(content)).hexdigest()


def sign(content: Mapping[str, Any], key: Key) -> bytes:
    """Document with its signature.

    Parameters
    ----------
    content : mapping
        JSON without the name "signature".
    key : Key
        Key of the federation.

    Returns
    -------
    bytes
        Canonical JSON, ending with a line feed.
    """
    signature = {"algorithm": ALGORITHM, "key": key.name, "value": _value(content, key)}
    return canonical({**content, "signature": signature}) + b"\n"


def verify(document: bytes, key: Key, name: str = "The document") -> dict[str, Any]:
    """Content of a signed document, without the signature.

    Parameters
    ----------
    document : bytes
        What `sign` gave.
    key : Key
        Key of the federation.
    name : str
        How the message calls the document.

    Raises
    ------
    WrongSignature
        If a byte was changed, the key is another one, or there is no signature.
    """
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise WrongSignature(f"{name} is not complete JSON; ask its site to send it again.") from error
    signature = content.pop("signature", None) if isinstance(content, dict) else None
    if not isinstance(signature, dict) or not isinstance(signature.get("value"), str):
        raise WrongSignature(f"{name} carries no signature; only documents of 'qcord norm export' are accepted.")
    if signature.get("key") != key.name:
        raise WrongSignature(
            f"{name} was signed with key {signature.get('key')!s:.20}, yours is {key.name}; use the same key."
        )
    if not hmac.compare_digest(signature["value"].encode(), _value(content, key).encode()):
        raise WrongSignature(f"{name} was changed after it was signed; ask its site to send it again.")
    if not hmac.compare_digest(document, sign(content, key)):
        raise WrongSignature(f"{name} is not written as it was signed; ask its site to send it again.")
    return dict(content)


def _value(content: Mapping[str, Any], key: Key) -> str:
    try:
        return hmac.new(key.secret, canonical(content), hashlib.sha256).hexdigest()
    except ValueError:  # NaN is valid for the parser, never in a document
        return ""
