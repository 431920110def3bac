"""The signature of a request under a latched key: Azure-HMAC-SHA256.

Source: "Signature" in shared/facts/secure-channel.md. What is signed, as bytes:

    method LF
    body LF                                      raw, not re-encoded
    each header but the authorization one        `name:trimmed value` LF, names in lower case, sorted
    path LF                                      as on the wire
    query parameters                             names in lower case, sorted by name and value, joined by `&`

The key travels as hex and is decoded first; the digest travels as lower-case hex. Headers of one name keep their
order. The body lies near the beginning, so a verifier can take it piece by piece (Verifier).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

SCHEME = "Azure-HMAC-SHA256"
AUTHORIZATION = "x-ms-azure-host-authorization"
CLAIMS = "x-ms-azure-host-claims"
DATE = "x-ms-azure-host-date"
KEY_BYTES = 32  # 256 bits

UNSIGNED = (("POST", "/machine", "comp=telemetrydata"), ("PUT", "/vmagentlog", ""))
"""What is never signed: method, path and query in lower case, the path without its last slash."""

Headers = Iterable[tuple[str, str]]
"""Names and values of a message, as latin-1 text, in their order."""

_FORM = re.compile(r"(?P<scheme>\S+) +(?P<guid>\S+) +(?P<digest>[0-9A-Fa-f]{64})")


@dataclass(frozen=True)
class Authorization:
    """The value of the authorization header, taken apart; digest is hex."""

    guid: str
    digest: str

    def __str__(self) -> str:
        return f"{SCHEME} {self.guid} {self.digest}"


def parse_authorization(value: str) -> Authorization | None:
    """None for what is not `Azure-HMAC-SHA256 GUID HEX`."""
    found = _FORM.fullmatch(value.strip())
    return Authorization(found["guid"], found["digest"]) if found and found["scheme"] == SCHEME else None


def never_signed(method: str, target: str) -> bool:
    """Whether a request (target in origin form) is of the two kinds that an agent does not sign."""
    path, _, query = target.lower().partition("?")
    return (method.upper(), path.rstrip("/"), query) in UNSIGNED


def decode_key(key: str) -> bytes:
    """A key's 32 bytes from its hex. Raises ValueError without the key in its text."""
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raise ValueError("the key is not hexadecimal") from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"the key has {8 * len(raw)} bits, not {8 * KEY_BYTES}")
    return raw


def canonical_headers(headers: Headers) -> str:
    """The headers' lines: all but the authorization one."""
    rows = sorted(((name.lower(), value) for name, value in headers), key=lambda row: row[0])
    return "".join(f"{name}:{value.strip()}\n" for name, value in rows if name != AUTHORIZATION)


def canonical_target(target: str) -> str:
    """Path and query of a request target in origin form, as they are signed."""
    path, _, query = target.partition("?")
    pairs = [parameter.partition("=") for parameter in query.split("&") if parameter]
    rows = sorted((name.lower(), value) for name, _, value in pairs)
    return f"{path}\n" + "&".join(f"{name}={value}" if value else name for name, value in rows)


def canonical(method: str, target: str, headers: Headers, body: bytes = b"") -> bytes:
    """The bytes that are signed."""
    after = canonical_headers(headers) + canonical_target(target)
    return method.encode("latin-1") + b"\n" + body + b"\n" + after.encode("latin-1")


def digest(key: str, message: bytes) -> str:
    """HMAC-SHA256 in lower-case hex under a key in hex. Raises ValueError for a bad key."""
    return hmac.new(decode_key(key), message, hashlib.sha256).hexdigest()


def sign(guid: str, key: str, method: str, target: str, headers: Headers, body: bytes = b"") -> str:
    """The value of the authorization header for a request whose other headers are final."""
    return str(Authorization(guid, digest(key, canonical(method, target, headers, body))))


class Verifier:
    """Checks one request whose body comes in pieces: update() for each, then verified()."""

    def __init__(self, key: str, method: str, target: str, headers: Headers):
        self._hmac = hmac.new(decode_key(key), method.encode("latin-1") + b"\n", hashlib.sha256)
        self._after = ("\n" + canonical_headers(headers) + canonical_target(target)).encode("latin-1")

    def update(self, piece: bytes) -> None:
        self._hmac.update(piece)

    def verified(self, claimed: str) -> bool:
        """Whether the claimed digest, hex in any case, is that of the whole request. To be asked once."""
        self._hmac.update(self._after)
        return hmac.compare_digest(self._hmac.hexdigest(), claimed.lower())
