"""Instructions by hand, where C cannot say what is wanted: 8 bytes each (opcode, registers, offset, immediate).

Opcodes are those of include/uapi/linux/bpf.h and Documentation/bpf/standardization/instruction-set.rst. Integers are
in host byte order; sizes are in bytes.
"""

from __future__ import annotations

import struct

_LOAD = {8: 0x79, 4: 0x61, 2: 0x69, 1: 0x71}  # BPF_LDX | BPF_MEM | size
_STORE = {8: 0x7B, 4: 0x63, 2: 0x6B, 1: 0x73}  # BPF_STX | BPF_MEM | size
_PSEUDO_CALL = 1
_PSEUDO_KFUNC_CALL = 2
_PSEUDO_MAP_FD = 1


def instruction(opcode: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, destination | source << 4, offset, immediate)


def set_to(register: int, number: int) -> bytes:
    return instruction(0xB7, register, immediate=number)


def copy(destination: int, source: int) -> bytes:
    return instruction(0xBF, destination, source)


def add(register: int, number: int) -> bytes:
    return instruction(0x07, register, immediate=number)


def load(size: int, destination: int, pointer: int, offset: int) -> bytes:
    """destination = *(pointer + offset)"""
    return instruction(_LOAD[size], destination, pointer, offset)


def store(size: int, pointer: int, offset: int, source: int) -> bytes:
    """*(pointer + offset) = source"""
    return instruction(_STORE[size], pointer, source, offset)


def call(number: int) -> bytes:
    """A helper by its number; its arguments are in r1 to r5, its result comes in r0."""
    return instruction(0x85, immediate=number)


def call_kfunc(btf_id: int) -> bytes:
    """A kernel function by its id in the kernel's BTF."""
    return instruction(0x85, source=_PSEUDO_KFUNC_CALL, immediate=btf_id)


def call_function(distance: int) -> bytes:
    """A function of the program itself; distance counts from the instruction after this one."""
    return instruction(0x85, source=_PSEUDO_CALL, immediate=distance)


def jump_if_less(register: int, number: int, distance: int) -> bytes:
    """Unsigned; distance counts from the instruction after this one."""
    return instruction(0xA5, register, offset=distance, immediate=number)


def map_address(register: int, descriptor: int) -> bytes:
    """Two slots."""
    return instruction(0x18, register, _PSEUDO_MAP_FD, immediate=descriptor) + instruction(0)


EXIT = instruction(0x95)
ALLOW = set_to(0, 1) + EXIT
"""return 1: what a connect4 program says to let a connect pass."""
