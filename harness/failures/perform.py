"""Bring failures about on the running kernel, and say of each what happened, what it means, and that the remedy works.

A Result's PASS means here: the failure was reproduced, and the remedy worked. FAIL: the kernel did something else than
expected. SKIP: this kernel or machine cannot have it. ERROR: it could not be found out.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from harness.errors import HarnessError, errno_text
from harness.failures import wording
from harness.failures.model import Answer, Failure, NotHere, Setting, Shown
from harness.failures.table import chosen
from harness.kernel import bpf, cgroups
from harness.lab import state
from harness.lab.agent_files import AgentFiles
from harness.msp.messages import cut
from harness.report.model import Json, Outcome, Result


class Progress(Protocol):
    """What harness.report.progress.Progress offers."""

    def starting(self, id: str, title: str) -> None: ...

    def finished(self, result: Result) -> None: ...


def reproduce(
    names: Sequence[str], progress: Progress | None = None, agent: AgentFiles | None = None
) -> Iterator[Result]:
    """Reproduce failures by name (`all` or none: every one), and give a Result for each as it comes.

    agent: the agent that the key failures are for; the reference agent when None.

    Makes a run of its own, and removes it at the end. Call it while the process has one thread: it forks. Raises
    HarnessError for an unknown name, or when no run can be made (no root, no writable cgroup2).
    """
    failures = chosen(names)
    bpf.lift_memlock_limit()
    with state.begin(_cgroup_root()) as run, ExitStack() as stack:
        setting = Setting(run, stack, agent or AgentFiles())
        for failure in failures:
            if progress is not None:
                progress.starting(identity(failure), failure.title)
            result = reproduce_one(failure, setting)
            if progress is not None:
                progress.finished(result)
            yield result


def identity(failure: Failure) -> str:
    """The id of a failure's Result."""
    return f"reproduce.{failure.name}"


def _cgroup_root() -> Path:
    """A cgroup2 mount of the whole hierarchy, so that the run's cgroup is where clean-up looks for it.

    Where none is mounted, a plain directory stands there, and recipes that need more are left out.
    """
    found = cgroups.layout().cgroup2
    whole = [mount for mount in found if mount.root == "/"] or list(found)
    return whole[0].point if whole else state.directory().parent


def reproduce_one(failure: Failure, setting: Setting) -> Result:
    """Run one recipe and judge what it showed."""
    started = time.monotonic()
    try:
        lacking = setting.lacks(failure.needs_features)
        if lacking is not None:
            how = f"boot one that has it (mainline from {lacking.since})"
            raise NotHere(f"this kernel has no {lacking.title}, which it takes to show this failure", how)
        if "cgroup2" in failure.needs_features and not cgroups.layout().cgroup2:
            how = "mount one: `mount -t cgroup2 none DIRECTORY`"
            raise NotHere("no cgroup2 is mounted, and it takes a cgroup of the run's own to show this failure", how)
        outcome, summary, evidence, observed = judged(failure, failure.recipe(setting))
    except NotHere as reason:
        outcome, summary, evidence, observed = _not_here(reason)
    except HarnessError as error:
        outcome, summary = Outcome.ERROR, f"could not find out: {error}"
        evidence, observed = {}, {"detail": error.detail}
    except OSError as error:
        outcome = Outcome.ERROR
        summary = f"could not find out: {errno_text(error.errno or 0)}: {error.filename or ''}"
        evidence, observed = {}, {}
    return Result(
        identity(failure), failure.title, outcome, summary, {"cause": failure.code.cause} | evidence, observed,
        failure.code.remedy, failure.guide, failure.code.id, seconds=time.monotonic() - started,
    )  # fmt: skip


Judgement = tuple[Outcome, str, dict[str, Json], dict[str, Json]]


def judged(failure: Failure, shown: Shown) -> Judgement:
    """Whether the failure came about as expected and the remedy worked."""
    failing, repaired = shown.failing, shown.repaired
    matters = wording.decisive(failing.log, failure.says)
    message = wording.own_message(failing) or wording.agents_message(failure, failing.word, failing.log)
    evidence: dict[str, Json] = {
        "did": failing.did,
        "answer": worded(failing.word),
        "expected": list(failure.expects),
        **({"matters": matters, "log": wording.stable(failing.log)} if failing.log else {}),
        "message": None if message is None else wording.stable(cut(message.text)),
        "the message alone says": wording.alone(message),
        "guide": dict(wording.compared(message, failure.family)),
        **dict(failing.facts),
        **dict(shown.facts),
        "remedy applied": failure.remedy if repaired else f"none here: {failure.remedy}",
    }
    if repaired is not None:
        evidence |= {"did then": repaired.did, "answer then": worded(repaired.word), **dict(repaired.facts)}
    varying = failing.log and failing.log != wording.stable(failing.log)
    observed: dict[str, Json] = dict(failing.observed) | dict(shown.observed)
    if repaired is not None:
        observed |= dict(repaired.observed)
    if varying:
        observed["log"] = failing.log
    problem = _problem(failure, failing, repaired) or shown.problem
    if problem:
        return Outcome.FAIL, problem, evidence, observed
    line = f" ({matters[-1].strip()})" if matters else ""
    summary = f"reproduced: {failing.did}: {worded(failing.word)}{line}"
    if repaired is None:
        summary += f"; the remedy, {failure.remedy}, is for that kernel to show"
    else:
        summary += f"; remedy works: {failure.remedy}: {worded(repaired.word)}"
    return Outcome.PASS, shown.summary or summary, evidence, observed


def _problem(failure: Failure, failing: Answer, repaired: Answer | None) -> str:
    if failing.word not in failure.expects:
        wanted = " or ".join(worded(word) for word in failure.expects)
        return f"not reproduced: {failing.did}: {worded(failing.word)}, not {wanted} as expected"
    if failure.says and not re.search(failure.says, failing.log, re.MULTILINE):
        return f"{failing.did}: {worded(failing.word)} as expected, but the log does not say /{failure.says}/"
    if repaired is not None and repaired.word != failure.repaired:
        return f"reproduced, but the remedy does not work: {repaired.did}: {worded(repaired.word)}"
    return ""


def worded(word: str) -> str:
    """`EBADF (Bad file descriptor)`; other words as they are."""
    number = getattr(errno, word, None)
    return word if number is None else errno_text(number)


def _not_here(reason: NotHere) -> Judgement:
    evidence: dict[str, Json] = {"why not here": reason.reason, "how to have it": reason.how, **dict(reason.facts)}
    summary = f"{reason.reason}; to have it, {reason.how}"
    observed: dict[str, Json] = {}
    if reason.nearest is not None:
        nearest = reason.nearest
        evidence |= {"nearest did": nearest.did, "nearest answer": worded(nearest.word), **dict(nearest.facts)}
        if nearest.log:
            evidence["nearest log"] = wording.stable(nearest.log)
        observed = dict(nearest.observed)
    return Outcome.SKIP, summary, evidence, observed
