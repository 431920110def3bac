"""connect() by io_uring: rings set up by hand, since neither Python nor every distribution has liburing."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct

from harness.errors import errno_name
from harness.lab import clients
from harness.lab.behaviours.common import noted, stopped
from harness.lab.clients import Request, Seen, Stage, Unavailable, tcp_socket

# include/uapi/asm-generic/unistd.h: the same on every architecture
_SYS_SETUP = 425
_SYS_ENTER = 426
# include/uapi/linux/io_uring.h
_OP_CONNECT = 16
_IOSQE_ASYNC = 1 << 4
_SETUP_SQPOLL = 1 << 1
_ENTER_GETEVENTS = 1 << 0
_ENTER_SQ_WAKEUP = 1 << 1
_OFF_SQ_RING = 0
_OFF_CQ_RING = 0x8000000
_OFF_SQES = 0x10000000
_PARAMS = struct.Struct("=7I12x 8IQ 8IQ")  # io_uring_params: 7 words, 3 reserved, then the two rings' offsets
_SQE = 64
_ENTRIES = 4
_USER_DATA = 0x4D5350

_libc = ctypes.CDLL(None, use_errno=True)


def uring(request: Request, stage: Stage) -> Seen:
    """IORING_OP_CONNECT; option `by`: nothing, `worker` (IOSQE_ASYNC) or `sqpoll` (a thread submits)."""
    by = request.options.get("by", "")
    ring, parameters = _setup(_SETUP_SQPOLL if by == "sqpoll" else 0)
    try:
        with tcp_socket(request) as client:
            client.setblocking(True)
            answer = _submit_connect(ring, parameters, client, request, _IOSQE_ASYNC if by == "worker" else 0)
            if answer == -errno.EINVAL:
                raise Unavailable("IORING_OP_CONNECT: EINVAL: this kernel's io_uring cannot connect (it came with 5.5)")
            if answer is None:
                return stopped(client, TimeoutError())
            if answer < 0:
                return stopped(client, OSError(-answer, os.strerror(-answer)))
            return noted(clients.exchange(client, request))
    finally:
        os.close(ring)


def _setup(flags: int) -> tuple[int, tuple[int, ...]]:
    parameters = ctypes.create_string_buffer(_PARAMS.pack(0, 0, flags, *([0] * 22)), _PARAMS.size)
    ring = _libc.syscall(_SYS_SETUP, _ENTRIES, parameters)
    if ring < 0:
        number = ctypes.get_errno()
        reasons = {
            errno.ENOSYS: "this kernel has no io_uring",
            errno.EPERM: "io_uring is switched off (kernel.io_uring_disabled, or a seccomp filter)",
        }
        raise Unavailable(f"io_uring_setup(): {errno_name(number)}: {reasons.get(number, os.strerror(number))}")
    return ring, _PARAMS.unpack(parameters.raw)


def _submit_connect(
    ring: int, parameters: tuple[int, ...], client: socket.socket, request: Request, flags: int
) -> int | None:
    """Submit one connect and wait; its result (0 or -errno), None when there is none in time."""
    sq, cq = (
        parameters[7:16],
        parameters[16:25],
    )  # head, tail, ring_mask, ring_entries, flags/overflow, dropped/cqes, array
    everything = mmap.MAP_SHARED | mmap.MAP_POPULATE
    with (
        mmap.mmap(ring, sq[6] + parameters[0] * 4, everything, offset=_OFF_SQ_RING) as submissions,
        mmap.mmap(ring, cq[5] + parameters[1] * 16, everything, offset=_OFF_CQ_RING) as completions,
        mmap.mmap(ring, parameters[0] * _SQE, everything, offset=_OFF_SQES) as entries,
    ):
        address = ctypes.create_string_buffer(
            struct.pack("=H", socket.AF_INET)
            + struct.pack("!H", request.port)
            + socket.inet_aton(request.address)
            + bytes(8),
            16,
        )
        # struct io_uring_sqe: opcode, flags, ioprio, fd, off (the address's length), addr, len, rw_flags, user_data
        entry = struct.pack(
            "=BBHiQQIIQ", _OP_CONNECT, flags, 0, client.fileno(), 16, ctypes.addressof(address), 0, 0, _USER_DATA
        )
        entries[: len(entry)] = entry
        submissions[sq[6] : sq[6] + 4] = struct.pack("=I", 0)
        submissions[sq[1] : sq[1] + 4] = struct.pack("=I", 1)
        polled = parameters[2] & _SETUP_SQPOLL
        if _libc.syscall(_SYS_ENTER, ring, 1, 0, _ENTER_SQ_WAKEUP if polled else 0, None, 0) < 0:
            return -ctypes.get_errno()
        poll = select.poll()
        poll.register(ring, select.POLLIN)
        if not poll.poll(request.patience * 1000):
            return None
        (result,) = struct.unpack_from("=i", completions, cq[5] + 8)
        return int(result)
