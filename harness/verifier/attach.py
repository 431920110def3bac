"""Why bpf_link_create failed: the causes that one message covers, and the question that decides each.

A question is a command that somebody runs on the machine; Answers maps a question's id to what it printed (or to the
contents of the file that the command reads). A test looks at one answer and says yes (this is the cause), no (it is
not), or None (it does not say). Answers are data from a stranger: text, looked at and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.msp import codes
from harness.msp.codes import Code

Answers = Mapping[str, str]
Test = Callable[[str], bool | None]

_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 1 << 12, 1 << 21, 1 << 39


@dataclass(frozen=True)
class Question:
    id: str
    command: str
    asks: str


@dataclass(frozen=True)
class Cause:
    """One possible cause: the errno behind the message, and how an answer decides it."""

    code: Code
    errno: str
    question: Question
    meaning: str  # which answer speaks for it
    test: Test

    @property
    def text(self) -> str:
        return f"{self.code.id} {self.code.title} ({self.errno}): {self.meaning}"


@dataclass(frozen=True)
class Weighed:
    """A cause with what the answers say of it."""

    cause: Cause
    verdict: bool | None  # True: this is it; False: ruled out; None: open
    answer: str | None  # the question's answer, where there is one


RELEASE = Question("release", "uname -r", "which kernel runs?")
FILESYSTEMS = Question("filesystems", "grep cgroup /proc/filesystems", "does the kernel know cgroup2?")
MOUNTS = Question("mounts", "mount | grep cgroup2", "is cgroup2 mounted?")
FINDMNT = Question("findmnt", "findmnt -t cgroup2", "where is cgroup2 mounted, and which mount is first?")
TREE = Question("tree", "bpftool cgroup tree", "which programs are attached, and how?")
CAPABILITIES = Question(
    "capabilities", "grep CapEff /proc/$(pidof azure-proxy-agent)/status", "which capabilities has the agent?"
)
COUNT = Question("count", "bpftool cgroup show /sys/fs/cgroup", "how many programs does the cgroup hold?")
EXPECTED = Question("expected", "azure-proxy-agent --version", "are the agent and its eBPF object of one release?")
CGROUP = Question("cgroup", "ls -d /sys/fs/cgroup/cgroup.controllers", "does the cgroup directory still exist?")

QUESTIONS = (RELEASE, FILESYSTEMS, MOUNTS, FINDMNT, TREE, CAPABILITIES, COUNT, EXPECTED, CGROUP)


def version(release: str) -> tuple[int, int] | None:
    """(5, 10) for `5.10.0-46-cloud-amd64`."""
    match = re.search(r"\b(\d{1,3})\.(\d{1,4})", release)
    return (int(match.group(1)), int(match.group(2))) if match else None


def _before_5_7(answer: str) -> bool | None:
    found = version(answer)
    return None if found is None else found < (5, 7)


def _not_in_kernel(answer: str) -> bool | None:
    return not re.search(r"^nodev\s+cgroup2\s*$", answer, re.MULTILINE)


def _not_mounted(answer: str) -> bool | None:
    return not re.search(r"\bcgroup2\b", answer)


def _targets(answer: str) -> list[str]:
    """The mount points in findmnt's or mount's output."""
    found = []
    for line in answer[:65536].splitlines():
        words = line.split()
        if "on" in words[1:2] and len(words) > 2:  # cgroup2 on /sys/fs/cgroup type cgroup2
            words = words[2:]
        if words and (at := words[0].find("/")) >= 0:  # findmnt draws a tree before the path
            found.append(words[0][at:])
    return found


def _elsewhere(answer: str) -> bool | None:
    targets = _targets(answer)
    return None if not targets else "/sys/fs/cgroup" not in targets


def _first_is_not_root(answer: str) -> bool | None:
    targets = _targets(answer)
    if not targets:
        return None
    return targets[0] not in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def _exclusive(answer: str) -> bool | None:
    """bpftool prints ID, type, flags, name; a row without flags is exclusive."""
    rows = [line.split() for line in answer.splitlines() if re.search(r"\b(?:cgroup_inet4_)?connect4\b", line)]
    if not rows:
        return False if answer.strip() else None
    return any("multi" not in row for row in rows)


def _too_many(answer: str) -> bool | None:
    return sum("connect4" in line for line in answer.splitlines()) >= 64 if answer.strip() else None


def _privilege_missing(answer: str) -> bool | None:
    match = re.search(r"\b([0-9a-f]{16})\b", answer)
    if not match:
        return None
    held = int(match.group(1), 16)
    enough = held & _CAP_SYS_ADMIN or (held & _CAP_BPF and held & _CAP_NET_ADMIN)
    return not enough


def _unknown(answer: str) -> bool | None:
    return None


def _gone(answer: str) -> bool | None:
    return "No such file" in answer or None


# In the order in which to ask: what the guide asks first, then what is frequent, then what is rare.
CAUSES: tuple[Cause, ...] = (
    Cause(codes.NO_CGROUP2_IN_KERNEL, "EBADF", FILESYSTEMS, "`nodev cgroup2` is not listed", _not_in_kernel),
    Cause(codes.NO_CGROUP2_MOUNTED, "EBADF", MOUNTS, "nothing is printed", _not_mounted),
    Cause(codes.CGROUP2_ELSEWHERE, "EBADF", FINDMNT, "no TARGET is /sys/fs/cgroup (often …/unified)", _elsewhere),
    Cause(codes.NOT_CGROUP2, "EBADF", FINDMNT, "the first TARGET is not a cgroup2 root", _first_is_not_root),
    Cause(codes.EXCLUSIVE_PROGRAM, "EPERM", TREE, "a connect4 row without `multi` flag", _exclusive),
    Cause(codes.NO_PRIVILEGE_TO_ATTACH, "EPERM", CAPABILITIES, "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_NET_ADMIN",
          _privilege_missing),
    Cause(codes.TOO_MANY_PROGRAMS, "E2BIG", COUNT, "64 rows with connect4", _too_many),
    Cause(codes.CGROUP_REMOVED, "ENODEV", CGROUP, "it does not exist", _gone),
    Cause(codes.ATTACH_TYPE_MISMATCH, "EINVAL", EXPECTED, "the object is of another release", _unknown),
    Cause(codes.NO_CGROUP_LINK, "EINVAL", RELEASE, "below 5.7: then the message contradicts it", _before_5_7),
)  # fmt: skip

NO_LINK_BEFORE = (
    "The agent calls bpf_link_create only where the kernel is 5.7 or later; beside an older `uname -r` this message is "
    "contradictory: the two were taken from different boots, or the loader is another one."
)


def weigh(answers: Answers, errno: str | None = None) -> list[Weighed]:
    """The causes with their verdicts: confirmed first, then the open ones in order, then those ruled out.

    errno: the name behind the message (EBADF …) where somebody has it; it rules out what gives another.
    """
    rows = []
    for cause in CAUSES:
        answer = answers.get(cause.question.id)
        verdict = cause.test(answer) if answer is not None else None
        if errno and errno != cause.errno:
            verdict = False
        rows.append(Weighed(cause, verdict, answer))
    rank = {True: 0, None: 1, False: 2}
    return sorted(rows, key=lambda row: rank[row.verdict])


def questions(rows: Sequence[Weighed]) -> list[Question]:
    """What is still to be asked, each once, in order."""
    open_ones = [row.cause.question for row in rows if row.verdict is None and row.answer is None]
    return list(dict.fromkeys(open_ones))
