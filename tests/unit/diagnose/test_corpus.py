"""Every case of the corpus gets its verdict, from files as tools write them to the page."""

from __future__ import annotations

import pytest

from harness.diagnose.verdict import Kind
from tests.unit.diagnose.evidence_corpus import Case, cases, of_tools, problems

CASES = cases()
LEAST = 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gets_its_verdict(case: Case) -> None:
    assert problems(case, case.verdict()) == []


@pytest.mark.parametrize("case", of_tools(), ids=lambda case: case.name)
def test_what_real_tools_printed_gets_its_verdict(case: Case) -> None:
    assert case.bundle.exists()
    assert problems(case, case.verdict()) == []


def test_the_corpus_has_every_kind_of_verdict_and_enough_cases() -> None:
    assert len(CASES) >= LEAST
    assert {case.expected["verdict"] for case in CASES} == {kind.value for kind in Kind}


def test_a_wrong_verdict_is_seen() -> None:
    """The comparison itself: a case with another code, contradiction or near miss is a problem."""
    healthy = next(case for case in CASES if case.name == "healthy-linux")
    found = healthy.verdict()
    for change in (
        {"code": "MSP-K102"},
        {"also": ["MSP-P304"]},
        {"contradictions": ["MSP-E104"]},
        {"never": ["MSP-E100"]},
    ):
        assert problems(Case(healthy.name, {**healthy.expected, **change}), found)
