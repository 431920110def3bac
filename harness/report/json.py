"""A Report as JSON, and back. The layout is published as schema.json beside this file.

What is the same in every run on the same machine comes first (what was looked at, results with their evidence, counts,
exit code); what differs from run to run (ids, times, observed) is apart, in the member `run`. Two reports are compared
with `jq 'del(.run)'` and diff.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from harness.errors import HarnessError
from harness.report.model import Json, Outcome, Report, Result, exit_code

SCHEMA = "msp-harness.report/1"
"""The layout's version: the number grows when a reader of the old layout would misread the new one."""

_RESULT = ("id", "title", "outcome", "summary", "evidence", "remedy", "guide", "code", "blocking")
_TOP = (
    "schema",
    "target",
    "kernel",
    "distribution",
    "harness_version",
    "program",
    "exit_code",
    "counts",
    "results",
    "run",
)
_RUN = ("id", "started", "ended", "seconds", "results")
_RUN_RESULT = ("id", "seconds", "observed")

_DEPTH = 200  # levels of nesting that a report may have


def dump(report: Report, indent: int | None = 2) -> str:
    """The Report as indented ASCII JSON with a newline at the end; the same Report gives the same text.

    Without indent it is one line, made in a tenth of the time.
    """
    document = {
        "schema": SCHEMA,
        "target": report.target,
        "kernel": report.kernel,
        "distribution": report.distribution,
        "harness_version": report.harness_version,
        "program": report.program,
        "exit_code": exit_code(report),
        "counts": _counts(report),
        "results": [_stable(result) for result in report.results],
        "run": {
            "id": report.run,
            "started": report.started,
            "ended": report.ended,
            "seconds": report.seconds,
            "results": [
                {"id": result.id, "seconds": result.seconds, "observed": _ordered(result.observed)}
                for result in report.results
            ],
        },
    }
    return json.dumps(document, indent=indent, allow_nan=False) + "\n"


def load(text: str) -> Report:
    """The Report that dump wrote.

    Raises HarnessError that names the place (`results[3].outcome`) when the text is not JSON, is of another layout,
    lacks a member, has one too many or one of the wrong type, or when its counts or exit code contradict its results.
    """
    top = _members(_parse(text), "the top level", _TOP, first="schema")
    results, times = _list(top, "results", ""), _members(top["run"], "run", _RUN)
    observed = _list(times, "results", "run.")
    if len(results) != len(observed):
        _refuse("run.results", f"{len(observed)} entries for {len(results)} results")
    report = Report(
        **{name: _typed(top, name, "", _text) for name in ("target", "kernel", "distribution", "harness_version")},
        program=_typed(top, "program", "", _text_or_null),
        run=_typed(times, "id", "run.", _text),
        started=_typed(times, "started", "run.", _text),
        ended=_typed(times, "ended", "run.", _text),
        seconds=_typed(times, "seconds", "run.", _seconds),
        results=[_result(number, *pair) for number, pair in enumerate(zip(results, observed, strict=True))],
    )
    _members(top["counts"], "counts", tuple(Outcome))
    for name, found in (("counts", _counts(report)), ("exit_code", exit_code(report))):
        # As text, since Python takes true for 1.
        if json.dumps(top[name], sort_keys=True) != json.dumps(found, sort_keys=True):
            _refuse(name, f"{_short(top[name])} contradicts the results, which give {found}")
    return report


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what dump writes, as published in the package."""
    from importlib.resources import files

    found: dict[str, Any] = json.loads(files("harness.report").joinpath("schema.json").read_text(encoding="utf-8"))
    return found


def _counts(report: Report) -> dict[str, int]:
    return {outcome.value: report.count(outcome) for outcome in Outcome}


def _stable(result: Result) -> dict[str, Any]:
    found = {name: getattr(result, name) for name in _RESULT}
    return found | {"outcome": result.outcome.value, "evidence": _ordered(result.evidence)}


def _ordered(value: Any) -> Json:
    """The same value with the keys of every object sorted."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def _refuse(place: str, happened: str) -> NoReturn:
    raise HarnessError(
        "read the report", f"{place}: {happened}", f"give a file that `--json` of this version wrote ({SCHEMA})"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parse(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member is there twice in one object")
        return found

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        _refuse(f"line {error.lineno}, column {error.colno}", error.msg)
    except RecursionError:
        _refuse("the text", "nested too deeply")
    except ValueError as error:
        _refuse("the text", str(error))
    if _is_deeper(value, _DEPTH):
        _refuse("the text", "nested too deeply")
    return value


def _is_deeper(value: object, limit: int) -> bool:
    """Whether lists and objects are nested more than limit times; how deep json itself goes depends on the Python."""
    level = [value]
    for _ in range(limit + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True


def _members(value: object, place: str, names: tuple[str, ...], first: str = "") -> dict[str, Any]:
    """The object at the place, which has exactly these members. The layout's version is looked at before the rest."""
    if not isinstance(value, dict):
        _refuse(place, f"an object is wanted, not {_short(value)}")
    if first and value.get(first) != SCHEMA:
        _refuse(first, f"{SCHEMA!r} is wanted, not {_short(value.get(first))}")
    for name in names:
        if name not in value:
            _refuse(place, f"the member {name!r} is missing")
    for name in value:
        if name not in names:
            _refuse(place, f"the member {_short(name)} is unknown")
    return value


def _list(owner: dict[str, Any], name: str, place: str) -> list[Any]:
    value = owner[name]
    if not isinstance(value, list):
        _refuse(place + name, f"a list is wanted, not {_short(value)}")
    return value


def _typed(owner: dict[str, Any], name: str, place: str, kind: tuple[str, Callable[[Any], bool]]) -> Any:
    value = owner[name]
    if not kind[1](value):
        _refuse(place + name, f"{kind[0]} is wanted, not {_short(value)}")
    return value


_text = ("text", lambda value: isinstance(value, str))
_text_or_null = ("text or null", lambda value: value is None or isinstance(value, str))
_flag = ("true or false", lambda value: isinstance(value, bool))
_object = ("an object", lambda value: isinstance(value, dict))
_seconds = (
    "a number of seconds",
    lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12,
)
_outcome = (f"one of {', '.join(Outcome)}", lambda value: isinstance(value, str) and value in set(Outcome))
_KINDS = {
    "id": _text,
    "title": _text,
    "outcome": _outcome,
    "summary": _text,
    "evidence": _object,
    "remedy": _text_or_null,
    "guide": _text_or_null,
    "code": _text_or_null,
    "blocking": _flag,
}


def _result(number: int, stable: object, apart: object) -> Result:
    place, run_place = f"results[{number}]", f"run.results[{number}]"
    found, times = _members(stable, place, _RESULT), _members(apart, run_place, _RUN_RESULT)
    fields = {name: _typed(found, name, place + ".", kind) for name, kind in _KINDS.items()}
    if times["id"] != found["id"]:
        _refuse(f"{run_place}.id", f"{_short(found['id'])} is wanted, as in {place}, not {_short(times['id'])}")
    seconds = _typed(times, "seconds", run_place + ".", _seconds)
    observed = _typed(times, "observed", run_place + ".", _object)
    try:
        return Result(**(fields | {"outcome": Outcome(fields["outcome"])}), observed=observed, seconds=seconds)
    except ValueError as error:
        _refuse(place, str(error))
    except RecursionError:
        _refuse(place, "nested too deeply")
