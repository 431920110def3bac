"""What the agent would have written into status.json, and how that compares with the guide's text."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from functools import cache

from harness.failures.model import ACCEPTED, Answer, Failure, Family
from harness.msp import guide, mask, messages
from harness.msp.mask import Comparison
from harness.msp.messages import Form, Message
from harness.report.model import Json
from harness.verifier.explain import explain_text

OBJECT = "/usr/lib/azure-proxy-agent/ebpf_cgroup.o"
"""Where the agent's packages put its object."""

CONFIGURED_ROOT = "/sys/fs/cgroup"

_VARIES = re.compile("|".join(f"(?:{row.pattern})" for row in mask.MASKS if row.placeholder in ("<address>", "<time>")))


def own_message(answer: Answer) -> Message | None:
    """The message that a running agent gave; None where none ran, or where its words are of no known form."""
    return messages.parse(answer.message) if answer.message else None


def agents_message(failure: Failure, word: str, log: str) -> Message | None:
    """The agent's message for what the kernel answered; None where the agent sees no failure at all."""
    if word == ACCEPTED:
        return None
    number = getattr(errno, word, 0)
    said = f"{os.strerror(number)} (os error {number})"
    if failure.form is Form.OPEN_CGROUP:
        return Message(Form.OPEN_CGROUP, {"path": CONFIGURED_ROOT, "error": said}, prefixed=True)
    if failure.form is Form.LOAD_OBJECT:
        # The words after `error:` are the loader library's; only the errno in them comes from this kernel.
        error = f"map error: failed to create map `policy_map` with code -{number}: {said}"
        return Message(Form.LOAD_OBJECT, {"path": OBJECT, "error": error}, prefixed=True)
    if failure.family is Family.LOAD:
        return Message(Form.LOAD, {"name": failure.program, "log": log.rstrip("\n")}, prefixed=True)
    if failure.family is Family.ATTACH:
        return Message(Form.ATTACH_LINK, {"name": failure.program}, prefixed=True)
    return None


def alone(message: Message | None) -> Json:
    """What can be told from the message alone, without the errno: codes and titles, the most telling first."""
    if message is None:
        return None
    return [f"{row.code.id} {row.code.title}" for row in explain_text(messages.cut(message.text))]


@cache
def guides_message(family: Family) -> Message | None:
    """The guide's own message for a family of failures, read out of its excerpt of status.json."""
    names = {Family.LOAD: guide.LOAD_EXCERPT, Family.ATTACH: guide.ATTACH_EXCERPT}
    if family not in names:
        return None
    fragment = guide.excerpt(names[family]).strip().rstrip(",")
    return messages.parse(json.loads("{" + fragment + "}")["ebpfProgramStatus"]["message"])


def compared(ours: Message | None, family: Family) -> Mapping[str, Json]:
    """The two messages beside one another: the fixed words exactly, a verifier log line by line under the mask."""
    theirs = guides_message(family)
    if ours is None:
        return {
            "text": "the agent reports no failure: ebpfProgramStatus stays RUNNING, and the guide has no text for it"
        }
    if theirs is None or ours.form is not theirs.form:
        return {"text": "the guide has no text for this message", "form": ours.form.name}
    if ours.form is not Form.LOAD:
        same = ours.fields == theirs.fields
        return {"text": "the same, word for word" if same else "another", "similarity": 1.0 if same else 0.0}
    if not ours.fields["log"]:
        return {"text": "the same words, and no verifier output: the kernel refused before it verified anything"}
    comparison = compare_logs(stable(ours.fields["log"]))
    return {
        "text": "the same up to the verifier's output, which depends on the program",
        "similarity": round(comparison.similarity, 3),
        "lines the same": f"{comparison.same} of {comparison.guide_total}",
        "mask": mask.mask_text().splitlines(),
        **({"side by side": comparison.text.splitlines()} if comparison.same else {}),
    }


def compare_logs(log: str) -> Comparison:
    """A verifier log beside the guide's."""
    theirs = guides_message(Family.LOAD)
    assert theirs is not None  # it is part of the package
    return mask.diff(theirs.fields["log"].splitlines(), log.splitlines())


def stable(log: str) -> str:
    """The log with addresses and times masked: the same in every run on the same kernel."""
    return _VARIES.sub(lambda match: "<address>" if match.group().startswith("0x") else "<time>", log)


_STATISTICS = re.compile(r"processed \d|max_states|verification time|stack depth")


def decisive(log: str, says: str) -> list[str]:
    """The lines of a log that matter: those that match `says`, else the last one before the statistics."""
    lines = [line for line in stable(log).splitlines() if line.strip() and not _STATISTICS.match(line)]
    found = [line for line in lines if says and re.search(says, line)]
    return found[-2:] or lines[-1:]
