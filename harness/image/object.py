"""The agent's eBPF object in an image: found where its configuration or its package has it, and taken to pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.image import agent_files, reading
from harness.image.image import Image
from harness.program.object import contents
from harness.program.object.contents import Contents
from harness.program.object.core import Wanted


@dataclass(frozen=True)
class AgentObject:
    """An object. contents is None where it is no BPF object; trouble says why. digest is "sha256:…"."""

    path: str
    digest: str
    size: int
    data: bytes
    contents: Contents | None = None
    trouble: str = ""

    @property
    def relocations(self) -> int:
        """CO-RE relocations that ask the kernel's types: those of the object's own types need none."""
        if self.contents is None:
            return 0
        rows = [row for program in self.contents.programs for row in program.relocations]
        return sum(row.kind != Wanted.LOCAL_TYPE_ID for row in rows)


def places(image: Image) -> Iterator[str]:
    """Where the agent looks, in order: as configured, the package's folder, beside the program that is started."""
    name = agent_files.config(image).text("ebpfProgramName", agent_files.OBJECT)
    if name.startswith("/"):
        yield name
        return
    folders = [agent_files.OBJECT_FOLDER]
    for program in (agent_files.executable(image), agent_files.started(image)):
        if program is not None:
            folders.append(program.rpartition("/")[0])
            real = image.tree.resolve(program)
            folders += [real.rpartition("/")[0]] if real else []
    for folder in dict.fromkeys(folders):
        yield f"{folder}/{name}"


def agent_object(image: Image) -> AgentObject | None:
    """The first that is there. Raises Unread where its content was not read."""
    for path in places(image):
        data = reading.data(image, path)
        if data is not None:
            return _taken_apart(path, data)
    return None


def _taken_apart(path: str, data: bytes) -> AgentObject:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    try:
        return AgentObject(path, digest, len(data), data, contents.read(data))
    except ValueError as error:
        return AgentObject(path, digest, len(data), data, trouble=str(error))
