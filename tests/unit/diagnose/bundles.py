"""Reading a bundle in a process of its own, under a limit of memory, and what every Evidence must hold to."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.diagnose.facts import Evidence

ADDRESS_SPACE = 700 << 20  # bytes: Python with all it imports has 100 to 200 MiB of it

_CHILD = """
import json, resource, sys
from harness.diagnose import intake
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
stdin = sys.stdin.buffer if sys.argv[2:] == ["-"] else None
found = intake.read(sys.argv[2:], stdin=stdin)
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as file:  # ru_maxrss would begin with that of the process that started this one
    peak = file.read().split("VmHWM:")[1].split()[0]
print(json.dumps({
    "peak": int(peak) << 10, "cpu": used.ru_utime + used.ru_stime,
    "facts": [type(fact).__name__ for fact in found.facts][:1000],
    "notes": [[note.kind, note.document, note.what] for note in found.notes],
    "documents": [document.name for document in found.documents][:1000],
}))
"""


class Outcome(NamedTuple):
    peak: int  # bytes of resident memory
    cpu: float  # seconds
    facts: list[str]
    notes: list[list[str]]
    documents: list[str]

    def told(self, words: str) -> bool:
        return any(words in what for _, _, what in self.notes)


def read_apart(*paths: Path | str, limit: int = ADDRESS_SPACE, stdin: Path | None = None) -> Outcome:
    """What intake.read makes of these paths in a process that may have `limit` bytes of address space."""
    command = [sys.executable, "-c", _CHILD, str(limit), *map(str, paths)]
    with (stdin or Path("/dev/null")).open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Outcome(**json.loads(done.stdout))


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, dataclasses looked through."""
    if isinstance(value, str):
        yield str(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from strings(getattr(value, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple | frozenset | set):
        for item in value:
            yield from strings(item)
    elif isinstance(value, Path):
        yield str(value)


def assert_safe(evidence: Evidence) -> None:
    """Nothing in it could drive a terminal or fail to be written, and every quote is one short line."""
    for part in (evidence.facts, evidence.notes, evidence.documents):
        for text in strings(list(part)):
            bad = {char for char in text if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"}
            assert not bad, (bad, text[:200])
            text.encode()
    for fact in evidence.facts:
        assert "\n" not in fact.source.text
        assert len(fact.source.text) <= 400
        assert fact.source.line >= 0
        assert len(fact.source.document) <= 260
