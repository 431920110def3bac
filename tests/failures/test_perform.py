"""What a recipe showed, judged: PASS only when it failed as expected and the remedy worked."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.failures.model import ACCEPTED, REDIRECTED, Answer, Failure, Family, NotHere, Setting, Shown, asked
from harness.failures.perform import reproduce_one, worded
from harness.kernel.bpf import BpfError
from harness.lab.state import Run
from harness.msp import codes, verifier_codes
from harness.report.model import Outcome, Result

LOG = "0: R1=ctx() R10=fp0\n0: (18) r1 = 0xffff88810badcafe\nR0 leaks addr\nprocessed 1 insns (limit 1000000)\n"


def failure(recipe: Callable[[Setting], Shown], **changes: object) -> Failure:
    plain = Failure("x-y", "A title", Family.ATTACH, codes.NOT_CGROUP2, ("EBADF",), recipe, "the remedy")
    return replace(plain, **changes)  # type: ignore[arg-type]


def result(shown: Shown, **changes: object) -> Result:
    return run(lambda setting: shown, **changes)


def run(recipe: Callable[[Setting], Shown], **changes: object) -> Result:
    setting = Setting(Run("0", Path("/nonexistent"), Path("/nonexistent")), ExitStack())
    return reproduce_one(failure(recipe, **changes), setting)


def answers(failing: str, repaired: str, log: str = "") -> Shown:
    return Shown(Answer("did this", failing, log), Answer("did it again", repaired))


def test_reproduced_and_remedied() -> None:
    found = result(answers("EBADF", ACCEPTED))
    assert found.outcome is Outcome.PASS
    assert found.summary == "reproduced: did this: EBADF (Bad file descriptor); remedy works: the remedy: accepted"
    assert (found.id, found.code, found.guide) == ("reproduce.x-y", "MSP-A101", codes.NOT_CGROUP2.guide)
    assert found.remedy == codes.NOT_CGROUP2.remedy
    assert found.evidence["cause"] == codes.NOT_CGROUP2.cause


@pytest.mark.parametrize("word", [ACCEPTED, "EPERM", "timeout"])
def test_another_answer_is_a_fail_that_says_what_came(word: str) -> None:
    found = result(answers(word, ACCEPTED))
    assert found.outcome is Outcome.FAIL
    assert f"did this: {worded(word)}, not EBADF (Bad file descriptor) as expected" in found.summary


def test_a_remedy_that_does_not_work_is_a_fail() -> None:
    found = result(answers("EBADF", "EBADF"))
    assert found.outcome is Outcome.FAIL
    assert "the remedy does not work: did it again: EBADF" in found.summary


def test_a_log_that_says_something_else_is_a_fail() -> None:
    load = {"family": Family.LOAD, "says": "unreachable insn"}
    found = result(answers("EBADF", ACCEPTED, LOG), **load)
    assert found.outcome is Outcome.FAIL
    assert "unreachable insn" in found.summary


def test_the_whole_log_is_there_once_without_and_once_with_what_varies() -> None:
    found = result(answers("EBADF", ACCEPTED, LOG), family=Family.LOAD, says="leaks")
    assert found.outcome is Outcome.PASS
    assert found.evidence["log"] == LOG.replace("0xffff88810badcafe", "<address>")
    assert found.observed["log"] == LOG
    assert found.evidence["matters"] == ["R0 leaks addr"]
    assert "0xffff88810badcafe" not in str(found.evidence)


def test_the_message_alone_does_not_tell_causes_of_a_failed_attach_apart() -> None:
    found = result(answers("EBADF", ACCEPTED))
    other = result(answers("EPERM", ACCEPTED), expects=("EPERM",), code=codes.EXCLUSIVE_PROGRAM)
    assert found.evidence["message"] == other.evidence["message"]
    assert found.evidence["the message alone says"] == other.evidence["the message alone says"]
    assert found.code != other.code


def test_no_message_where_the_agent_sees_no_failure() -> None:
    found = result(answers("ECONNREFUSED", REDIRECTED), family=Family.APPLIED, expects=("ECONNREFUSED",),
                   repaired=REDIRECTED)  # fmt: skip
    assert found.outcome is Outcome.PASS
    assert found.evidence["message"] is None


def test_not_here_is_a_skip_with_reason_and_way_and_the_nearest_answer() -> None:
    def recipe(setting: Setting) -> Shown:
        raise NotHere("this kernel has it", "boot another", Answer("near", "EINVAL", LOG), {"probe": "yes"})

    found = run(recipe)
    assert found.outcome is Outcome.SKIP
    assert found.summary == "this kernel has it; to have it, boot another"
    assert found.evidence["nearest answer"] == "EINVAL (Invalid argument)"
    assert found.evidence["probe"] == "yes"


def harness_error() -> Shown:
    raise HarnessError("mount", "EPERM", detail="the detail", errno=errno.EPERM)


def os_error() -> Shown:
    raise OSError(errno.EROFS, "read-only", "/sys")


@pytest.mark.parametrize("broken", [harness_error, os_error])
def test_what_stops_a_recipe_is_an_error_and_no_verdict(broken: Callable[[], Shown]) -> None:
    found = run(lambda setting: broken())
    assert found.outcome is Outcome.ERROR
    assert "could not find out" in found.summary


def test_asked_gives_the_errno_by_name_and_the_log() -> None:
    def refuse() -> None:
        raise BpfError("load", errno.EACCES, log=LOG)

    def defect() -> None:
        raise HarnessError("do", "nothing that the kernel said")

    assert asked("x", refuse) == Answer("x", "EACCES", LOG)
    assert asked("x", lambda: None) == Answer("x", ACCEPTED)
    with pytest.raises(HarnessError):  # not an answer of the kernel's
        asked("x", defect)


def test_loads_are_compared_with_the_guides_log_and_the_mask_is_shown() -> None:
    found = result(answers("EBADF", ACCEPTED, LOG), family=Family.LOAD, code=verifier_codes.POINTER_LEAK)
    compared = found.evidence["guide"]
    assert isinstance(compared, dict)
    assert compared["lines the same"] == "0 of 29"
    assert any("<address>" in line for line in compared["mask"])
