from __future__ import annotations

import dataclasses

from harness.report import Outcome, Report, Result
from harness.report.compare import Change, diff
from tests.report.samples import RESULTS, sample


def changed(number: int, **fields: object) -> Report:
    results = list(RESULTS)
    results[number] = dataclasses.replace(results[number], **fields)  # type: ignore[arg-type]
    return sample(*results)


def test_two_runs_that_found_the_same() -> None:
    again = [dataclasses.replace(result, seconds=9, observed={"pid": 9}) for result in RESULTS]
    assert diff(sample(), dataclasses.replace(sample(*again), run="other", seconds=1)) == []


def test_another_outcome() -> None:
    (change,) = diff(sample(), changed(1, outcome=Outcome.FAIL, summary="bypassed"))
    assert change == Change("redirect.imds", Outcome.PASS, Outcome.FAIL, ["outcome", "summary"])
    assert change.outcome_changed


def test_other_evidence() -> None:
    (change,) = diff(sample(), changed(1, evidence={"uid": 1}))
    assert change == Change("redirect.imds", Outcome.PASS, Outcome.PASS, ["evidence"])
    assert not change.outcome_changed


def test_results_of_one_only() -> None:
    found = diff(sample(*RESULTS[:2]), sample(*RESULTS[1:3]))
    assert [(change.id, change.before, change.after) for change in found] == [
        ("redirect.wireserver", None, Outcome.FAIL),
        ("preflight.bpf", Outcome.PASS, None),
    ]


def test_an_id_that_is_there_twice_is_matched_in_order() -> None:
    one, two = (Result("a.b", "", outcome, "x") for outcome in (Outcome.PASS, Outcome.WARN))
    assert diff(sample(one, two), sample(one, two)) == []
    assert [change.after for change in diff(sample(one, two), sample(one, one))] == [Outcome.PASS]
    assert [change.before for change in diff(sample(one, two), sample(two, two))] == [Outcome.PASS]
