from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import Json, Outcome, Result
from harness.report.text import counts, duration, took, value_text, visible, visible_lines
from tests.report.samples import sample, texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain → text", "plain → text"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udc80", r"\udc80"),
        ("\u200b\u2028\x7f\x00", r"\u200b\u2028\x7f\x00"),
        ("日本語", "日本語"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_the_encoding_does_not_have() -> None:
    assert visible("é → 日 · …", "ascii") == r"\xe9 -> \u65e5 - ..."
    assert visible("é → 日", "latin-1") == r"é -> \u65e5"


@given(texts, st.sampled_from(["utf-8", "ascii", "iso8859-15", "cp437"]))
def test_visible_text_can_be_written_and_is_one_line(text: str, encoding: str) -> None:
    shown = visible(text, encoding)
    shown.encode(encoding)
    assert shown.isprintable()


def test_visible_lines() -> None:
    assert visible_lines("a\n\tb\x1b\r\nc\n") == ["a", r"    b\x1b", "c"]
    assert visible_lines("") == [""]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (None, "none"),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (["a", 1, None], "a, 1, none"),
        ([], "[]"),
        ({"é": [1]}, '{"é": [1]}'),
        ([["a"]], '[["a"]]'),
    ],
)
def test_value_text(value: Json, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "<1 ms"),
        (0.0009, "<1 ms"),
        (0.0124, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (3.412, "3.4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert counts(sample()) == "2 passed, 1 failed, 1 error, 1 warning, 1 skipped"
    assert counts([Result("a", "", outcome, "x") for outcome in [Outcome.WARN, Outcome.WARN]]) == "2 warnings"
    assert counts([]) == "nothing was checked"


def test_what_was_not_timed_has_no_time() -> None:
    assert took(0) == ""
    assert took(0.0001) == "<1 ms"
