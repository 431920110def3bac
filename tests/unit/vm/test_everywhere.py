"""What this kernel cannot have is looked for on others, in the table's order; no kernel is booted here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.failures import catalogue
from harness.failures.beside import beside
from harness.failures.model import Family
from harness.failures.perform import identity
from harness.report import Json, Outcome, Report, Result
from harness.vm import everywhere, spec
from harness.vm.everywhere import PLACES, Place, on_all_kernels
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine

ONE, TWO = Place("one", ("a", "b")), Place("two", ("a", "b", "c"), ("word=1",))
HERE = [
    Result("reproduce.a", "A", Outcome.SKIP, "not here", {"nearest did": "a step", "nearest answer": "accepted"}),
    Result("reproduce.b", "B", Outcome.SKIP, "nor here"),
    Result("reproduce.c", "C", Outcome.PASS, "reproduced"),
]


def there(id: str, outcome: Outcome, summary: str = "seen there") -> Result:
    return Result(id, id, outcome, summary)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The Results of each kernel, or its error; and what was asked of them."""
    kernels: dict[str, Any] = {"asked": []}

    def resolve(name: str, tell: Callable[[str], None]) -> Kernel:
        if isinstance(kernels.get(name), HarnessError):
            raise kernels[name]
        return Kernel(f"9-{name}", name, Path(), Path(), "sha256:", None)

    def run(machine: Machine, job: Any, tell: Callable[[str], None]) -> Report:
        kernels["asked"].append((machine.kernel.origin, machine.words, job.arguments))
        name = machine.kernel.origin
        return Report(name, machine.kernel.release, "", "", tuple(kernels[name]), "", "", "", 0.0)

    monkeypatch.setattr(spec, "resolve", resolve)
    monkeypatch.setattr(everywhere, "run", run)
    return kernels


def found(places: Sequence[Place] = (ONE, TWO)) -> dict[str, Result]:
    return {result.id: result for result in on_all_kernels(HERE, lambda line: None, places)}


def test_the_first_kernel_that_has_it(world: dict[str, Any]) -> None:
    world["one"] = [there("reproduce.a", Outcome.PASS), there("reproduce.b", Outcome.SKIP, "not on one")]
    world["two"] = [there("reproduce.b", Outcome.FAIL)]
    results = found()
    assert list(results) == [result.id for result in HERE]
    assert world["asked"] == [("one", (), ("reproduce", "a", "b")), ("two", ("word=1",), ("reproduce", "b"))]
    a, b, c = results.values()
    assert (a.outcome, a.evidence["kernel"], a.evidence["on this kernel"]) == (
        Outcome.PASS, "one (9-one)", {"a step": "accepted"})  # fmt: skip
    assert a.summary == "seen there; on this kernel: a step: accepted"
    assert (b.outcome, b.evidence["kernel"]) == (Outcome.FAIL, "two word=1 (9-two)")
    assert b.evidence["tried before"] == ["this kernel: nor here", "one (9-one): not on one"]
    assert (c.outcome, c.evidence["kernel"]) == (Outcome.PASS, "this one")


def test_a_skip_says_what_was_tried(world: dict[str, Any]) -> None:
    world["one"] = HarnessError("fetch one", "there is no network")
    world["two"] = [there("guest.silent", Outcome.ERROR, "the guest hangs")]
    result = found()["reproduce.a"]
    assert (result.outcome, result.evidence["kernel"]) == (Outcome.ERROR, "none")  # a guest did not tell
    assert result.summary == (
        "on none of 3 kernels: this kernel: not here | one: cannot fetch one: there is no network | "
        "two word=1 (9-two): the guest hangs"
    )


def test_kernels_that_cannot_be_had_leave_it_a_skip(world: dict[str, Any]) -> None:
    world["one"] = world["two"] = HarnessError("fetch it", "there is no network")
    assert [result.outcome for result in found().values()] == [Outcome.SKIP, Outcome.SKIP, Outcome.PASS]


def test_nothing_is_booted_for_what_this_kernel_has(world: dict[str, Any]) -> None:
    results = list(on_all_kernels(HERE[2:], lambda line: None, (TWO,)))
    assert [result.outcome for result in results] == [Outcome.PASS]
    assert world["asked"] == []


def test_the_table_names_failures_that_there_are() -> None:
    names = {failure.name for failure in catalogue() if failure.needs}
    assert {name for place in PLACES for name in place.failures} <= names
    assert {failure.name for failure in catalogue() if failure.needs and failure.family is not Family.KEY} == {
        name for place in PLACES for name in place.failures
    }


def test_the_guides_text_beside_ours() -> None:
    (failure,) = [failure for failure in catalogue() if failure.name == "attach-no-link"]
    message = "Failed to start redirector: Failed to attach program 'connect4' with error: `bpf_link_create` failed"
    evidence: dict[str, Json] = {"kernel": "lab:x", "message": message, "guide": {"text": "the same, word for word"}}
    text = beside(Result(identity(failure), failure.title, Outcome.PASS, "", evidence), failure.family)
    assert "guide:   \"Failed to attach program 'connect4' with error: `bpf_link_create` failed\"" in text
    assert f'ours:    "{message}"' in text
    assert "compared: the same, word for word" in text
    assert beside(Result("reproduce.x", "", Outcome.PASS, "", {"message": None}), failure.family) == ""


def test_what_a_log_says_does_not_reach_the_terminal_as_it_is() -> None:
    evidence: dict[str, Json] = {
        "message": "evil \x1b[2J\nmore",
        "side by side": ["+ \x1b]0;x\x07"],
        "lines that differ, and why": [],
    }
    text = beside(Result("reproduce.x", "", Outcome.PASS, "", evidence), Family.LOAD)
    assert "\x1b" not in text
