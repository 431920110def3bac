"""Program images: relocations are found and made, and an image survives its own JSON."""

from __future__ import annotations

import os
import struct

from harness.kernel.bpf import Fd
from harness.program.image import Image, MapSpec, ProgramSpec, find_relocations, relocate


def instruction(opcode: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, registers, offset, immediate)


def load_map(descriptor: int) -> bytes:
    """ld_imm64 r1, map: two slots, src_reg 1."""
    return instruction(0x18, 0x11, immediate=descriptor) + instruction(0)


LOAD_NUMBER = instruction(0x18, 0x01, immediate=5) + instruction(0, immediate=0x11)  # a plain 64-bit constant
EXIT = instruction(0x95)


def test_relocations_are_those_of_maps_only() -> None:
    code = instruction(0xB7, 0, immediate=5) + LOAD_NUMBER + load_map(5) + load_map(7) + EXIT
    assert find_relocations(code, {5: "five", 7: "seven"}) == ((3, "five"), (5, "seven"))


def test_second_slot_is_no_instruction() -> None:
    disguised = instruction(0x18, 0x01) + instruction(0x18, 0x11, immediate=9) + EXIT
    assert find_relocations(disguised, {}) == ()


def test_relocate_puts_this_process_descriptors_in() -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    program = ProgramSpec("p", 18, 10, load_map(5) + EXIT, ((0, "five"),))
    with Fd(number) as fd:
        code = relocate(program, {"five": fd})
    assert struct.unpack_from("=i", code, 4) == (number,)
    assert code[8:] == program.instructions[8:]


def test_image_comes_back_from_json() -> None:
    program = ProgramSpec("connect4", 18, 10, load_map(5) + EXIT, ((0, "policy_map"),))
    image = Image((MapSpec("policy_map", 1, 24, 24, 10),), (program,), "GPL", "a compiler")
    assert Image.parse(image.dump()) == image


def test_digest_is_of_content_and_not_of_the_compiler() -> None:
    program = ProgramSpec("connect4", 18, 10, EXIT)
    image = Image((), (program,), compiler="one")
    assert Image((), (program,), compiler="two").digest == image.digest
    assert Image((), (ProgramSpec("connect4", 18, 10, EXIT + EXIT),)).digest != image.digest
