"""An image in the kernel: its maps created, its programs loaded, all closed again at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from harness.kernel import bpf
from harness.program.image import Image, ProgramSpec, relocate


@dataclass(frozen=True)
class Loaded:
    """A loaded image: descriptors by name, and the verifier's log of each program.

    The last three are for somebody else's object (harness.program.foreign), whose image only describes it.
    """

    image: Image
    maps: Mapping[str, bpf.Fd]
    programs: Mapping[str, bpf.Fd]
    logs: Mapping[str, str]
    again: Callable[[Mapping[str, int]], AbstractContextManager[Loaded]] | None = None  # load it with other entries
    functions: Mapping[str, str] = field(default_factory=dict)  # what the object calls each program
    lent: frozenset[str] = frozenset()  # programs that are the harness's own and work on the object's maps

    @property
    def foreign(self) -> bool:
        return self.again is not None


def load_program(spec: ProgramSpec, maps: Mapping[str, bpf.Fd], licence: str, log_level: int = 1) -> tuple[bpf.Fd, str]:
    """Load one program against these maps. Raises BpfError with the verifier's whole log."""
    return bpf.prog_load(
        bpf.ProgramType(spec.type),
        relocate(spec, maps),
        attach=None if spec.attach is None else bpf.AttachType(spec.attach),
        licence=licence,
        name=spec.name,
        log_level=log_level,
    )


@contextmanager
def load(image: Image, *, entries: Mapping[str, int] | None = None, log_level: int = 1) -> Iterator[Loaded]:
    """Create the image's maps and load its programs; entries overrides a map's number of entries by name.

    Whatever was made is closed on the way out, also when a later step is refused (BpfError).
    """
    sizes = entries or {}
    with ExitStack() as stack:
        maps: dict[str, bpf.Fd] = {}
        for spec in image.maps:
            count = sizes.get(spec.name, spec.entries)
            kind = bpf.MapType(spec.type)
            fd = bpf.map_create(kind, spec.key_size, spec.value_size, count, flags=spec.flags, name=spec.name)
            maps[spec.name] = stack.enter_context(fd)
        programs: dict[str, bpf.Fd] = {}
        logs: dict[str, str] = {}
        for program in image.programs:
            fd, logs[program.name] = load_program(program, maps, image.licence, log_level)
            programs[program.name] = stack.enter_context(fd)
        yield Loaded(image, maps, programs, logs)


def load_again(loaded: Loaded, entries: Mapping[str, int]) -> AbstractContextManager[Loaded]:
    """The same once more, beside what is loaded, with other numbers of entries by map."""
    return load(loaded.image, entries=entries) if loaded.again is None else loaded.again(entries)
