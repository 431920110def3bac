"""Children of a recipe: a step done with other privileges or in other namespaces, which end with the child.

Descriptors that the parent holds are the child's too. A child dies with its parent, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.failures.model import Answer
from harness.kernel import cgroups, facts, processes
from harness.kernel.processes import Namespace
from harness.lab.worker import end

PATIENCE = 10.0  # seconds until a child that does not answer is given up
NOBODY = 65534

_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


def in_child(step: Callable[[], list[Answer]]) -> list[Answer]:
    """Have a forked child do something, and give its answers. Raises HarnessError with what it raised."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = processes.fork_child()
    if pid == 0:
        os.close(reading)
        _be_child(parent, writing, step)
    os.close(writing)
    try:
        packet = _read(reading)
    finally:
        os.close(reading)
        end(pid)
    told = json.loads(packet)
    if "error" in told:
        raise HarnessError(told["attempted"], told["error"], errno=told["errno"])
    return [Answer(**answer) for answer in told["answers"]]


def _read(reading: int) -> bytes:
    packet = b""
    while select.select([reading], [], [], PATIENCE)[0]:
        piece = os.read(reading, 1 << 20)
        packet += piece
        if not piece:
            if not packet:
                raise HarnessError("have a child do a step", "it ended without a word")
            return packet
    raise HarnessError("have a child do a step", f"no answer within {PATIENCE:g} s")


def _be_child(parent: int, writing: int, step: Callable[[], list[Answer]]) -> None:
    """The child: never returns."""
    try:
        processes.die_with_parent(parent)
        told: dict[str, object] = {"answers": [asdict(answer) for answer in step()]}
    except HarnessError as error:
        told = {"attempted": error.attempted, "error": error.happened, "errno": error.errno}
    except BaseException as error:
        told = {"attempted": "do a step in a child", "error": f"{type(error).__name__}: {error}", "errno": 0}
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(told).encode())
    finally:
        os._exit(0)


# --- privileges -------------------------------------------------------------------------------------------------


def keep_capabilities(names: Iterable[str]) -> None:
    """Give up every capability but these (names of harness.kernel.facts), for good. For a child."""
    _set_capabilities(_mask(names) & _effective())


def drop_capabilities(names: Iterable[str]) -> None:
    """Give up these capabilities (names of harness.kernel.facts) for good, and keep the others. For a child."""
    _set_capabilities(_effective() & ~_mask(names))


def _mask(names: Iterable[str]) -> int:
    return sum(1 << facts.CAPABILITIES[name] for name in set(names))


def _effective() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _set_capabilities(mask: int) -> None:
    """capset(2): effective and permitted; the inheritable set is emptied."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)):
        number = ctypes.get_errno()
        raise HarnessError("give up capabilities", errno_text(number), errno=number)


def become_nobody() -> None:
    """Lose root, and with it every capability. For a child."""
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    processes.die_with_parent(parent)


def become_namespace_root() -> None:
    """Be root of a user namespace of one's own: all capabilities, none of which counts for bpf(2). For a child."""
    processes.unshare(Namespace.USER)
    for file, line in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        Path("/proc/self", file).write_text(line)


# --- cgroups ----------------------------------------------------------------------------------------------------


def take_as_root(cgroup: Path) -> None:
    """Enter a cgroup and take it as the root of one's cgroup namespace, and so of every cgroup2 mounted from now on."""
    cgroups.move(0, cgroup)
    processes.unshare(Namespace.CGROUP)
