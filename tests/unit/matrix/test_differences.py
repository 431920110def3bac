"""What got worse, what was mended: of invented matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.matrix.differences import Kind, differences, sentence, worse
from harness.report import Outcome, Result
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, matrix


def changed(name: str, **fields: object) -> Sequence[Result]:
    return [replace(one, **fields) if one.id == name else one for one in PASSED]  # type: ignore[arg-type]


def kinds(before: Sequence[Result], after: Sequence[Result]) -> list[tuple[Kind, tuple[str, ...]]]:
    found = differences(matrix({"6.1 b": before}), matrix({"6.1 b": after}))
    return [(one.kind, tuple(one.ids)) for one in found]


def test_the_same_is_no_difference() -> None:
    again = [replace(one, seconds=9.0, observed={"pid": 7}) for one in PASSED]
    assert kinds(PASSED, again) == []
    assert sentence(()) == "nothing changed"


def test_a_new_failure_is_worse() -> None:
    assert kinds(PASSED, changed("redirect.imds", outcome=Outcome.FAIL)) == [(Kind.WORSE, ("redirect.imds",))]
    assert kinds(PASSED, changed("redirect.imds", outcome=Outcome.ERROR)) == [(Kind.WORSE, ("redirect.imds",))]


def test_mended() -> None:
    assert kinds(changed("redirect.imds", outcome=Outcome.FAIL), PASSED) == [(Kind.FIXED, ("redirect.imds",))]


def test_a_warning_is_a_change_and_not_worse() -> None:
    found = differences(matrix({"6.1 b": PASSED}), matrix({"6.1 b": changed("redirect.imds", outcome=Outcome.WARN)}))
    assert [one.kind for one in found] == [Kind.CHANGED]
    assert not worse(found)


def test_a_failure_that_says_something_else_has_changed() -> None:
    one, other = (changed("redirect.imds", outcome=Outcome.FAIL, summary=text) for text in ("a", "b"))
    assert kinds(one, other) == [(Kind.CHANGED, ("redirect.imds",))]
    assert kinds(one, one) == []


def test_other_evidence_of_what_passes_is_nothing_to_hear_of() -> None:
    assert kinds(PASSED, changed("load.connect4", evidence={"instructions": 75})) == []


def test_a_guest_that_died_is_one_failure_and_the_rest_is_gone() -> None:
    found = kinds(PASSED, PANIC)
    assert found[0] == (Kind.WORSE, ("guest.panic",))
    assert [kind for kind, _ in found] == [Kind.WORSE, Kind.GONE]
    assert len(found[1][1]) == len(PASSED)


def test_a_failure_that_was_not_there_before_is_worse() -> None:
    assert (Kind.WORSE, ("redirect.x",)) in kinds(PASSED, [*PASSED, replace(REFUSED[1], id="redirect.x")])


def test_cells_of_one_only() -> None:
    before, after = matrix({"6.1 b": PASSED, "5.10 a": PASSED}), matrix({"6.1 b": PASSED, "7.2 c": REFUSED})
    found = differences(before, after)
    assert [(one.kind, one.row) for one in found] == [(Kind.WORSE, "c"), (Kind.GONE, "a")]
    assert sentence(found) == "1 worse, 1 gone"
    new = differences(before, matrix({"6.1 b": PASSED, "5.10 a": PASSED, "7.2 c": PASSED}))
    assert [(one.kind, one.row) for one in new] == [(Kind.NEW, "c")]


def test_a_newer_kernel_of_the_suite_is_the_same_row() -> None:
    assert differences(matrix({"6.1 b": PASSED}), matrix({"6.2 b": PASSED})) == []


def test_an_id_that_is_there_twice_is_told_in_the_words_of_its_own() -> None:
    twice = [Result("x.y", "", Outcome.PASS, "one"), Result("x.y", "", Outcome.PASS, "two")]
    after = [twice[0], replace(twice[1], outcome=Outcome.FAIL)]
    found = differences(matrix({"6.1 b": twice}), matrix({"6.1 b": after}))
    assert [one.summary for one in found] == ["two"]


def test_the_worst_comes_first() -> None:
    found = differences(
        matrix({"5.10 a": changed("redirect.imds", outcome=Outcome.FAIL), "6.1 b": PASSED}),
        matrix({"5.10 a": PASSED, "6.1 b": REFUSED}),
    )
    assert [one.kind for one in found] == [Kind.WORSE, Kind.FIXED, Kind.GONE]
