"""What Python 3.11 lacks of Linux's process calls: namespaces, and children that do not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path

from harness.errors import HarnessError, errno_text

_PR_SET_PDEATHSIG, _PR_SET_THP_DISABLE = 1, 41  # include/uapi/linux/prctl.h
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h

_CLONE3 = 435  # the same number on every architecture

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, which a forked child could not take
_python.syscall.restype = ctypes.c_long


class Namespace(IntFlag):
    """CLONE_NEW* of include/uapi/linux/sched.h."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    USER = 0x10000000
    PID = 0x20000000
    NETWORK = 0x40000000


def unshare(kinds: Namespace) -> None:
    """Move the caller into new namespaces of these kinds."""
    if _libc.unshare(int(kinds)):
        number = ctypes.get_errno()
        raise HarnessError(f"make a new {kinds.name} namespace", errno_text(number), errno=number)


def enter(pid: int, kind: Namespace) -> None:
    """Move the caller into the namespace of this kind in which process pid is."""
    name = {Namespace.NETWORK: "net", Namespace.MOUNT: "mnt", Namespace.CGROUP: "cgroup", Namespace.USER: "user"}[kind]
    with Path(f"/proc/{pid}/ns/{name}").open() as file:
        if _libc.setns(file.fileno(), int(kind)):
            number = ctypes.get_errno()
            raise HarnessError(f"enter the {name} namespace of process {pid}", errno_text(number), errno=number)


def die_with_parent(parent: int) -> None:
    """Have the kernel end the caller when its parent (whose pid is given) ends, however that ends.

    The kernel forgets this when credentials change, so it is to be called again after a setuid().
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the call
        os._exit(1)


def without_huge_pages() -> None:
    """The caller, and what it starts, gets memory page by page, as it touches it, whatever it advises the kernel."""
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def in_initial_pid_namespace() -> bool:
    """Whether pids here are those that bpf_get_current_pid_tgid gives."""
    return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE


_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """What ends a run comes when the with block is over: for what must not be left half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork_child() -> int:
    """os.fork() for a child that serves its parent: 0 in the child.

    The child leaves Ctrl-C and SIGHUP, which reach the whole group, to its parent, and SIGTERM ends it. The signals
    are held back meanwhile, so that a handler of the parent's never runs in the child.
    """
    with signals_held():
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return pid


def fork(pid: int) -> int:
    """os.fork(), with the child's pid chosen by the caller (clone3's set_tid, 5.5): 0 in the child.

    Needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. Raises HarnessError: EEXIST while a process has that pid. For
    processes with one thread; Python's at-fork hooks are not run.
    """
    wanted = ctypes.c_int(pid)
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    result: int = _python.syscall(_CLONE3, buffer, len(arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise HarnessError(f"start a process with pid {pid}", errno_text(number), errno=number)
    return result
