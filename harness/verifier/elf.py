"""The helper calls of a program in an ELF object, for lining a log up with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.program.object import elf, instructions
from harness.verifier.sequence import Step

CONNECT4 = "cgroup/connect4"


def read_calls(path: Path, section: str = CONNECT4) -> Sequence[Step]:
    """The calls of the program in a section, in the order of instructions.

    Raises HarnessError when the file cannot be read or is no BPF object with that section.
    """
    data = elf.read(path)
    try:
        return calls_of(data, section)
    except ValueError as error:
        raise HarnessError(f"read the program {section} of {path}", str(error), elf.REMEDY) from error


def calls_of(data: bytes, section: str = CONNECT4) -> Sequence[Step]:
    """The same of an object's bytes. Raises ValueError when they are no BPF object with that section."""
    content = elf.parse(data)
    found = content.section(section)
    if found is None:
        raise ValueError(f"it has no section {section}")
    return [Step(one.index, one.immediate) for one in instructions.decode(found.data, content.order) if one.helper]
