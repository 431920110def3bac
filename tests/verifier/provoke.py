"""Programs that the running kernel refuses, one for each complaint of the catalogue that can be had here.

Hand-assembled: eight bytes an instruction (code, dst | src << 4, off, imm), so that no compiler is between us and the
verifier. A program is a function from the descriptors of three maps (hash, array, read-only array) to instructions.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from harness.kernel import bpf

CAP_NET_ADMIN, CAP_BPF = 12, 39


class Kind(IntEnum):
    """More of enum bpf_prog_type than the harness itself loads."""

    CGROUP_SOCK_ADDR = 18
    CGROUP_SKB = 8
    SYSCALL = 31


_CAPABILITY_VERSION_3 = 0x20080522


def ins(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def mov(dst: int, imm: int) -> bytes:
    return ins(0xB7, dst, imm=imm)


def movx(dst: int, src: int) -> bytes:
    return ins(0xBF, dst, src)


def add(dst: int, imm: int) -> bytes:
    return ins(0x07, dst, imm=imm)


def addx(dst: int, src: int) -> bytes:
    return ins(0x0F, dst, src)


def load(size: int, dst: int, src: int, off: int) -> bytes:
    return ins({8: 0x79, 4: 0x61, 2: 0x69, 1: 0x71}[size], dst, src, off)


def store(size: int, dst: int, src: int, off: int) -> bytes:
    return ins({8: 0x7B, 4: 0x63, 2: 0x6B, 1: 0x73}[size], dst, src, off)


def call(helper: int) -> bytes:
    return ins(0x85, imm=helper)


def subprogram(offset: int) -> bytes:
    return ins(0x85, src=1, imm=offset)


def goto(off: int) -> bytes:
    return ins(0x05, off=off)


def if_equal(dst: int, imm: int, off: int) -> bytes:
    return ins(0x15, dst, off=off, imm=imm)


def map_address(dst: int, fd: int) -> bytes:
    return ins(0x18, dst, 1, imm=fd) + ins(0)


EXIT = ins(0x95)
ALLOW = mov(0, 1) + EXIT
RANDOM = call(7)  # get_prandom_u32: an unknown number in R0


@dataclass(frozen=True)
class Maps:
    hash: int
    array: int
    read_only: int


def lookup(fd: int, offset: int = -8) -> bytes:
    """R0 = bpf_map_lookup_elem(map, fp + offset), with a key of 4 bytes that is set."""
    key = mov(1, 0) + store(8, 10, 1, offset) if offset == -8 else b""
    return key + movx(2, 10) + add(2, offset) + map_address(1, fd) + call(1)


def value(fd: int) -> bytes:
    """The same with the NULL check: R0 is a map value."""
    return lookup(fd) + if_equal(0, 0, 1) + goto(2) + ALLOW


Program = Callable[[Maps], bytes]


@dataclass(frozen=True)
class Provocation:
    program: Program
    kind: Kind = Kind.CGROUP_SOCK_ADDR
    attach: int = bpf.AttachType.CGROUP_INET4_CONNECT
    licence: str = "GPL"
    without_perfmon: bool = False  # run with CAP_BPF and CAP_NET_ADMIN only
    quiet: bool = False  # only the complaint and the statistics (log level 4): the whole log would be 100 MB


def _plain(code: bytes) -> Provocation:
    return Provocation(lambda maps: code)


def _tuple_lookup() -> bytes:
    """R0 = bpf_sk_lookup_tcp(ctx, tuple of zeros, 12, 0, 0); R6 holds ctx before."""
    zero = mov(1, 0) + b"".join(store(4, 10, 1, off) for off in (-12, -8, -4))
    return zero + movx(1, 6) + movx(2, 10) + add(2, -12) + mov(3, 12) + mov(4, 0) + mov(5, 0) + call(84)


def _deep(frames: int) -> bytes:
    body = b"".join(subprogram(1) + EXIT for _ in range(frames))
    return body + ALLOW


PROVOCATIONS: Mapping[str, Provocation] = {
    "helper-not-allowed": _plain(call(9) + EXIT),
    "helper-unknown": _plain(call(5000) + EXIT),
    "kfunc-not-a-function": _plain(ins(0x85, src=2, imm=1) + ALLOW),
    "core-relocation": _plain(call(0xBAD2310) + ALLOW),
    "gpl-only": Provocation(
        lambda maps: mov(1, 0) + store(8, 10, 1, -8) + movx(1, 10) + add(1, -8) + mov(2, 8) + call(6) + ALLOW,
        licence="Proprietary",
    ),
    "register-not-readable": _plain(EXIT),
    "stack-not-initialised": Provocation(lambda maps: load(8, 0, 10, -8) + ALLOW, without_perfmon=True),
    "stack-not-initialised/argument": Provocation(lambda maps: lookup(maps.hash, -16) + ALLOW, without_perfmon=True),
    "null-check-missing": Provocation(lambda maps: lookup(maps.hash) + load(8, 1, 0, 0) + ALLOW),
    "null-arithmetic": Provocation(lambda maps: lookup(maps.hash) + add(0, 4) + ALLOW),
    "context-access": _plain(mov(2, 0) + store(8, 1, 2, 24) + ALLOW),
    "context-modified": _plain(add(1, 8) + load(4, 0, 1, 0) + ALLOW),
    "context-variable": _plain(movx(6, 1) + RANDOM + ins(0x57, 0, imm=4) + addx(6, 0) + load(4, 0, 6, 4) + ALLOW),
    "infinite-loop": _plain(mov(0, 0) + if_equal(0, 1, 1) + goto(-2) + ALLOW),
    "return-value": _plain(mov(0, 2) + EXIT),
    "too-large": Provocation(
        lambda maps: mov(1, 0) + mov(2, 0) * 4000 + add(1, 1) + ins(0xA5, 1, off=-4002, imm=2_000_000) + ALLOW,
        quiet=True,
    ),
    "too-many-jumps": _plain(RANDOM + b"".join(if_equal(0, n, 8999 - n) for n in range(9000)) + ALLOW),
    "stack-combined": _plain(
        mov(1, 0) + store(8, 10, 1, -400) + subprogram(1) + EXIT + mov(1, 0) + store(8, 10, 1, -400) + ALLOW
    ),
    "stack-out-of-bounds": _plain(mov(1, 0) + store(8, 10, 1, -520) + ALLOW),
    "stack-variable": _plain(RANDOM + ins(0x57, 0, imm=0xF8) + movx(2, 10) + addx(2, 0) + load(8, 0, 2, -8) + ALLOW),
    "stack-variable-unprivileged": Provocation(
        lambda maps: mov(1, 0) + store(8, 10, 1, -8) + store(8, 10, 1, -16) + RANDOM + ins(0x57, 0, imm=8) + movx(2, 10)
        + addx(2, 0) + load(8, 0, 2, -16) + ALLOW, without_perfmon=True),
    "stack-not-initialised/size": _plain(movx(1, 10) + add(1, -8) + mov(2, 64) + call(6) + ALLOW),
    "call-too-deep": _plain(_deep(9)),
    "map-value-out-of-bounds": Provocation(lambda maps: value(maps.hash) + load(8, 1, 0, 8) + ALLOW),
    "map-value-unbounded": Provocation(
        lambda maps: value(maps.hash) + movx(6, 0) + RANDOM + ins(0x57, 0, imm=0x7FFFFFFF) + addx(6, 0)
        + load(8, 1, 6, 0) + ALLOW),
    "map-value-out-of-bounds/maximum": Provocation(
        lambda maps: value(maps.hash) + movx(6, 0) + RANDOM + ins(0x57, 0, imm=0xFF) + addx(6, 0)
        + load(8, 1, 6, 0) + ALLOW),
    "map-value-negative": Provocation(
        lambda maps: value(maps.hash) + movx(6, 0) + RANDOM + ins(0x65, 0, off=3, imm=3) + ins(0xC5, 0, off=2, imm=-4)
        + addx(6, 0) + load(8, 1, 6, 0) + ALLOW),
    "map-read-only": Provocation(lambda maps: value(maps.read_only) + mov(1, 0) + store(8, 0, 1, 0) + ALLOW),
    "map-type": Provocation(lambda maps: map_address(2, maps.hash) + mov(3, 0) + call(12) + ALLOW),
    "map-type/function": Provocation(
        lambda maps: mov(1, 0) + store(8, 10, 1, -8) + movx(2, 10) + add(2, -8) + map_address(1, maps.hash) + mov(3, 0)
        + call(87) + ALLOW),
    "map-not-there": _plain(map_address(1, 999) + ALLOW),
    "pointer-operator": _plain(ins(0x57, 1, imm=7) + ALLOW),
    "pointer-plus-pointer": _plain(addx(1, 10) + ALLOW),
    "pointer-32-bit": _plain(ins(0x04, 1, imm=8) + ALLOW),
    "pointer-unbounded": _plain(movx(6, 10) + RANDOM + ins(0x67, 0, imm=32) + addx(6, 0) + ALLOW),
    "frame-pointer-written": _plain(mov(10, 0) + ALLOW),
    "not-a-pointer": _plain(mov(1, 5) + load(8, 0, 1, 0) + ALLOW),
    "argument-type": Provocation(lambda maps: movx(2, 10) + add(2, -8) + call(1) + ALLOW),
    "size-unbounded": _plain(
        RANDOM + movx(2, 0) + ins(0x57, 2, imm=0x7FFFFFFF) + ins(0x47, 2, imm=1)
        + movx(1, 10) + add(1, -8) + mov(3, 0) + call(6) + ALLOW
    ),
    "size-negative": Provocation(
        lambda maps: value(maps.hash) + load(8, 2, 0, 0) + movx(1, 10) + add(1, -8) + call(6) + ALLOW
    ),
    "size-zero": _plain(mov(2, 0) + movx(1, 10) + add(1, -8) + call(6) + ALLOW),
    "leak-return": Provocation(lambda maps: movx(0, 10) + EXIT, without_perfmon=True),
    "leak-return/map": Provocation(lambda maps: value(maps.hash) + store(8, 0, 10, 0) + ALLOW, without_perfmon=True),
    "pointer-comparison": Provocation(lambda maps: if_equal(1, 5, 0) + ALLOW, without_perfmon=True),
    "spilled-pointer": Provocation(
        lambda maps: store(8, 10, 1, -8) + mov(2, 0) + store(1, 10, 2, -8) + ALLOW, without_perfmon=True
    ),
    "spilled-pointer/size": _plain(store(4, 10, 1, -8) + ALLOW),
    "reference-leak": _plain(movx(6, 1) + _tuple_lookup() + ALLOW),
    "reference-not-owned": _plain(load(8, 1, 1, 64) + if_equal(1, 0, 1) + call(86) + ALLOW),
    "lock-without-type": Provocation(lambda maps: value(maps.hash) + movx(1, 0) + call(93) + ALLOW),
    "lock-without-type/timer": Provocation(
        lambda maps: value(maps.hash) + movx(1, 0) + map_address(2, maps.hash) + mov(3, 0) + call(169) + ALLOW),
    "unreachable": _plain(ALLOW + ALLOW),
    "jump-out-of-range": _plain(goto(5) + ALLOW),
    "no-exit": _plain(mov(0, 1) + mov(0, 1)),
    "unknown-opcode": _plain(ins(0xFF) + ALLOW),
    "reserved-fields": _plain(ins(0x95, imm=7)),
    "register-number": _plain(ins(0xB7, 11) + ALLOW),
    "ld-imm64": _plain(ins(0x18, 1) + ALLOW),
    "packet-instruction": _plain(ins(0x30) + ALLOW),
    "call-destination": _plain(subprogram(7) + ALLOW),
    "call-too-deep/recursion": _plain(subprogram(1) + EXIT + subprogram(-1) + ALLOW),
    "division-by-zero": _plain(mov(0, 1) + ins(0x37, 0, imm=0) + EXIT),
    "division-by-zero/shift": _plain(mov(0, 1) + ins(0x67, 0, imm=64) + EXIT),
    "alignment": _plain(mov(1, 0) + store(8, 10, 1, -12) + ALLOW),
    "context-store": _plain(mov(2, 1) + ins(0xC3, 1, 2, 4) + ALLOW),
    "different-pointers": Provocation(
        lambda maps: movx(6, 1) + value(maps.hash) + movx(7, 0) + RANDOM + if_equal(0, 0, 1) + movx(7, 6)
        + load(4, 0, 7, 4) + ALLOW
    ),
    "packet-bounds": Provocation(
        lambda maps: load(4, 2, 1, 76) + load(1, 0, 2, 0) + ALLOW, kind=Kind.CGROUP_SKB, attach=0
    ),
    "syscall-sleepable": Provocation(lambda maps: ALLOW, kind=Kind.SYSCALL, attach=0),
    "register-not-readable/after-call": _plain(movx(6, 1) + RANDOM + load(4, 0, 1, 4) + ALLOW),
}  # fmt: skip


def provoke(provocation: Provocation, log_level: int = 1) -> str:
    """Load the program and give the log of its refusal. Raises AssertionError when the kernel takes it."""
    log_level = 4 if provocation.quiet else log_level
    if provocation.without_perfmon:
        return _in_child(provocation, log_level)
    return _load(provocation, log_level)


def _load(provocation: Provocation, log_level: int) -> str:
    with (
        bpf.map_create(bpf.MapType.HASH, 4, 8, 4) as table,
        bpf.map_create(bpf.MapType.ARRAY, 4, 8, 4) as array,
        bpf.map_create(bpf.MapType.ARRAY, 4, 8, 4, flags=1 << 7) as read_only,  # BPF_F_RDONLY_PROG
    ):
        code = provocation.program(Maps(table.fileno(), array.fileno(), read_only.fileno()))
        try:
            program, _ = bpf.prog_load(
                cast(bpf.ProgramType, provocation.kind),
                code,
                attach=cast(bpf.AttachType, provocation.attach),
                licence=provocation.licence,
                name="provoked",
                log_level=log_level,
            )
        except bpf.BpfError as error:
            return error.log
        program.close()
        raise AssertionError("the kernel takes this program")


def _in_child(provocation: Provocation, log_level: int) -> str:
    """The same in a child that has given up all capabilities but CAP_BPF and CAP_NET_ADMIN."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _keep_only(CAP_BPF, CAP_NET_ADMIN)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_load(provocation, log_level).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        log = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the kernel takes this program, or the child failed"
    return log.decode("utf-8", "replace")


def _keep_only(*capabilities: int) -> None:
    mask = sum(1 << capability for capability in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def provoke_btf() -> str:
    """The log of BPF_BTF_LOAD (command 18) for a type section with a kind that no kernel has."""
    types = struct.pack("<III", 1, 30 << 24, 4)
    names = b"\0int\0"
    blob = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names
    data, log = ctypes.create_string_buffer(blob, len(blob)), ctypes.create_string_buffer(1 << 16)
    attribute = struct.pack("=QQIIII", ctypes.addressof(data), ctypes.addressof(log), len(blob), len(log), 1, 0)
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    assert libc.syscall(number, 18, buffer, 28) < 0, "the kernel takes this BTF"
    return log.value.decode()


def row_of(name: str) -> str:
    """A provocation is named after its row, with a slash and the variant where a row has several."""
    return name.partition("/")[0]


def every_log(log_level: int = 1) -> Mapping[str, str]:
    """What the running kernel says to each provocation, by name."""
    logs = {name: provoke(provocation, log_level) for name, provocation in PROVOCATIONS.items()}
    return {**logs, "btf-type": provoke_btf()}
