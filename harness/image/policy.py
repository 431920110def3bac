"""Which Results block an image: a policy in TOML, and what of a Report it lets through.

    [block]                                   for each outcome the ids that block; * and ? as in a shell
    FAIL = ["*"]
    ERROR = ["*"]
    WARN = ["generalised.*", "baseline.*"]

    [allow]                                   ids that do not block, with the reason
    "disk.format" = "the pipeline converts it afterwards"

An outcome that is not named blocks nothing, but FAIL and ERROR do unless [block] names them.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, errno_text
from harness.report import Outcome, Report, Result

_LARGEST = 1 << 20  # bytes of a policy
_ALL = ("*",)


@dataclass(frozen=True)
class Policy:
    """block: patterns of ids by outcome; allow: patterns of ids with why they do not block."""

    block: Mapping[Outcome, Sequence[str]] = field(
        default_factory=lambda: {Outcome.FAIL: _ALL, Outcome.ERROR: _ALL},
    )
    allow: Mapping[str, str] = field(default_factory=dict)
    name: str = "the usual policy"


def read(path: Path) -> Policy:
    """The policy in a file. Raises HarnessError when it cannot be read, or has anything that is not known."""
    attempted = f"read the policy {path}"
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8")
        return _policy(tomllib.loads(text), path.name)
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    except tomllib.TOMLDecodeError as error:
        raise HarnessError(attempted, f"it is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(attempted, str(error), "`msp-harness image check --help` names the form") from error


def _policy(data: Mapping[str, Any], name: str) -> Policy:
    if unknown := sorted(set(data) - {"block", "allow"}):
        raise ValueError(f"it has {', '.join(unknown)}; known are [block] and [allow]")
    block = dict(Policy().block)
    for word, patterns in _table(data, "block").items():
        if word not in Outcome.__members__ or word == Outcome.PASS:
            raise ValueError(f"[block] has {word!r}; known are FAIL, ERROR, WARN, SKIP")
        if not isinstance(patterns, list) or not all(isinstance(each, str) and each for each in patterns):
            raise ValueError(f"[block] {word} is no list of ids")
        block[Outcome(word)] = tuple(patterns)
    allow = _table(data, "allow")
    for pattern, reason in allow.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"[allow] {pattern!r} has no reason: give it as a text")
    return Policy(block, dict(allow), name)


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"[{name}] is no table")
    return found


def judged(report: Report, policy: Policy) -> Result:
    """The gate: PASS where nothing blocks. What is allowed is told, and so is an [allow] that fits nothing."""
    wanted = [result for result in report.results if _like(result.id, policy.block.get(result.outcome, ()))]
    allowed = {result.id: _reason(result.id, policy) for result in wanted if _like(result.id, policy.allow)}
    blocking = [result.id for result in wanted if result.id not in allowed]
    ids = [result.id for result in report.results]
    unused = [pattern for pattern in policy.allow if not any(fnmatch.fnmatchcase(each, pattern) for each in ids)]
    passed = f"nothing blocks under {policy.name}" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    return Result(
        "policy.gate",
        "The policy lets the image through",
        Outcome.FAIL if blocking else Outcome.WARN if unused else Outcome.PASS,
        f"{', '.join(blocking)} block{'s' if len(blocking) == 1 else ''} under {policy.name}"
        if blocking
        else passed + (f"; [allow] {', '.join(unused)} fits no result" if unused else ""),
        evidence={"blocking": blocking, "allowed": allowed, "allow without use": unused},
        remedy="mend what blocks, or allow it in the policy with the reason" if blocking else None,
    )


def _like(id: str, patterns: Sequence[str] | Mapping[str, str]) -> bool:
    return any(fnmatch.fnmatchcase(id, pattern) for pattern in patterns)


def _reason(id: str, policy: Policy) -> str:
    return next(reason for pattern, reason in policy.allow.items() if fnmatch.fnmatchcase(id, pattern))
