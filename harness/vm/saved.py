"""Saved guests: booted, prepared, and written down, so that each job resumes a fresh copy.

There are two forms: QEMU's migration stream (harness.vm.migrated), and, where CRIU works, the frozen process of an
emulated guest (harness.vm.frozen), whose copies need not translate again what was translated.

A saved guest fits one kernel, root, package, machine, QEMU and processor: all of that is in its name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.kernel import facts
from harness.vm import cache, criu, forget, frozen, initramfs, migrated, qemu, sparse
from harness.vm.guest import Guest
from harness.vm.machine import KVM, TCG, Machine
from harness.vm.qemu import Running

KIND = "saved"

_RECORD = "saved.json"
_VERSION = 4  # of how a guest is saved and prepared
_KEPT = 16  # saved guests, 0.3 GB each
_FORGOTTEN_AFTER = 12 * 3600  # seconds; two states of the code may be in use beside each other


@dataclass(frozen=True)
class Saved:
    """A guest at rest."""

    entry: Path

    def checking(self) -> Future[str]:
        """Reads what may have changed beside whatever else is done; what is wrong, or nothing.

        All of it takes a tenth of a second of a processor, so what nobody wrote to since it was saved is left out.
        """
        executor = ThreadPoolExecutor(1)
        future = executor.submit(self.check)
        executor.shutdown(wait=False)
        return future

    def check(self, *, everything: bool = False) -> str:
        """The same, at once; with everything all of it is read."""
        try:
            record = json.loads((self.entry / _RECORD).read_text())
            for name, (checksum, parts) in record["checksums"].items():
                path = self.entry / name
                if not everything and _status(path) == record["statuses"][name]:
                    continue
                if checksum != sparse.crc(path, parts):
                    return f"{name} is not what was saved"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{error}"
        return ""


def _status(path: Path) -> list[int]:
    """What changes whenever a file is written to, or another is put in its place."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_ctime_ns]


def name(machine: Machine, guest: Guest, accelerator: str, tell: Callable[[str], None] = lambda line: None) -> str:
    """What stands for everything that a state fits to: first the kernel and machine, then code and surroundings.

    tell is given a line for what takes long, which is to find out once in which form guests can be saved here.
    """
    kernel = machine.kernel
    binary = qemu.binary()
    status = binary.stat()
    about = [kernel.digest, machine.cpus, machine.memory, machine.cgroup, machine.lsm, machine.words]
    around = [
        _VERSION, accelerator, guest.name, initramfs.digest(), qemu.words(machine),
        qemu.hardware(machine, accelerator, Path(guest.root.name)),
        str(binary), status.st_size, status.st_mtime_ns, _processor(accelerator), _compiler(),
    ]  # fmt: skip
    if command := _freezer(accelerator, tell):
        around += [command, facts.boot_id(), str(guest.root.resolve())]
    return f"{kernel.release}-{cache.name(about)}-{cache.name(around)}"


def _compiler() -> list[object]:
    """BCC, which compiles the programs that a saved guest has."""
    found = importlib.util.find_spec("bcc")
    if found is None or not found.origin:
        return []
    status = Path(found.origin).stat()
    return [found.origin, status.st_size, status.st_mtime_ns]


def _processor(accelerator: str) -> str:
    """The host's own, where the guest runs on it."""
    if accelerator != KVM:
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

    prepare is given the booting guest, and raises what this raises where it does not come up. Gives that guest, where
    it goes on from where it was saved and waits for a job as a copy would; None where it ended with being saved, or
    another process has saved one meanwhile.
    """
    with ExitStack() as stack:
        go_on: Callable[[], Running | None] = lambda: None  # noqa: E731

        def fill(place: Path) -> None:
            nonlocal go_on
            command = _freezer(accelerator)
            form = (
                frozen.save(machine, guest, accelerator, place, prepare, command)
                if command
                else migrated.save(machine, guest, accelerator, place, prepare)
            )
            checksums, go_on = stack.enter_context(form)
            record = {
                "sizes": {file: (place / file).stat().st_size for file in checksums},
                "checksums": checksums,
                "statuses": {file: _status(place / file) for file in checksums},
                "kernel": machine.kernel.origin,
                "variation": machine.variation,
            }
            (place / _RECORD).write_text(json.dumps(record, indent=1))

        entry = cache.kept(KIND, name, fill, damage)
        _forget_older(entry)
        yield go_on()


@contextmanager
def resume(saved: Saved, machine: Machine, guest: Guest, accelerator: str) -> Iterator[Running]:
    """A fresh copy of a saved guest, which waits for a job. Raises Refused."""
    form = (
        frozen.resume(saved.entry, _freezer(accelerator))
        if (saved.entry / frozen.IMAGES).is_dir()
        else migrated.resume(saved.entry, machine, guest, accelerator)
    )
    with form as running:
        yield running


def _freezer(accelerator: str, tell: Callable[[str], None] = lambda line: None) -> tuple[str, ...]:
    """The CRIU by which guests are saved here; none where QEMU does it: what KVM holds cannot be frozen."""
    return criu.command(tell) if accelerator == TCG else ()


def distrust(saved: Saved, why: str) -> None:
    """It is whole, and did not come back: no more are saved in its form, where there is another."""
    if (saved.entry / frozen.IMAGES).is_dir():
        criu.distrust(why)


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
