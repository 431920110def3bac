"""The helper calls of a program in an ELF object, for lining a log up with it.

Only what that needs of ELF64 (little or big endian, e_machine BPF): the section headers and one section's bytes.
Numbers from elf.h; an instruction is eight bytes: code, registers, 16-bit offset, 32-bit immediate.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.verifier.log import OPCODE_CALL
from harness.verifier.sequence import Step

LARGEST = 64 << 20  # bytes of an object that is read
_EM_BPF = 247
_LD_IMM64 = 0x18  # takes two instructions
CONNECT4 = "cgroup/connect4"


def read_calls(path: Path, section: str = CONNECT4) -> Sequence[Step]:
    """The calls of the program in a section, in the order of instructions.

    Raises HarnessError when the file cannot be read or is no BPF object with that section.
    """
    attempted = f"read the program {section} of {path}"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    if len(data) > LARGEST:
        raise HarnessError(attempted, "the file is larger than 64 MiB", "give the eBPF object, ebpf_cgroup.o")
    try:
        return calls_of(data, section)
    except ValueError as error:
        raise HarnessError(attempted, str(error), "give the eBPF object, ebpf_cgroup.o") from error


def calls_of(data: bytes, section: str = CONNECT4) -> Sequence[Step]:
    """The same of an object's bytes. Raises ValueError when they are no BPF object with that section."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] != 2 or data[5] not in (1, 2):
        raise ValueError("it is not a 64-bit ELF file")
    order = "<" if data[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", data, 18)[0]
    if machine != _EM_BPF:
        raise ValueError(f"it is an ELF file for machine {machine}, not for BPF ({_EM_BPF})")
    sections = dict(_sections(data, order))
    if section not in sections:
        raise ValueError(f"it has no section {section}")
    return _calls(sections[section], order)


def _sections(data: bytes, order: str) -> Sequence[tuple[str, bytes]]:
    table = struct.unpack_from(order + "Q", data, 40)[0]
    size, count, names = struct.unpack_from(order + "3H", data, 58)
    if size < 64 or table + size * count > len(data) or names >= count:
        raise ValueError("its section headers are damaged")
    headers = [struct.unpack_from(order + "II16xQQ", data, table + size * number) for number in range(count)]
    strings = _content(data, headers[names])
    found = []
    for header in headers:
        name = strings[header[0] :].partition(b"\0")[0] if header[0] < len(strings) else b""
        if len(name) < 256:
            found.append((name.decode("utf-8", "replace"), _content(data, header)))
    return found


def _content(data: bytes, header: Sequence[int]) -> bytes:
    _, kind, offset, length = header
    return b"" if kind == 8 else data[offset : offset + length]  # SHT_NOBITS has none


def _calls(code: bytes, order: str) -> Sequence[Step]:
    steps = []
    number, count = 0, len(code) // 8
    while number < count:
        opcode, registers, _, immediate = struct.unpack_from(order + "BBhi", code, 8 * number)
        source = registers >> 4 if order == "<" else registers & 15
        if opcode == OPCODE_CALL and source == 0:
            steps.append(Step(number, immediate))
        number += 2 if opcode == _LD_IMM64 else 1
    return steps
