"""The guide's text beside ours, for one reproduction: the words, the verifier's log line by line, each difference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from harness.failures import wording
from harness.failures.model import Family
from harness.msp import mask
from harness.report.model import Json, Result
from harness.report.text import visible

_LOG = "side by side"


def beside(result: Result, family: Family) -> str:
    """What the guide shows and what came about, as text that ends with a line's end; nothing where neither spoke."""
    theirs, ours = wording.guides_message(family), result.evidence.get("message")
    if theirs is None or not isinstance(ours, str):
        return ""
    compared = result.evidence.get("guide")
    said = compared.get("text", "") if isinstance(compared, Mapping) else ""
    lines = [
        f"{result.id}: {result.title}",
        f"  kernel:  {result.evidence.get('kernel', 'this one')}",
        f"  guide:   {_shortened(theirs.text)}",
        f"  ours:    {_shortened(ours)}",
        f"  compared: {said}",
        *_log(result.evidence),
    ]
    return "".join(f"{visible(line)}\n" for line in lines)


def _log(evidence: Mapping[str, Json]) -> Iterator[str]:
    """The guide's own program only: of others, the log is about something else."""
    side, reasons = evidence.get(_LOG), evidence.get("lines that differ, and why")
    if not isinstance(side, Sequence) or not isinstance(reasons, Sequence):
        return
    yield "  masked on both sides:"
    yield from (f"    {line}" for line in mask.mask_text().splitlines())
    yield "  the guide's log and ours (- only in the guide, + only in ours):"
    yield from (f"    {line}" for line in side)
    yield f"  lines that differ, and why: {'' if reasons else 'none'}".rstrip()
    yield from (f"    {line}" for line in reasons)


def _shortened(text: str) -> str:
    """The first line as JSON has it, without the log that stands below line by line."""
    first, more, _ = text.partition("\n")
    return json.dumps(first, ensure_ascii=False) + (" …" if more else "")
