"""What the checks found, taken out of their Results by who goes on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.report import Json, Result


def text(results: Sequence[Result], id: str, *names: str) -> str:
    """The text under these names in the evidence of a Result; empty where there is none."""
    found = next((result for result in results if result.id == id), None)
    value: Json = found.evidence if found else None
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""
