"""Failed to attach connect4: which of the causes behind one message it is, by what the evidence says of cgroups.

A cause needs the message: a hybrid layout, say, is no fault where the agent attached all the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from harness.diagnose import bootloader
from harness.diagnose import facts as f
from harness.diagnose.case import EBPF, Case, Said
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.kernel.cgroups import Mount
from harness.msp import codes
from harness.msp.messages import Form
from harness.verifier import attach
from harness.verifier.explain import errno_in

ROOT = PurePosixPath("/sys/fs/cgroup")
OUR_PROGRAMS = frozenset({"connect4", "connect4_prog"})

ASKS = {
    question.id: Ask(question.command, question.asks, f"{cause.code.id} if {cause.meaning}")
    for cause in reversed(attach.CAUSES)
    for question in (cause.question,)
}
_UPGRADE = (
    "Opt out of MSP for this VM.",
    "Upgrade to the latest version of the OS (its kernel must list `nodev cgroup2` in /proc/filesystems).",
    "Enable MSP again.",
)


def failure(case: Case) -> Said | None:
    """The message of a failed attach, as it stands now."""
    return case.failing(EBPF, Form.ATTACH_LINK, Form.ATTACH_OTHER, Form.OPEN_CGROUP)


def _message(said: Said) -> Because:
    return because(said.source, "the agent's own words")


def _errno(said: Said) -> str | None:
    return errno_in(said.text)


def _allows(said: Said, *names: str) -> bool:
    """Whether the errno in the message, where there is one, is among these."""
    errno = _errno(said)
    return errno is None or errno in names


def _mounts(case: Case) -> f.Mounts | None:
    """The table of mounts that says something about cgroup2; one that shows some before one that shows none."""
    rows = [row for row in case.of(f.Mounts) if row.cgroup2 or row.says_about("cgroup2")]
    rows += _empty_answers(case) if not rows else []
    return max(rows, key=lambda row: len(row.cgroup2), default=None)


_ASKS_FOR_CGROUP2 = re.compile(
    r"(?:sudo )?(?:mount\s*\|\s*e?grep (?:-\w+ )?['\"]?cgroup2['\"]?|findmnt (?:-n )?-t cgroup2)"
)


def _empty_answers(case: Case) -> list[f.Mounts]:
    """The guide's command without a line that holds cgroup2: it printed nothing, or was not copied whole."""
    return [
        f.Mounts(replace(row.source, text=f"{row.command} (printed nothing)"), (), "cgroup2")
        for row in case.of(f.CommandOutput)
        if "cgroup2" not in row.output and _ASKS_FOR_CGROUP2.fullmatch(row.command.strip())
    ]


def _filesystems(case: Case) -> f.Filesystems | None:
    return next(iter(case.of(f.Filesystems)), None)


def _contradicted(case: Case) -> bool:
    """/proc/filesystems and the mounts are not of one machine."""
    table, kinds = _mounts(case), _filesystems(case)
    return bool(table and table.cgroup2 and kinds and not kinds.cgroup2)


def not_in_kernel(case: Case) -> Iterator[Finding]:
    """The guide's first question."""
    kinds, said = _filesystems(case), failure(case)
    if not kinds or kinds.cgroup2 or _contradicted(case) or case.running(EBPF):
        return
    if said and not _allows(said, "EBADF", "ENODEV", "ENOENT"):
        return
    yield Finding(
        codes.NO_CGROUP2_IN_KERNEL,
        "The kernel does not know cgroup2: `nodev cgroup2` is not in /proc/filesystems.",
        (because(kinds, "no `nodev cgroup2`"), *((_message(said),) if said else ())),
        Sure.CERTAIN if said else Sure.LIKELY,
        steps=_UPGRADE,
        answers=said.text if said else "",
    )


def not_mounted(case: Case) -> Iterator[Finding]:
    """The guide's second question."""
    table, said = _mounts(case), failure(case)
    kinds = _filesystems(case)
    if not table or table.cgroup2 or not table.says_about("cgroup2") or case.running(EBPF):
        return
    if (kinds and not kinds.cgroup2) or (said and not _allows(said, "EBADF", "ENOENT")):
        return
    supported = (because(kinds, "the kernel supports cgroup2"),) if kinds else ()
    yield Finding(
        codes.NO_CGROUP2_MOUNTED,
        "cgroup2 is mounted nowhere"
        + (", though the kernel supports it." if kinds else "; whether the kernel supports it is not shown."),
        (because(table, "no cgroup2 among the mounts"), *supported, *((_message(said),) if said else ())),
        Sure.CERTAIN if said and kinds and case.of(f.Mounts) else Sure.LIKELY,
        steps=bootloader.remedy(case.os, case.evidence.first(f.CommandLine)),
        asks=() if kinds else (ASKS["filesystems"],),
        answers=said.text if said else "",
    )


def elsewhere(case: Case) -> Iterator[Finding]:
    """Hybrid: cgroup2 below a tmpfs that holds v1 hierarchies."""
    table, said = _mounts(case), failure(case)
    if not table or not table.cgroup2 or not said or _contradicted(case) or not _allows(said, "EBADF", "ENOENT"):
        return
    points = [PurePosixPath(mount.point) for mount in table.cgroup2]
    if ROOT in points:
        return
    where = ", ".join(str(point) for point in points[:3])
    line = case.evidence.first(f.CommandLine)
    legacy = (because(line, "the boot asks for this layout"),) if line and line.get(bootloader.UNIFIED) else ()
    yield Finding(
        codes.CGROUP2_ELSEWHERE,
        f"cgroup2 is mounted at {where}, not at {ROOT}, where the agent's configuration points (hybrid layout).",
        (_message(said), because(table, f"cgroup2 is at {where}"), *legacy),
        Sure.CERTAIN if _errno(said) == "EBADF" else Sure.LIKELY,
        steps=(
            *bootloader.remedy(case.os, line),
            f'Until then, without a reboot: set "cgroupRoot": "{points[0]}" in /etc/azure/proxy-agent.json and restart '
            "azure-proxy-agent (the agent takes what `findmnt -t cgroup2` lists first, and cgroupRoot where findmnt "
            "fails).",
        ),
        asks=(ASKS["tree"],),
        answers=said.text,
    )


def first_mount(case: Case) -> Iterator[Finding]:
    """findmnt's first line is another product's mount, or a directory below the hierarchy's root."""
    table = _mounts(case)
    if not table or (len(table.cgroup2) < 2 and not _below_root(table.cgroup2[:1])):
        return
    first = table.cgroup2[0]
    if PurePosixPath(first.point) in (ROOT, ROOT / "unified") and not _below_root((first,)):
        return
    said = failure(case)
    yield Finding(
        codes.WRONG_CGROUP2_MOUNT,
        f"The first cgroup2 mount is {first.point}"
        + (f" (its root is {first.root})" if _below_root((first,)) else "")
        + ": the agent attaches there, and catches only what runs below it.",
        (because(table, "the first cgroup2 mount"), *((_message(said),) if said else ())),
        Sure.LIKELY,
        Role.CAUSE if said or not case.running(EBPF) else Role.NOTE,
        steps=(
            "Compare: findmnt -t cgroup2 -o TARGET,FSROOT (FSROOT must be /).",
            'Set "cgroupRoot": "/sys/fs/cgroup" in /etc/azure/proxy-agent.json, or have the other product mount later.',
            "sudo systemctl restart azure-proxy-agent",
        ),
        asks=(Ask("bpftool cgroup tree", "where is connect4 attached?", "whether the root is covered"),),
        answers=said.text if said else "",
    )


def _below_root(mounts: Sequence[Mount]) -> bool:
    return any(mount.root not in ("", "/") for mount in mounts)


def conflict(case: Case) -> Iterator[Finding]:
    """A program without `multi` shuts others out; 64 programs are the most."""
    said = failure(case)
    if not said or not _allows(said, "EPERM", "E2BIG"):
        return
    for table in case.of(f.CgroupPrograms):
        rows = [row for row in table.programs if row.connect4]
        exclusive = [row for row in rows if "multi" not in row.flags]
        if exclusive and _allows(said, "EPERM"):
            row = exclusive[0]
            yield Finding(
                codes.EXCLUSIVE_PROGRAM,
                f"Program {row.id} ({row.name or 'without a name'}) is attached at {row.cgroup or 'a cgroup'} "
                f"{f'with flag {row.flags}' if row.flags else 'exclusively'}: the kernel lets nobody beside it.",
                (because(table, "a connect4 program without `multi`"), _message(said)),
                Sure.CERTAIN,
                steps=(
                    f"Find whose it is: bpftool prog show id {row.id} (its pids), bpftool cgroup tree.",
                    "Have that product attach with BPF_F_ALLOW_MULTI or by a bpf_link, or stop it.",
                    "sudo systemctl restart azure-proxy-agent",
                ),
                answers=said.text,
            )
            return
        if len(rows) >= 64 and _allows(said, "E2BIG"):
            yield Finding(
                codes.TOO_MANY_PROGRAMS,
                f"{len(rows)} connect4 programs are attached; 64 are the most.",
                (because(table, "the list of programs"), _message(said)),
                Sure.CERTAIN,
                answers=said.text,
            )
            return


def not_opened(case: Case) -> Iterator[Finding]:
    said = case.failing(EBPF, Form.OPEN_CGROUP)
    if said and said.message and not _explained(case):
        path = said.message.fields["path"]
        yield Finding(
            codes.CGROUP_NOT_OPENED,
            f"The agent could not open {path}{f': {_errno(said)}' if _errno(said) else ''}.",
            (_message(said),),
            Sure.CERTAIN,
            steps=(
                f"ls -ld {shlex.quote(path)}; findmnt -t cgroup2",
                "Correct cgroupRoot in /etc/azure/proxy-agent.json, or mount cgroup2 there (see the boot loader).",
                "sudo systemctl restart azure-proxy-agent",
            ),
            asks=(ASKS["findmnt"],),
            answers=said.text,
        )


def _explained(case: Case) -> bool:
    """Whether mounts or file systems already say why."""
    return any(True for rule in (not_in_kernel, not_mounted, elsewhere) for _ in rule(case))


def by_errno(case: Case) -> Iterator[Finding]:
    """A message that names the errno leaves few causes; one is a verdict."""
    said = case.failing(EBPF, Form.ATTACH_OTHER, Form.ATTACH_LINK)
    if not said or not (errno := _errno(said)) or _decided(case):
        return
    open_causes = [cause for cause in attach.CAUSES if cause.errno == errno]
    for cause in open_causes:
        yield Finding(
            cause.code,
            f"The kernel answered {errno}: {cause.code.title[:1].lower()}{cause.code.title[1:]}"
            f" ({'the only cause known for it' if len(open_causes) == 1 else 'one of those that give it'}).",
            (_message(said),),
            Sure.LIKELY if len(open_causes) == 1 else Sure.POSSIBLE,
            asks=(ASKS[cause.question.id],),
            answers=said.text,
        )


def _decided(case: Case) -> bool:
    return _explained(case) or any(True for _ in conflict(case)) or case.failing(EBPF, Form.OPEN_CGROUP) is not None


def undecided(case: Case) -> Iterator[Finding]:
    """The message alone: one text for every cause. What the evidence rules out is not asked again."""
    said = case.failing(EBPF, Form.ATTACH_LINK, Form.ATTACH_OTHER)
    if not said or _errno(said) or _decided(case) or _too_old(case):
        return
    asks: list[Ask] = []
    ruled_out: list[Because] = []
    kinds, table, kernel = _filesystems(case), _mounts(case), case.kernel
    if kinds and kinds.cgroup2:
        ruled_out.append(because(kinds, "the kernel supports cgroup2"))
    else:
        asks.append(ASKS["filesystems"])
    if table and any(PurePosixPath(mount.point) == ROOT for mount in table.cgroup2):
        ruled_out.append(because(table, "cgroup2 is mounted at /sys/fs/cgroup"))
    else:
        asks += [ASKS["mounts"], ASKS["findmnt"]]
    trees = case.of(f.CgroupPrograms)
    if trees:
        ruled_out.append(because(trees[0], "no program stands in the way"))
    else:
        asks.append(ASKS["tree"])
    asks.append(ASKS["capabilities"])
    if not kernel:
        asks.append(ASKS["release"])
    yield Finding(
        codes.ATTACH_FAILED_UNKNOWN,
        "The agent loaded connect4 and could not attach it; the message drops the errno, so one text covers "
        f"{'what is left of ' if ruled_out else ''}ten causes.",
        (_message(said), *ruled_out),
        Sure.POSSIBLE,
        steps=("Answer the questions below, in their order; each rules a cause in or out.",),
        asks=tuple(asks),
        answers=said.text,
    )


def _too_old(case: Case) -> bool:
    said = case.failing(EBPF, Form.ATTACH_LINK)
    return bool(said and case.kernel and case.kernel.version and case.kernel.version < (5, 7))


def impossible(case: Case) -> Iterator[Finding]:
    """`bpf_link_create` beside a kernel below 5.7: the agent does not call it there."""
    if _too_old(case) and case.kernel and (said := case.failing(EBPF, Form.ATTACH_LINK)):
        yield Finding(
            codes.CONTRADICTORY_KERNEL,
            f"The message says bpf_link_create, which the agent calls from 5.7 on; the kernel is {case.release}.",
            (_message(said), because(case.kernel, "a kernel without that call")),
            Sure.CERTAIN,
            Role.CONTRADICTION,
            steps=("Collect status.json and `uname -r` again, from the same machine and the same boot.",),
            asks=(ASKS["release"],),
            answers=said.text,
        )


_SAID = (f.AgentStatus, f.AgentLogEvent, f.UnitLog, f.StatusTag, f.ProvisioningReport, f.ExtensionStatus)
_MOUNTS, _KINDS = (f.Mounts,), (f.Filesystems,)

RULES: Sequence[Rule] = (
    Rule("setup.attach.not-in-kernel", "The kernel has no cgroup2", not_in_kernel, (_KINDS,),
         (codes.NO_CGROUP2_IN_KERNEL,),
         ("setup.attach#step2", "setup.attach#block2", "setup.attach#grep cgroup /proc/filesystems",
          "setup.attach#nodev cgroup2", "setup.attach#block1", "setup.attach")),
    Rule("setup.attach.not-mounted", "cgroup2 is supported and not mounted", not_mounted,
         ((f.Mounts, f.CommandOutput),),
         (codes.NO_CGROUP2_MOUNTED,),
         ("setup.attach#step3", "setup.attach#block3", "setup.attach#block4", "setup.attach#mount | grep cgroup2",
          "service.linux#step2")),
    Rule("setup.attach.elsewhere", "cgroup2 is mounted elsewhere (hybrid)", elsewhere, (_SAID, _MOUNTS),
         (codes.CGROUP2_ELSEWHERE,), ("setup.attach#step3", "setup.attach#block4")),
    Rule("setup.attach.first-mount", "The first cgroup2 mount is not the root", first_mount, (_MOUNTS,),
         (codes.WRONG_CGROUP2_MOUNT,), ("setup.attach",), Sure.LIKELY),
    Rule("setup.attach.conflict", "Another program is in the way", conflict, (_SAID, (f.CgroupPrograms,)),
         (codes.EXCLUSIVE_PROGRAM, codes.TOO_MANY_PROGRAMS), ("setup.attach",)),
    Rule("setup.attach.not-opened", "The cgroup could not be opened", not_opened, (_SAID,),
         (codes.CGROUP_NOT_OPENED,), ("setup.attach",)),
    Rule("setup.attach.errno", "The message names the errno", by_errno, (_SAID,),
         tuple(dict.fromkeys(cause.code for cause in attach.CAUSES)), ("setup.attach",), Sure.LIKELY),
    Rule("setup.attach.undecided", "Attaching failed, and the cause is open", undecided, (_SAID,),
         (codes.ATTACH_FAILED_UNKNOWN,), ("setup.attach#block1", "setup.attach#step1", "setup.attach"),
         Sure.POSSIBLE),
    Rule("setup.attach.impossible", "bpf_link_create beside a kernel below 5.7", impossible,
         (_SAID, (f.KernelRelease,)), (codes.CONTRADICTORY_KERNEL,), ("setup.attach#block1",), Sure.CERTAIN,
         Role.CONTRADICTION),
)  # fmt: skip
