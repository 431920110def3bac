"""Failures whose cause is what the process may do: capabilities, user namespaces, seccomp, limits, LSM, lockdown.

Every step is done in a child that gives something up for good; the same step in a child that keeps everything is the
remedy. The agent loads before it attaches, so a missing privilege mostly shows in its load message.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError, errno_text
from harness.failures import children, lsm
from harness.failures.assembler import ALLOW, EXIT, add, call, copy, set_to, store
from harness.failures.attach_targets import CONNECT4, allowing
from harness.failures.model import ACCEPTED, Answer, Failure, Family, NotHere, Recipe, Setting, Shown, asked
from harness.kernel import bpf, cgroups, facts
from harness.kernel.bpf import MapType, ProgramType
from harness.msp import codes, verifier_codes
from harness.msp.messages import Form
from harness.report.model import Json

_BPF, _NET, _PERFMON, _SYS = "CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2  # include/uapi/linux/{prctl,seccomp}.h
_SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # __NR_bpf
_EPERM = 1
_SMALL = 4096  # bytes of locked memory: less than any map needs where maps are charged

_libc = ctypes.CDLL(None, use_errno=True)

Step = Callable[[], Answer]


def load_connect4() -> Answer:
    def step() -> tuple[bpf.Fd, str]:
        return bpf.prog_load(ProgramType.CGROUP_SOCK_ADDR, ALLOW, attach=CONNECT4, name="connect4")

    return asked("BPF_PROG_LOAD of a connect4 program", step)


def load_kprobe() -> Answer:
    return asked(
        "BPF_PROG_LOAD of a kprobe program",
        lambda: bpf.prog_load(ProgramType.KPROBE, ALLOW, name="tcp_v4_connect"),
    )


def load_kprobe_that_reads() -> Answer:
    return asked(
        "BPF_PROG_LOAD of a kprobe program that calls bpf_probe_read",
        lambda: bpf.prog_load(ProgramType.KPROBE, _PROBE_READ + ALLOW, name="tcp_v4_connect"),
    )


# bpf_probe_read(to r10 - 8, 8 bytes, from 0)
_PROBE_READ = set_to(3, 0) + store(8, 10, -8, 3) + copy(1, 10) + add(1, -8) + set_to(2, 8) + call(4)


def _load_filter() -> Answer:
    return asked(
        "BPF_PROG_LOAD of a socket filter", lambda: bpf.prog_load(ProgramType.SOCKET_FILTER, set_to(0, 0) + EXIT)
    )


def create_map() -> Answer:
    """The size at which older kernels exceed the default limit of 64 KiB (1,024 entries of 8 and 64 bytes)."""
    return asked(
        "BPF_MAP_CREATE of a hash map of 1024 entries",
        lambda: bpf.map_create(MapType.HASH, 8, 64, 1024, name="policy_map"),
    )


def as_child(step: Step, prepare: Callable[[], None] | None = None, with_words: str = "") -> Answer:
    """The step in a child after it gave something up; with_words is added to what was done."""

    def in_child() -> list[Answer]:
        if prepare is not None:
            prepare()
        return [step()]

    (answer,) = children.in_child(in_child)
    return Answer(f"{answer.did} {with_words}".rstrip(), answer.word, answer.log)


def _refused(step: Step, prepare: Callable[[], None], words: str) -> Recipe:
    def recipe(setting: Setting) -> Shown:
        return Shown(as_child(step, prepare, words), as_child(step, None, "with everything it had"))

    return recipe


def _without(*names: str) -> Callable[[], None]:
    return lambda: children.drop_capabilities(names)


def _with_only(*names: str) -> Callable[[], None]:
    return lambda: children.keep_capabilities(names)


def _deny_bpf() -> None:
    """A seccomp filter that answers EPERM to bpf(2), as container runtimes do. Classic BPF: code, jt, jf, k."""
    number = _SYSCALL[platform.machine()]
    lines = [
        (0x20, 0, 0, 0),  # A = seccomp_data.nr
        (0x15, 0, 1, number),  # if A == number
        (0x06, 0, 0, _SECCOMP_RET_ERRNO | _EPERM),
        (0x06, 0, 0, _SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    filter_program = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(code)))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_program, 0, 0):
        number = ctypes.get_errno()
        raise HarnessError("install a seccomp filter", errno_text(number), errno=number)


# --- each capability in turn ------------------------------------------------------------------------------------

_SETS: dict[str, Callable[[], None]] = {
    "all": lambda: None,
    "all but CAP_BPF": _without(_BPF),
    "all but CAP_NET_ADMIN": _without(_NET),
    "all but CAP_PERFMON": _without(_PERFMON),
    "all but CAP_SYS_ADMIN": _without(_SYS),
    "all but CAP_BPF and CAP_SYS_ADMIN": _without(_BPF, _SYS),
    "all but CAP_NET_ADMIN and CAP_SYS_ADMIN": _without(_NET, _SYS),
    "all but CAP_PERFMON and CAP_SYS_ADMIN": _without(_PERFMON, _SYS),
    "CAP_BPF and CAP_NET_ADMIN": _with_only(_BPF, _NET),
    "CAP_BPF": _with_only(_BPF),
    "CAP_NET_ADMIN": _with_only(_NET),
    "CAP_SYS_ADMIN": _with_only(_SYS),
    "none": _with_only(),
}


def _map_without_capability(setting: Setting) -> Shown:
    failing = as_child(create_map, _without(_BPF, _SYS), "without CAP_BPF and CAP_SYS_ADMIN")
    if failing.word == ACCEPTED:
        raise NotHere(
            "this kernel lets everybody create hash maps: kernel.unprivileged_bpf_disabled is "
            f"{facts.sysctl('kernel.unprivileged_bpf_disabled')}",
            "set kernel.unprivileged_bpf_disabled to 1 or 2, as distributions do",
            failing,
        )
    return Shown(failing, as_child(create_map, None, "with everything it had"))


def _each_capability(setting: Setting) -> Shown:
    """Map, both programs, link and PROG_ATTACH under each set of capabilities: which refuses what."""
    table: dict[str, Json] = {}
    with (
        setting.cgroup("capabilities") as path,
        allowing() as program,
        bpf.Fd(cgroups.open_directory(path)) as directory,
    ):

        def link() -> Answer:
            return asked("link", lambda: bpf.link_create(directory.fileno(), program, CONNECT4))

        def attach() -> Answer:
            def both() -> None:
                bpf.prog_attach(directory.fileno(), program, CONNECT4)

            return asked("PROG_ATTACH", both)

        steps: dict[str, Step] = {"map": create_map, "connect4": load_connect4, "kprobe": load_kprobe,
                                  "link": link, "PROG_ATTACH": attach}  # fmt: skip
        for words, prepare in _SETS.items():

            def every(prepare: Callable[[], None] = prepare) -> list[Answer]:
                prepare()
                return [step() for step in steps.values()]

            answers = children.in_child(every)
            if answers[-1].word == ACCEPTED:
                bpf.prog_detach(directory.fileno(), program, CONNECT4)
            table[words] = {name: answer.word for name, answer in zip(steps, answers, strict=True)}
    failing = as_child(load_connect4, _with_only(), "with no capability")
    return Shown(failing, as_child(load_connect4, _with_only(_BPF, _NET), "with CAP_BPF and CAP_NET_ADMIN only"),
                 facts={"answers by capabilities": table})  # fmt: skip


# --- what depends on the kernel ---------------------------------------------------------------------------------


def _attach_unprivileged(setting: Setting) -> Shown:
    """Attach, without any capability, a program that a privileged parent loaded."""
    with (
        setting.cgroup("unprivileged") as path,
        allowing() as program,
        bpf.Fd(cgroups.open_directory(path)) as directory,
    ):

        def link() -> Answer:
            return asked(
                "BPF_LINK_CREATE of a program loaded before,",
                lambda: bpf.link_create(directory.fileno(), program, CONNECT4),
            )

        failing = as_child(link, _with_only(), "with no capability")
        if failing.word == ACCEPTED:
            raise NotHere(
                "this kernel asks for privilege when a program is loaded, and for none when it is attached: "
                "whoever holds a program and a cgroup may attach",
                "boot a kernel before 6.5 with kernel.unprivileged_bpf_disabled set: all of bpf(2) is refused there",
                failing,
                {"unprivileged_bpf_disabled": facts.sysctl("kernel.unprivileged_bpf_disabled")},
            )
        return Shown(failing, as_child(link, None, "with everything it had"))


def _unprivileged(setting: Setting) -> Shown:
    failing = as_child(load_connect4, children.become_nobody, "as uid 65534")
    shown: dict[str, Json] = {
        "kernel.unprivileged_bpf_disabled": facts.sysctl("kernel.unprivileged_bpf_disabled"),
        "a socket filter, which that switch decides about": as_child(_load_filter, children.become_nobody).word,
    }
    return Shown(failing, as_child(load_connect4, None, "as root"), facts=shown)


def _memlock(setting: Setting) -> Shown:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (_SMALL, _SMALL))

    def large() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    failing = as_child(create_map, small, f"with RLIMIT_MEMLOCK {_SMALL}")
    if failing.word == ACCEPTED:
        raise NotHere(
            f"this kernel does not charge maps to RLIMIT_MEMLOCK: with a limit of {_SMALL} bytes the map is created",
            "boot a kernel before 5.11 (Debian 5.10, the lab kernels): the same step gives EPERM there",
            failing,
        )
    return Shown(failing, as_child(create_map, large, "with RLIMIT_MEMLOCK infinity"))


def _lsm(setting: Setting) -> Shown:
    """A policy of our own in the BPF security module, about a child of ours alone, which ends with it."""
    active = lsm.active()
    shown: dict[str, Json] = {"active": "not shown (no securityfs)" if active is None else ",".join(active)}
    hook = lsm.hook()
    if hook is None:
        raise NotHere(
            f"no security module refuses bpf(2) to this process (active: {shown['active']}), and bpf is not among them",
            "boot a kernel with CONFIG_BPF_LSM and bpf in its lsm=, as Debian's are from 6.1 on; or run it in a domain "
            "whose SELinux policy lacks map_create",
            as_child(create_map),
            shown,
        )
    failing = as_child(
        create_map, lambda: _keep(lsm.refuse_maps_to(os.getpid(), hook)), "under a policy that denies it"
    )
    return Shown(failing, as_child(create_map, None, "without that policy"), facts=shown)


def _keep(descriptor: int) -> None:
    """It is the child's until it ends."""


def _lockdown(setting: Setting) -> Shown:
    mode = facts.lockdown()
    answer = as_child(load_kprobe_that_reads)
    if mode != "confidentiality" or answer.word == ACCEPTED:
        shown = "this kernel has no lockdown, or does not show it" if mode is None else f"lockdown is {mode!r} here"
        raise NotHere(
            f"{shown}: reading kernel memory from a program is allowed",
            "boot with lockdown=confidentiality on a kernel with CONFIG_SECURITY_LOCKDOWN_LSM",
            answer,
        )
    return Shown(answer, as_child(load_kprobe, None, "(without bpf_probe_read)"))


_LOAD = verifier_codes.NO_PRIVILEGE_TO_LOAD
_MAP = Form.LOAD_OBJECT  # maps are made while the object is loaded, before any program


def _privilege(
    name: str, title: str, step: Step, prepare: Callable[[], None], words: str, remedy: str, **more: Any
) -> Failure:
    return Failure(name, title, Family.LOAD, _LOAD, ("EPERM",), _refused(step, prepare, words), remedy, **more)


PRIVILEGES = (
    _privilege("load-no-cap-bpf", "CAP_BPF is missing", load_connect4, _without(_BPF, _SYS),
               "without CAP_BPF and CAP_SYS_ADMIN", "the capabilities were kept"),
    _privilege("load-no-cap-net-admin", "CAP_NET_ADMIN is missing", load_connect4, _without(_NET, _SYS),
               "without CAP_NET_ADMIN and CAP_SYS_ADMIN", "the capabilities were kept"),
    _privilege("load-no-cap-perfmon", "CAP_PERFMON is missing: the agent's kprobe does not load", load_kprobe,
               _without(_PERFMON, _SYS), "without CAP_PERFMON and CAP_SYS_ADMIN", "the capabilities were kept",
               program="tcp_v4_connect"),
    Failure("map-no-cap-bpf", "CAP_BPF is missing: no map can be created", Family.LOAD, _LOAD, ("EPERM",),
            _map_without_capability, "the capabilities were kept", needs="kernel.unprivileged_bpf_disabled", form=_MAP,
            features=()),
    Failure("load-capabilities", "Each capability taken away in turn", Family.LOAD, _LOAD, ("EPERM",), _each_capability,
            "CAP_BPF and CAP_NET_ADMIN were kept", features=("cgroup2", "connect4", "bpf-link")),
    Failure("load-unprivileged", "A user without privilege (kernel.unprivileged_bpf_disabled)", Family.LOAD, _LOAD,
            ("EPERM",), _unprivileged, "the same was done as root"),
    _privilege("load-user-namespace", "Root of a user namespace is not root for bpf(2)", load_connect4,
               children.become_namespace_root, "as root of a user namespace", "the same was done in the initial one"),
    _privilege("load-seccomp", "A container's seccomp filter refuses bpf(2)", load_connect4, _deny_bpf,
               "under a seccomp filter that answers EPERM to bpf(2)", "the same was done without the filter"),
    Failure("attach-no-privilege", "The privilege to attach is missing", Family.ATTACH, codes.NO_PRIVILEGE_TO_ATTACH,
            ("EPERM",), _attach_unprivileged, "the capabilities were kept", needs="a kernel before 6.5"),
    Failure("map-memlock", "RLIMIT_MEMLOCK stops map creation", Family.LOAD, verifier_codes.MEMLOCK, ("EPERM",),
            _memlock, "the limit was lifted", needs="a kernel before 5.11", form=_MAP, features=()),
    Failure("map-lsm", "A security module refuses bpf(2)", Family.LOAD, _LOAD, ("EPERM", "EACCES"), _lsm,
            "the policy allows it", needs="an LSM whose policy denies bpf(2)", form=_MAP, features=()),
    Failure("load-lockdown", "Lockdown forbids a program to read kernel memory", Family.LOAD, _LOAD, ("EPERM",
            "EINVAL"), _lockdown, "the program did without bpf_probe_read", needs="lockdown=confidentiality",
            program="tcp_v4_connect", features=()),
)  # fmt: skip
