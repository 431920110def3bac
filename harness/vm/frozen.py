"""A guest saved as the process that it is in: QEMU, frozen by CRIU, with all code that it has translated.

Under emulation that is what a job spends half of its time on. The guest's memory is a file that QEMU maps shared while
the guest is made, and that each copy maps privately, to have page by page what it needs; of QEMU's own memory each copy
has its own. Copies are for this boot of this machine only: that one comes back after another was not tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import boot, cache, criu, criu_images, qemu, sparse, wire
from harness.vm.guest import INTERPRETER, Guest
from harness.vm.machine import Machine
from harness.vm.qemu import Ends, Monitor, Refused, Running
from harness.vm.sparse import Checksum

MEMORY, IMAGES = "memory", "frozen"

_ORIGIN = "origin"  # the directory in which the files were that QEMU had open
_MADE_IN = criu.RUN / MEMORY  # in memory, where to touch a page of it takes least
_LOOK = 0.2  # seconds between looks at a QEMU that starts
_INITIAL = "initramfs"  # QEMU keeps it mapped
_MONITOR = "monitor"
_WAYS = (wire.PORT, _MONITOR)  # each two FIFOs, as QEMU names them: NAME.in, NAME.out
_OUTPUTS = (*qemu.OUTPUTS, qemu.OWN_WORDS)


@contextmanager
def save(
    machine: Machine,
    guest: Guest,
    accelerator: str,
    place: Path,
    prepare: Callable[[Running], None],
    command: Sequence[str],
) -> Iterator[tuple[dict[str, Checksum], Callable[[], None]]]:
    """Boot a guest, have it prepared, and freeze it into place, by the CRIU of this command.

    Gives the checksums of the files, and nothing that goes on: the guest ends with being saved. Raises Refused.
    """
    place = place.resolve()  # as the kernel has it, and so CRIU
    (place / _INITIAL).write_bytes(boot.initial(machine, guest))
    with _at_work(machine, guest.keeping(place), accelerator, place) as (running, monitor, made):
        prepare(running)  # which tells, too, of a QEMU that did not start
        Monitor(monitor).ask("stop")
        with made.open("rb") as source, (place / MEMORY).open("wb") as target, ThreadPoolExecutor(1) as executor:
            memory = executor.submit(sparse.copied, source.fileno(), target)
            _freeze(command, running, place)
            checksums = {MEMORY: memory.result()}
    for name in (*_OUTPUTS, *_fifos()):
        (place / name).unlink()
    (place / _ORIGIN).write_text(f"{place}")
    images = (place / IMAGES).iterdir()
    written = [place / name for name in (_ORIGIN, _INITIAL, INTERPRETER)] + [*images]
    checksums |= {f"{path.relative_to(place)}": sparse.read(path) for path in written if path.exists()}
    yield checksums, lambda: None


@contextmanager
def resume(entry: Path, command: Sequence[str]) -> Iterator[Running]:
    """A fresh copy of a guest frozen into entry, which waits for a job."""
    origin = Path((entry / _ORIGIN).read_text())
    with (
        qemu.unnamed_outputs() as outputs,
        ExitStack() as stack,
        qemu.pipe() as (hears, jobs),
        qemu.pipe() as (answers, says),
        qemu.pipe() as (obeys, orders),
        qemu.pipe() as (_, tells),
    ):
        os.write(orders.fileno(), qemu.order("cont"))
        theirs = [hears, says, obeys, tells]
        kept = [entry / name for name in (MEMORY, _INITIAL, INTERPRETER) if (entry / name).exists()]
        files = {path.name: stack.enter_context(FileIO(path)) for path in kept}
        files |= dict(zip(_fifos(), theirs, strict=True))
        inherited = {_MADE_IN if name == MEMORY else origin / name: file.fileno() for name, file in files.items()}
        inherited |= {origin / name: number for name, number in outputs.items()}
        port = Ends(answers.fileno(), jobs.fileno())
        with criu.thawed(command, entry / IMAGES, inherited, port, outputs) as running:
            for file in theirs:
                file.close()  # so that the port ends with QEMU
            yield running


def _freeze(command: Sequence[str], running: Running, place: Path) -> None:
    """Raises Refused where CRIU cannot do it, which is then not asked again."""
    try:
        criu.freeze(command, running.process, place / IMAGES)
        if criu_images.map_privately(place / IMAGES) != 1:
            raise HarnessError("freeze a guest", "its memory is not the one shared mapping of QEMU")
    except HarnessError as error:
        if cache.full():
            raise
        criu.distrust(f"{error}")
        raise Refused(f"{error}") from error


def _fifos() -> list[str]:
    return [f"{way}.{direction}" for way in _WAYS for direction in ("in", "out")]


@contextmanager
def _at_work(machine: Machine, guest: Guest, accelerator: str, place: Path) -> Iterator[tuple[Running, Ends, Path]]:
    """A QEMU that boots, its monitor, and the guest's memory.

    What it has open are files with names, by which they can be replaced.
    """
    with ExitStack() as stack:
        for name in _fifos():
            os.mkfifo(place / name)
        held = [stack.enter_context(_opened(place / name, os.O_RDWR)) for name in _fifos()]
        outputs = {name: stack.enter_context(_opened(place / name, os.O_RDWR | os.O_CREAT)) for name in _OUTPUTS}
        paths = {name: str(place / name) for name in qemu.OUTPUTS}
        words = [
            *qemu.characters(f"pipe,id={wire.PORT},path={place / wire.PORT}", paths),
            "-chardev", f"pipe,id={_MONITOR},path={place / _MONITOR}", "-mon", f"chardev={_MONITOR},mode=control",
        ]  # fmt: skip
        line = boot.arguments(
            machine, guest, accelerator, place / _INITIAL, boot.memory_words(machine, _MADE_IN, shared=True)
        )
        command = criu.freezable([str(qemu.binary()), *words, *line], place / qemu.OWN_WORDS)
        port, monitor = (
            Ends(
                stack.enter_context(_opened(place / f"{way}.out", os.O_RDONLY | os.O_NONBLOCK)).fileno(),
                stack.enter_context(_opened(place / f"{way}.in", os.O_WRONLY | os.O_NONBLOCK)).fileno(),
            )
            for way in _WAYS
        )
        numbers = {name: file.fileno() for name, file in outputs.items()}
        running = stack.enter_context(qemu.at_work(command, port, numbers, (), apart=True, huge_pages=False))
        while not qemu.ready(monitor.reader, time.monotonic() + _LOOK) and running.ended() is None:
            pass
        for file in held:  # QEMU has them now, so that what we read from ends when QEMU does
            file.close()
        yield running, monitor, Path(f"/proc/{running.process.pid}/root{_MADE_IN}")


def _opened(path: Path, flags: int) -> FileIO:
    return FileIO(os.open(path, flags | os.O_CLOEXEC, 0o600), "r" if flags & os.O_ACCMODE == os.O_RDONLY else "w")
