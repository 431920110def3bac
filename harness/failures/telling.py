"""A reproduction in full, for a terminal or a ticket: what was done, answered, said, meant and mended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.report.model import Json, Outcome, Result
from harness.report.text import visible

MEANINGS = {
    Outcome.PASS: "reproduced, and the remedy works",
    Outcome.FAIL: "the kernel did something else than expected",
    Outcome.SKIP: "this kernel or machine cannot have it",
    Outcome.ERROR: "could not be found out",
}
_INDENT = "  "


def tell(result: Result) -> str:
    """Everything that a Result of reproduce() holds, as text that ends with a line's end."""
    lines = [
        f"{result.id}: {result.title}",
        f"{result.outcome}: {MEANINGS.get(result.outcome, '')}",
        f"code: {result.code} · guide: {result.guide}",
        f"summary: {visible(result.summary)}",
        *_rows(result.evidence, 0),
    ]
    if result.remedy:
        lines.append(f"remedy: {result.remedy}")
    varying = {key: value for key, value in result.observed.items() if key != "log"}  # evidence has it, masked
    if varying:
        lines += ["different in every run:", *_rows(varying, 1)]
    return "\n".join(lines) + "\n"


def _rows(values: Mapping[str, Json], depth: int) -> Iterator[str]:
    for key, value in values.items():
        yield from _row(key, value, depth)


def _row(key: str, value: Json, depth: int) -> Iterator[str]:
    """One line for what fits on one; a block below the key for texts of several lines, lists and mappings."""
    before = _INDENT * depth
    if isinstance(value, str) and "\n" not in value:
        yield f"{before}{key}: {visible(value)}"
    elif isinstance(value, str):
        yield from _block(key, value.splitlines(), depth)
    elif isinstance(value, Mapping):
        yield f"{before}{key}:"
        yield from _rows(value, depth + 1)
    elif isinstance(value, Sequence):
        yield from _block(key, [str(item) for item in value], depth)
    else:
        yield f"{before}{key}: {'none' if value is None else value}"


def _block(key: str, lines: Sequence[str], depth: int) -> Iterator[str]:
    yield f"{_INDENT * depth}{key}:" + ("" if lines else " none")
    yield from (_INDENT * (depth + 1) + visible(line) for line in lines)
