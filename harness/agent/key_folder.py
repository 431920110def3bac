"""The folder of latched keys: 0700, a file `{guid}.key` for each, 0600."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import errno_text
from harness.msp import signature

GUID = re.compile(r"[0-9A-Za-z-]{1,64}")
"""What may be a guid, and so a file's name."""

_LARGEST = 64 * 1024  # bytes of a key's file


@dataclass(frozen=True)
class Key:
    """A key of the platform. key is hex and is kept out of repr()."""

    guid: str
    key: str
    issued: str = ""
    incarnation: int | None = None

    def __repr__(self) -> str:
        return f"Key({self.guid}, incarnation {self.incarnation})"


class KeyUnusable(ValueError):
    """A key that cannot be read, kept or used; str() says why, without the key."""


def parse_key(data: object) -> Key:
    """A key from JSON's values, as the platform sends and the folder keeps it. Raises KeyUnusable."""
    if not isinstance(data, Mapping):
        raise KeyUnusable("the key is not a JSON object")
    guid, key, issued, incarnation = (data.get(name) for name in ("guid", "key", "issued", "incarnationId"))
    if data.get("authorizationScheme") != signature.SCHEME:
        raise KeyUnusable("authorizationScheme is not " + signature.SCHEME)
    if not isinstance(guid, str) or not GUID.fullmatch(guid):
        raise KeyUnusable("guid is missing or not a guid")
    if not isinstance(key, str):
        raise KeyUnusable("key is missing")
    try:
        signature.decode_key(key)
    except ValueError as error:
        raise KeyUnusable(str(error)) from None
    number = incarnation if isinstance(incarnation, int) and not isinstance(incarnation, bool) else None
    return Key(guid, key, issued if isinstance(issued, str) else "", number)


class KeyFolder:
    def __init__(self, path: Path):
        self.path = path

    def file(self, guid: str) -> Path:
        return self.path / f"{guid}.key"

    def prepare(self) -> None:
        """Make the folder, or make it root's alone. Raises KeyUnusable."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise KeyUnusable(f"{self.path}: {errno_text(error.errno or 0)}") from error

    def load(self, guid: str) -> Key | None:
        """The key of a guid; None where there is none. Raises KeyUnusable for a file that holds no key of that guid."""
        if not GUID.fullmatch(guid):
            raise KeyUnusable("not a guid")
        try:
            with self.file(guid).open("rb") as file:
                data: Any = json.loads(file.read(_LARGEST))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyUnusable(errno_text(error.errno or 0)) from error
        except ValueError:
            raise KeyUnusable("the file is not JSON") from None
        key = parse_key(data)
        if key.guid != guid:
            raise KeyUnusable(f"the file holds the key {key.guid}")
        return key

    def save(self, key: Key) -> None:
        """Keep a key, so that after a crash it is there whole or not at all. Raises KeyUnusable."""
        self.prepare()
        told = {
            "authorizationScheme": signature.SCHEME,
            "guid": key.guid,
            "incarnationId": key.incarnation,
            "issued": key.issued,
            "key": key.key,
        }
        whole, part = self.file(key.guid), self.path / f".{key.guid}.new"
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump(told, file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(whole)
        except OSError as error:
            raise KeyUnusable(f"{whole}: {errno_text(error.errno or 0)}") from error
