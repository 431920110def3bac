"""A guest saved as QEMU's migration stream: its memory, as it lies, and the state of its devices.

The stream is without the memory (capability x-ignore-shared). A resumed guest maps the memory privately, page by page
as it needs them, so that resuming costs no more for a large guest, copies share what they do not write, and the file
is never written to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import boot, qemu, sparse
from harness.vm.guest import Guest
from harness.vm.machine import KVM, Machine
from harness.vm.qemu import Ends, Monitor, Refused, Running
from harness.vm.sparse import Checksum

MEMORY, DEVICES = "memory", "devices"

_SAVE_SECONDS = 60  # it takes a tenth of a second
_CAPABILITIES = [{"capability": "x-ignore-shared", "state": True}]  # QEMU 4.1 and later


@contextmanager
def save(
    machine: Machine, guest: Guest, accelerator: str, place: Path, prepare: Callable[[Running], None]
) -> Iterator[tuple[dict[str, Checksum], Callable[[], Running]]]:
    """Boot a guest, have it prepared, and write it into place.

    Gives the checksums of the files, and what lets the guest go on: to start another QEMU, which would have all code to
    translate again, takes as long as a job.
    """
    words, theirs, ours = qemu.monitor()
    with ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        memory = stack.enter_context(qemu.memory("guest's memory"))
        os.ftruncate(memory, machine.memory << 20)
        devices = stack.enter_context((place / DEVICES).open("wb"))
        shared = boot.memory_words(machine, Path(f"/proc/self/fd/{memory}"), shared=True)
        inherited = (memory, theirs.fileno())
        running = stack.enter_context(
            boot.cold(machine, guest.keeping(place), accelerator, [*shared, *words], inherited)
        )
        theirs.close()
        prepare(running)
        monitor = Monitor(Ends.of(ours))
        monitor.ask("migrate-set-capabilities", capabilities=_CAPABILITIES)
        monitor.give(ours, "state", devices.fileno())
        monitor.ask("migrate", uri="fd:state")
        _wait_until_written(monitor)
        with (place / MEMORY).open("wb") as file:
            checksums = {MEMORY: sparse.copied(memory, file)}
        checksums[DEVICES] = sparse.read(place / DEVICES)

        def go_on() -> Running:
            monitor.ask("cont")
            return running

        yield checksums, go_on


def _wait_until_written(monitor: Monitor) -> None:
    deadline = time.monotonic() + _SAVE_SECONDS
    while (status := monitor.ask("query-migrate")).get("status") != "completed":
        if status.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
            happened = str(status.get("error-desc") or status.get("status"))
            raise HarnessError("save a guest", happened, "use --fresh, which saves none")
        time.sleep(0.005)


@contextmanager
def resume(entry: Path, machine: Machine, guest: Guest, accelerator: str) -> Iterator[Running]:
    """A fresh copy of a guest saved in entry, which waits for a job. Raises Refused."""
    words, theirs, ours = qemu.monitor()
    with ours, theirs, (entry / MEMORY).open("r+b") as memory, (entry / DEVICES).open("rb") as devices:
        arguments = [
            *qemu.hardware(machine, accelerator, *guest.kept(entry).drives),
            *boot.memory_words(machine, Path(f"/proc/self/fd/{memory.fileno()}")),
            *words,
            "-incoming", "defer",
        ]  # fmt: skip
        with qemu.start(
            arguments, (memory.fileno(), devices.fileno(), theirs.fileno()), huge_pages=accelerator == KVM
        ) as running:
            theirs.close()
            try:
                monitor = Monitor(Ends.of(ours))
                monitor.ask("migrate-set-capabilities", capabilities=_CAPABILITIES)
                monitor.ask("migrate-incoming", uri=f"fd:{devices.fileno()}")
            except (HarnessError, OSError) as error:
                raise Refused(f"{error}") from error
            yield running
