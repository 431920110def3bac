"""Values of parsed JSON, read with care: of the type that is asked for, safe to show, or None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.diagnose.decode import shown


def text(value: object) -> str | None:
    """A string; numbers as they are written."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:40]
    return None


def number(value: object) -> int | None:
    """An integer, also where it is written as a string; None for one of more than 20 digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**20 else None
    if isinstance(value, str) and 0 < len(value) <= 20 and value.strip().lstrip("-").isascii():
        try:
            return int(value)
        except ValueError:
            return None
    return None


def truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return None


def members(value: object) -> Mapping[str, Any]:
    """An object with its members' names in lower case (az, REST and PowerShell differ in that); else an empty one."""
    if not isinstance(value, dict):
        return {}
    return {key.lower(): item for key, item in value.items()}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of an array, or the object that stands alone."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, dict)]
