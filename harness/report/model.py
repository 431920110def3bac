"""Outcome, Result and Report: the one answer that every command gives, whatever it looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Json = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""Anything that json.dumps takes."""

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_CANNOT_RUN = 3


class Outcome(StrEnum):
    """What a check found. SKIP always has a reason; ERROR means that the harness could not find out."""

    PASS = "PASS"
    FAIL = "FAIL"
    WARN = "WARN"
    SKIP = "SKIP"
    ERROR = "ERROR"


def plain(value: Json, place: str = "value") -> Json:
    """The value as json.loads would give it back: dict, list, str, int, float, bool or None, and copies of its own.

    Numbers that JSON does not have become "NaN", "Infinity" and "-Infinity". Raises TypeError, with the place, for
    anything else than JSON (bytes, paths, addresses): whoever reports says what their text is.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place}: the key {key!r} is not text")
        return {str(key): plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place}: {type(value).__name__} is not JSON")


def _seconds(value: float) -> float:
    """Kept to the microsecond; a clock that went wrong (negative, not a number) counts as 0."""
    return round(float(value), 6) if math.isfinite(value) and value > 0 else 0.0


def _put(frozen: object, **fields: object) -> None:
    """Set fields of a frozen dataclass; for __post_init__ only."""
    for name, value in fields.items():
        object.__setattr__(frozen, name, value)


@dataclass(frozen=True)
class Result:
    """One check's answer.

    evidence holds what is the same in every run on the same machine (addresses, errno names, verdicts);
    observed holds what differs from run to run (pids, source ports, nonces, cookies, times). They are kept
    apart so that two reports can be compared.

    Both are copied to plain JSON and seconds are kept to the microsecond, so that a Result that was saved and loaded
    equals the one that was made. Raises TypeError when they hold something else than JSON, ValueError when the id is
    empty or when SKIP or ERROR has no summary.
    """

    id: str  # "redirect.imds": the check's name, a dot, the case
    title: str
    outcome: Outcome
    summary: str  # one sentence; the reason, for SKIP and ERROR
    evidence: Mapping[str, Json] = field(default_factory=dict)
    observed: Mapping[str, Json] = field(default_factory=dict)
    remedy: str | None = None  # what to do next
    guide: str | None = None  # the heading of the troubleshooting guide that this belongs to
    code: str | None = None  # the finding's code, MSP-…
    blocking: bool = False  # when it fails, this machine cannot run the harness: exit code 3
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a Result without an id")
        if self.outcome in (Outcome.SKIP, Outcome.ERROR) and not self.summary.strip():
            raise ValueError(f"{self.id}: {self.outcome} without a reason")
        _put(self, outcome=Outcome(self.outcome), seconds=_seconds(self.seconds))
        _put(self, evidence=plain(self.evidence, "evidence"), observed=plain(self.observed, "observed"))

    @property
    def group(self) -> str:
        """The id's part before the first dot: the check that the case belongs to."""
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Report:
    """The Results of one run and what they are about.

    results are in the order of the table of checks, not in the order in which they ended: every renderer keeps it.
    """

    target: str  # "live kernel", an object's or an image's name …
    kernel: str  # uname -r of the kernel that answered
    distribution: str  # PRETTY_NAME of os-release
    harness_version: str
    results: Sequence[Result]
    run: str  # the run's id
    started: str  # RFC 3339, UTC
    ended: str
    seconds: float  # by the monotonic clock: the wall clock may jump
    program: str | None = None  # "sha256:…" of the connect4 program image that was verified

    def __post_init__(self) -> None:
        _put(self, results=tuple(self.results), seconds=_seconds(self.seconds))

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)

    def groups(self) -> dict[str, list[Result]]:
        """The Results by group; groups in the order in which each appears first."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.group, []).append(result)
        return found


def exit_code(report: Report) -> int:
    """0: no FAIL and no ERROR; 3: a blocking Result failed, so this machine cannot run the harness; 1: else."""
    failed = [result for result in report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)]
    if not failed:
        return EXIT_OK
    return EXIT_CANNOT_RUN if any(result.blocking for result in failed) else EXIT_CHECK_FAILED
