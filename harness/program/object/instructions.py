"""eBPF instructions, taken apart as far as is needed to say what a program asks of a kernel.

An instruction has eight bytes: opcode, two registers of four bits, a 16-bit offset, a 32-bit immediate
(Documentation/bpf/standardization/instruction-set.rst). ld_imm64 takes two of them. Numbers are from
include/uapi/linux/bpf.h and bpf_common.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.program.object.elf import Malformed

SIZE = 8
MOST = 1_000_000  # instructions of a program: the kernel's own limit, BPF_COMPLEXITY_LIMIT_INSNS
OLD_MOST = 4096  # before 5.2

LD_IMM64 = 0x18
CALL = 0x85
CALL_REGISTER = 0x8D
EXIT = 0x95
JUMP_ALWAYS, JUMP_ALWAYS_LONG = 0x05, 0x06
PSEUDO_CALL, PSEUDO_KFUNC_CALL = 1, 2  # a call's source register
_ALU, _JMP, _JMP32, _ALU64, _LDX, _STX = 4, 5, 6, 7, 1, 3  # the class, the opcode's low three bits
_MODE, _ATOMIC, _MEMSX = 0xE0, 0xC0, 0x80
_DIV, _MOD, _MOV, _END = 0x30, 0x90, 0xB0, 0xD0


@dataclass(frozen=True)
class Instruction:
    """One instruction; index and the jump's offset count eight-byte slots."""

    index: int
    opcode: int
    destination: int
    source: int
    offset: int
    immediate: int

    @property
    def helper(self) -> bool:
        """Whether it calls a helper, whose number is the immediate."""
        return self.opcode == CALL and self.source == 0

    @property
    def calls_function(self) -> bool:
        """Whether it calls a function of the object, or a kfunc where its relocation says so."""
        return self.opcode == CALL and self.source in (PSEUDO_CALL, PSEUDO_KFUNC_CALL)

    @property
    def jump(self) -> int | None:
        """The slot that it may jump to; None where it is no jump."""
        kind, operation = self.opcode & 7, self.opcode & 0xF0
        if kind not in (_JMP, _JMP32) or operation in (0x80, 0x90):
            return None
        return self.index + 1 + (self.immediate if self.opcode == JUMP_ALWAYS_LONG else self.offset)


def decode(code: bytes, order: str) -> Iterator[Instruction]:
    """The instructions of a section's bytes; a part of one at the end is left out. Raises Malformed for too many."""
    count = len(code) // SIZE
    if count > MOST:
        raise Malformed(f"a program of {count} instructions; kernels take {MOST} at most")
    index = 0
    while index < count:
        opcode, registers, offset, immediate = struct.unpack_from(order + "BBhi", code, index * SIZE)
        low, high = registers & 15, registers >> 4
        destination, source = (low, high) if order == "<" else (high, low)
        yield Instruction(index, opcode, destination, source, offset, immediate)
        index += 2 if opcode == LD_IMM64 else 1


@dataclass(frozen=True)
class Generation:
    """Something that not every kernel's instruction set has: a name for it, and the first mainline version."""

    name: str
    since: str
    code: bytes  # the least program that has it, as a socket filter: nothing but the kernel's age refuses it


def _code(*rows: tuple[int, int, int, int, int]) -> bytes:
    """Rows of opcode, destination, source, offset, immediate; in this machine's byte order."""
    return b"".join(struct.pack("=BBhi", row[0], _registers(row[1], row[2]), row[3], row[4]) for row in rows)


def _registers(destination: int, source: int) -> int:
    return destination | source << 4 if sys.byteorder == "little" else source | destination << 4


_ZERO, _EXIT = (0xB7, 0, 0, 0, 0), (EXIT, 0, 0, 0, 0)
_STORE = (0x7A, 10, 0, -8, 0)  # *(u64 *)(r10 - 8) = 0

SIGNED_LESS = Generation("jumps on less-than", "4.14", _code(_ZERO, (0xA5, 0, 0, 0, 1), _EXIT))
CALLS = Generation("calls between functions", "4.16", _code((CALL, 0, 1, 0, 1), _EXIT, _ZERO, _EXIT))
JUMPS_32 = Generation("jumps on 32 bits", "5.1", _code(_ZERO, (0x16, 0, 0, 0, 0), _EXIT))
LONG = Generation(f"programs of more than {OLD_MOST} instructions", "5.2", _code(*[_ZERO] * OLD_MOST, _EXIT))
LOOPS = Generation("bounded loops", "5.3", _code(_ZERO, (0x07, 0, 0, 0, 1), (0xA5, 0, 0, -2, 3), _EXIT))
ATOMICS = Generation("atomic operations", "5.12", _code(_ZERO, _STORE, (0xDB, 10, 0, -8, 1), _EXIT))
CPU_V4 = Generation("instructions of -mcpu=v4", "6.6", _code(_ZERO, (0xBF, 0, 0, 8, 0), _EXIT))
MAY_GOTO = Generation("may_goto", "6.9", _code(_ZERO, (0xE5, 0, 0, 0, 0), _EXIT))

GENERATIONS = (SIGNED_LESS, CALLS, JUMPS_32, LONG, LOOPS, ATOMICS, CPU_V4, MAY_GOTO)


def generation(one: Instruction) -> Generation | None:
    """What an instruction needs that the first eBPF kernels did not have; calls of functions aside."""
    kind, operation, mode = one.opcode & 7, one.opcode & 0xF0, one.opcode & _MODE
    if one.opcode == 0xE5:
        return MAY_GOTO
    if _is_v4(one, kind, operation, mode):
        return CPU_V4
    if kind == _STX and mode == _ATOMIC and one.immediate:
        return ATOMICS
    if one.jump is not None and one.jump <= one.index:
        return LOOPS
    if kind == _JMP32:
        return JUMPS_32
    if kind == _JMP and operation in (0xA0, 0xB0, 0xC0, 0xD0):
        return SIGNED_LESS
    return None


def _is_v4(one: Instruction, kind: int, operation: int, mode: int) -> bool:
    """Sign-extending moves and loads, signed division, bswap, long jumps."""
    if kind in (_ALU, _ALU64):
        return (bool(one.offset) and operation in (_DIV, _MOD, _MOV)) or (kind == _ALU64 and operation == _END)
    return (kind == _LDX and mode == _MEMSX) or one.opcode == JUMP_ALWAYS_LONG
