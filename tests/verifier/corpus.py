"""Logs of real kernels with the expected reading beside each: tests/corpus/verifier/KERNEL/NAME.{log,json}.

`python -m tests.verifier.corpus DIRECTORY` writes what the running kernel says to every provocation. The row in the
reading is the one that the provocation is for, and the rest was looked through when it was added; a reading that
changes afterwards is a defect, and never written anew without a look.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.verifier.log import Log
from harness.verifier.parse import parse
from tests.verifier.provoke import every_log, row_of

ROOT = Path(__file__).parents[1] / "corpus" / "verifier"
LONGEST = 20_000  # bytes of a log that is worth keeping


def reading(log: Log) -> dict[str, Any]:
    """What a log says, in JSON; without the row, which the caller knows."""
    return {
        "instructions": len(log.instructions),
        "last": log.instructions[-1].text if log.instructions else None,
        "calls": [[number, call.name, call.number] for number, call in log.calls],
        "complaint": list(log.complaint),
        "failing": log.failing_index,
        "statistics": dict(log.statistics),
        "generation": log.generation.text,
        "truncated": log.truncated,
    }


def cases() -> Iterator[tuple[Path, dict[str, Any]]]:
    """(log, expected reading)."""
    for path in sorted(ROOT.glob("**/*.log")):
        yield path, json.loads(path.with_suffix(".json").read_text())


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    kernel = os.uname().release
    for level in (1, 2):
        for name, text in every_log(level).items() if level == 1 else _second_level():
            if len(text) > LONGEST:
                continue
            path = directory / f"{name.replace('/', '--')}{'' if level == 1 else '.level2'}.log"
            path.write_text(text)
            expected = {"kernel": kernel, "row": row_of(name), **reading(parse(text))}
            path.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")


def _second_level() -> Iterator[tuple[str, str]]:
    from tests.verifier.provoke import PROVOCATIONS, provoke

    for name in ("null-check-missing", "reference-leak", "return-value", "stack-combined", "infinite-loop"):
        yield name, provoke(PROVOCATIONS[name], 2)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
