"""From Results to the Report that they belong to: when it began, on what it was, how long it took."""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import harness
from harness.kernel import facts
from harness.report import Report, Result


def now() -> str:
    """The wall clock, RFC 3339, UTC. It may jump: durations come from the monotonic clock."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Recording:
    """A command under way."""

    target: str
    at: str = field(default_factory=lambda: now())
    clock: float = field(default_factory=time.monotonic)  # seconds

    def report(self, results: Sequence[Result], *, run: str | None = None, program: str | None = None) -> Report:
        return Report(
            target=self.target,
            kernel=facts.release(),
            distribution=facts.distribution(),
            harness_version=harness.__version__,
            results=tuple(results),
            run=run or secrets.token_hex(4),
            started=self.at,
            ended=now(),
            seconds=time.monotonic() - self.clock,
            program=program,
        )
