from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from harness.report import Json, Outcome, Result, exit_code
from harness.report.model import plain
from tests.report.samples import sample, values


def result(outcome: Outcome, *, blocking: bool = False) -> Result:
    return Result(f"check.{outcome}", "", outcome, "because", blocking=blocking)


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([result(Outcome.PASS), result(Outcome.WARN), result(Outcome.SKIP)], 0),
        ([result(Outcome.PASS), result(Outcome.FAIL)], 1),
        ([result(Outcome.ERROR)], 1),
        ([result(Outcome.FAIL), result(Outcome.FAIL, blocking=True)], 3),
        ([result(Outcome.ERROR, blocking=True)], 3),
        ([result(Outcome.FAIL), result(Outcome.PASS, blocking=True), result(Outcome.SKIP, blocking=True)], 1),
    ],
)
def test_exit_code(results: list[Result], code: int) -> None:
    assert exit_code(sample(*results)) == code


@pytest.mark.parametrize("outcome", [Outcome.SKIP, Outcome.ERROR])
def test_skip_and_error_have_a_reason(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match=f"check.x: {outcome} without a reason"):
        Result("check.x", "", outcome, " \n")


def test_a_result_has_an_id() -> None:
    with pytest.raises(ValueError, match="without an id"):
        Result("", "", Outcome.PASS, "")


@given(values)
def test_plain_is_what_json_gives_back(value: Any) -> None:
    found = plain(value)
    # A pair of surrogates is one character to JSON: text with them is compared as it was written.
    assert json.dumps(json.loads(json.dumps(found, allow_nan=False))) == json.dumps(found)


def test_plain_copies() -> None:
    inner: list[Json] = [1, (2, 3)]
    found = Result("a.b", "", Outcome.PASS, "", {"list": inner})
    inner.append(4)
    assert found.evidence == {"list": [1, [2, 3]]}


def test_numbers_that_json_does_not_have() -> None:
    assert plain([math.nan, math.inf, -math.inf]) == ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize(
    ("value", "place"),
    [({"a": [b"x"]}, r"evidence\.a\[0\]: bytes"), ({"a": Path("x")}, r"evidence\.a: Posix"), ({1: 2}, "key 1 is not")],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        Result("a.b", "", Outcome.PASS, "", value)


@pytest.mark.parametrize(("given", "kept"), [(1.23456789, 1.234568), (-1, 0), (math.nan, 0), (math.inf, 0)])
def test_seconds_are_kept_to_the_microsecond(given: float, kept: float) -> None:
    assert Result("a.b", "", Outcome.PASS, "", seconds=given).seconds == kept


def test_a_report_does_not_change_with_the_list_it_was_made_of() -> None:
    results = [result(Outcome.PASS)]
    report = dataclasses.replace(sample(), results=results)
    results.append(result(Outcome.FAIL))
    assert report.count(Outcome.FAIL) == 0


def test_groups_keep_the_order() -> None:
    ids = ["b.2", "a.1", "b.1", "c", "a.2.x"]
    groups = sample(*(Result(id, "", Outcome.PASS, "") for id in ids)).groups()
    assert {group: [r.id for r in results] for group, results in groups.items()} == {
        "b": ["b.2", "b.1"],
        "a": ["a.1", "a.2.x"],
        "c": ["c"],
    }
    assert list(groups) == ["b", "a", "c"]
