"""Saved guests: booted, prepared, and written down, so that each job resumes a fresh copy.

A saved guest is two files: its memory, as it lies, and the state of its devices (QEMU's migration stream, without the
memory: capability x-ignore-shared). A resumed guest maps the memory privately, page by page as it needs them, so that
resuming costs no more for a large guest, copies share what they do not write, and the file is never written to.

A state fits one kernel, root, package, machine, QEMU and processor: all of that is in its name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import boot, cache, forget, initramfs, qemu
from harness.vm.guest import Guest
from harness.vm.machine import Machine
from harness.vm.qemu import Monitor, Running

KIND = "saved"

_MEMORY, _DEVICES, _RECORD = "memory", "devices", "saved.json"
_VERSION = 2  # of how a guest is saved and prepared
_BLOCK = 1 << 16  # bytes
_NOTHING = bytes(_BLOCK)
_KEPT = 24  # saved guests, 0.2 GB each
_SAVE_SECONDS = 60  # it takes a tenth of a second
_FORGOTTEN_AFTER = 12 * 3600  # seconds; two states of the code may be in use beside each other
_CAPABILITIES = [{"capability": "x-ignore-shared", "state": True}]  # QEMU 4.1 and later


Parts = Sequence[tuple[int, int]]
"""Of a file: where each begins, and where it ends."""


class Refused(Exception):
    """QEMU does not take a state, in its words."""


@dataclass(frozen=True)
class Saved:
    """A guest at rest."""

    entry: Path

    @property
    def memory(self) -> Path:
        return self.entry / _MEMORY

    @property
    def devices(self) -> Path:
        return self.entry / _DEVICES

    def checking(self) -> Future[str]:
        """Reads all of it beside whatever else is done, a tenth of a second; what is wrong, or nothing."""
        executor = ThreadPoolExecutor(1)
        future = executor.submit(self._read)
        executor.shutdown(wait=False)
        return future

    def _read(self) -> str:
        try:
            record = json.loads((self.entry / _RECORD).read_text())
            for name, (checksum, parts) in record["checksums"].items():
                if checksum != _checksum(self.entry / name, parts):
                    return f"{name} is not what was saved"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{error}"
        return ""


def name(machine: Machine, guest: Guest, accelerator: str) -> str:
    """What stands for everything that a state fits to: first the kernel and machine, then code and surroundings."""
    kernel = machine.kernel
    binary = qemu.binary()
    status = binary.stat()
    about = [kernel.digest, machine.cpus, machine.memory, machine.cgroup, machine.lsm, machine.words]
    around = [
        _VERSION, accelerator, guest.name, initramfs.digest(), qemu.words(machine),
        qemu.hardware(machine, accelerator, Path(guest.root.name)),
        str(binary), status.st_size, status.st_mtime_ns, _processor(accelerator), _compiler(),
    ]  # fmt: skip
    return f"{kernel.release}-{_short(about)}-{_short(around)}"


def _short(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _compiler() -> list[object]:
    """BCC, which compiles the programs that a saved guest has."""
    found = importlib.util.find_spec("bcc")
    if found is None or not found.origin:
        return []
    status = Path(found.origin).stat()
    return [found.origin, status.st_size, status.st_mtime_ns]


def _processor(accelerator: str) -> str:
    """The host's own, where the guest runs on it."""
    if accelerator != "kvm":
        return ""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "microcode"))}))


def find(name: str) -> Saved | None:
    """A saved guest that is there and, as far as a look tells, whole."""
    entry = cache.directory() / KIND / name
    return Saved(entry) if cache.hold(entry) and not damage(entry) else None


def there(name: str) -> Saved:
    """The saved guest of a name that is known to be there."""
    return Saved(cache.directory() / KIND / name)


def damage(entry: Path) -> str:
    """What is wrong with an entry's files, by their sizes: memory that ends early would kill QEMU."""
    try:
        record = json.loads((entry / _RECORD).read_text())
        for file, size in record["sizes"].items():
            found = (entry / file).stat().st_size
            if found != size:
                return f"{file} has {found} bytes, not {size}"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{_RECORD}: {error}"
    return ""


@contextmanager
def make(
    machine: Machine, guest: Guest, accelerator: str, name: str, prepare: Callable[[Running], None]
) -> Iterator[Running | None]:
    """Boot a guest, have it prepared, and save it under this name. Others of its kernel and machine go when unused.

    prepare is given the booting guest, and raises what this raises where it does not come up. Gives that guest, which
    goes on from where it was saved and waits for a job as a copy would: to start another QEMU, which would have all
    code to translate again, takes as long as the job. None where another process has saved one meanwhile.
    """
    with ExitStack() as stack:
        saving: list[_Saving] = []

        def fill(place: Path) -> None:
            saving.append(stack.enter_context(_boot_and_save(machine, guest, accelerator, place / _DEVICES, prepare)))
            checksums = {_MEMORY: _copy(saving[0].memory, place / _MEMORY)}
            whole = [(0, (place / _DEVICES).stat().st_size)]
            checksums[_DEVICES] = _checksum(place / _DEVICES, whole), whole
            record = {
                "sizes": {file: (place / file).stat().st_size for file in checksums},
                "checksums": checksums,
                "kernel": machine.kernel.origin,
                "variation": machine.variation,
            }
            (place / _RECORD).write_text(json.dumps(record, indent=1))

        entry = cache.kept(KIND, name, fill, damage)
        _forget_older(entry)
        if saving:
            saving[0].monitor.ask("cont")
        yield saving[0].running if saving else None


@dataclass(frozen=True)
class _Saving:
    """A guest that stands still since it was saved: its QEMU, and the descriptor of its memory."""

    running: Running
    monitor: Monitor
    memory: int


def discard(name: str) -> None:
    """Throw a state away, all of it at once. Whoever is resuming it has its files open."""
    entry = cache.directory() / KIND / name
    away = entry.with_name(f".{name}.{os.getpid()}.unfinished")
    with suppress(OSError):  # another did
        entry.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _forget_older(entry: Path) -> None:
    """States of the same kernel and machine whose code or surroundings are gone: nothing asks for them any more.

    One that was used today may be another checkout's.
    """
    same = entry.name.rpartition("-")[0]
    for other in entry.parent.glob(f"{same}-*"):
        if other.name != entry.name and forget.last_use(other) < time.time() - _FORGOTTEN_AFTER:
            cache.remove(KIND, other.name)
    forget.all_but(_KEPT, KIND)


@contextmanager
def _boot_and_save(
    machine: Machine, guest: Guest, accelerator: str, devices: Path, prepare: Callable[[Running], None]
) -> Iterator[_Saving]:
    words, theirs, ours = qemu.monitor()
    with ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        memory = stack.enter_context(qemu.memory("guest's memory"))
        os.ftruncate(memory, machine.memory << 20)
        shared = boot.memory_words(machine, Path(f"/proc/self/fd/{memory}"), shared=True)
        inherited = (memory, theirs.fileno())
        running = stack.enter_context(boot.cold(machine, guest, accelerator, [*shared, *words], inherited))
        theirs.close()
        prepare(running)
        monitor = Monitor(ours)
        monitor.ask("migrate-set-capabilities", capabilities=_CAPABILITIES)
        with devices.open("wb") as file:
            monitor.ask("getfd", file.fileno(), fdname="state")
            monitor.ask("migrate", uri="fd:state")
            deadline = time.monotonic() + _SAVE_SECONDS
            while (status := monitor.ask("query-migrate")).get("status") != "completed":
                if status.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
                    happened = str(status.get("error-desc") or status.get("status"))
                    raise HarnessError("save a guest", happened, "use --fresh, which saves none")
                time.sleep(0.005)
        yield _Saving(running, monitor, memory)


def _copy(memory: int, target: Path) -> tuple[int, Parts]:
    """Write the memory to a file with holes where it is zero, for most of it was never touched.

    Gives the parts that were written, and their CRC-32 as _checksum() will find it.
    """
    parts: list[tuple[int, int]] = []
    checksum = 0
    with target.open("wb") as file:
        for begin, end in _data(memory):
            for block in range(begin, end, _BLOCK):
                content = os.pread(memory, min(_BLOCK, end - block), block)
                if content != _NOTHING[: len(content)]:
                    file.seek(block)
                    file.write(content)
                    checksum = zlib.crc32(content, checksum)
                    if parts and parts[-1][1] == block:
                        parts[-1] = (parts[-1][0], block + len(content))
                    else:
                        parts.append((block, block + len(content)))
        file.truncate(os.fstat(memory).st_size)
    return checksum, parts


def _data(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes."""
    end = 0
    while True:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end


def _checksum(path: Path, parts: Parts) -> int:
    """CRC-32 over parts of a file."""
    found = 0
    with path.open("rb", buffering=0) as file:
        for begin, end in parts:
            for block in range(begin, end, _BLOCK):
                found = zlib.crc32(os.pread(file.fileno(), min(_BLOCK, end - block), block), found)
    return found


@contextmanager
def resume(saved: Saved, machine: Machine, guest: Guest, accelerator: str) -> Iterator[Running]:
    """A fresh copy of a saved guest, which waits for a job. Raises Refused."""
    words, theirs, ours = qemu.monitor()
    with ours, theirs, saved.memory.open("r+b") as memory, saved.devices.open("rb") as devices:
        arguments = [
            *qemu.hardware(machine, accelerator, guest.root),
            *boot.memory_words(machine, Path(f"/proc/self/fd/{memory.fileno()}")),
            *words,
            "-incoming", "defer",
        ]  # fmt: skip
        with qemu.start(arguments, (memory.fileno(), devices.fileno(), theirs.fileno())) as running:
            theirs.close()
            try:
                monitor = Monitor(ours)
                monitor.ask("migrate-set-capabilities", capabilities=_CAPABILITIES)
                monitor.ask("migrate-incoming", uri=f"fd:{devices.fileno()}")
            except (HarnessError, OSError) as error:
                raise Refused(f"{error}") from error
            yield running
