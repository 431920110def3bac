"""A reproduction as text."""

from __future__ import annotations

import pytest

from harness.failures.telling import MEANINGS, tell
from harness.report.model import Json, Outcome, Result


def example(outcome: Outcome = Outcome.PASS) -> Result:
    evidence: dict[str, Json] = {
        "did": "attach", "answer": "EBADF", "log": "0: (95) exit\nR0 !read_ok\n", "message": None, "expected": [],
        "guide": {"similarity": 0.5, "mask": ["a", "b"]},
    }  # fmt: skip
    return Result("reproduce.x", "X", outcome, "a summary", evidence, {"log": "raw", "peer": "1.2.3.4:80"},
                  "do that", "A heading", "MSP-A101")  # fmt: skip


def test_everything_is_told_in_its_order() -> None:
    assert tell(example()).splitlines() == [
        "reproduce.x: X",
        "PASS: reproduced, and the remedy works",
        "code: MSP-A101 · guide: A heading",
        "summary: a summary",
        "did: attach",
        "answer: EBADF",
        "log:",
        "  0: (95) exit",
        "  R0 !read_ok",
        "message: none",
        "expected: none",
        "guide:",
        "  similarity: 0.5",
        "  mask:",
        "    a",
        "    b",
        "remedy: do that",
        "different in every run:",
        "  peer: 1.2.3.4:80",
    ]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.ERROR])
def test_an_outcome_says_what_it_means_here(outcome: Outcome) -> None:
    assert f"{outcome}: {MEANINGS[outcome]}" in tell(example(outcome))


def test_what_would_move_a_cursor_is_made_visible() -> None:
    told = tell(Result("reproduce.x", "X", Outcome.FAIL, "a\x1b[2Jb", {"log": "c\x1b[1m\nd", "list": ["e\x07"]}))
    assert "\x1b" not in told
    assert "\x07" not in told
