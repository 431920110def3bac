"""The guests' interpreter with all that they import, written down once, and then started as it is on any kernel.

Emulated, to import takes longer than the kernel's boot. What is imported does not depend on the kernel, and is the same
until this package changes. See harness.vm.undump for how, and harness.vm.server for where it goes on.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import boot, cache, failed, forget, initramfs, limits, qemu, wire
from harness.vm.guest import INTERPRETER, Guest
from harness.vm.machine import TCG, Machine

KIND = "interpreters"

_CHECKSUM = "checksum"  # its file: the CRC-32, in decimal
_VERSION = 1  # of how it is written down
_KEPT = 3  # of 50 MB each
_WORDS = ("vdso=0",)
_WRITING = "writing down what is imported"


def get(
    machine: Machine, guest: Guest, accelerator: str, tell: Callable[[str], None] = lambda line: None
) -> Path | None:
    """The executable; made by this machine's kernel where there is none yet, which tell is told.

    None where there is none to be had: with KVM, where little is won, and for a kernel that is on record as one that
    does without, for it made none or did not go on with one. Raises HarnessError when it cannot be kept, and Failed for
    a kernel that does not come up.
    """
    if accelerator != TCG:
        return None
    name = _name(guest)
    if _without(machine, name).exists():
        return None

    def make(place: Path) -> None:
        tell(f"booting {machine.kernel.release} to write down what guests import: then any kernel starts with it")
        content = _written(Machine(machine.kernel, words=_WORDS), guest, accelerator)
        (place / INTERPRETER).write_bytes(content)
        (place / _CHECKSUM).write_text(f"{zlib.crc32(content)}")

    try:
        entry = cache.kept(KIND, name, make, _damage)
    except _NotWritten as error:
        cache.note(_without(machine, name), f"{error}\n")
        return None
    forget.all_but(_KEPT, KIND)
    return entry / INTERPRETER


def _damage(entry: Path) -> str:
    try:
        whole = int((entry / _CHECKSUM).read_text()) == zlib.crc32((entry / INTERPRETER).read_bytes())
    except (OSError, ValueError) as error:
        return f"{error}"
    return "" if whole else f"{INTERPRETER} is not what was written"


def distrust(machine: Machine, guest: Guest, why: str) -> None:
    """This kernel does not go on with it: it starts as if there were none."""
    cache.note(_without(machine, _name(guest)), f"{why}\n")


def _without(machine: Machine, name: str) -> Path:
    return cache.directory() / f"{KIND}-not" / f"{name}-{cache.name(machine.kernel.digest)}"


class _NotWritten(Exception):
    """A guest did not write down its interpreter."""


def _name(guest: Guest) -> str:
    """What an interpreter depends on: all that it imported, and the processor that its C library chose code for."""
    binary = qemu.binary()
    status = binary.stat()
    return cache.name([
        _VERSION, guest.name, initramfs.digest(), qemu.model(TCG), str(binary), status.st_size, status.st_mtime_ns,
    ])  # fmt: skip


def _written(machine: Machine, guest: Guest, accelerator: str) -> bytes:
    """What a guest wrote down. Raises Failed where it does not come up, _NotWritten where it cannot."""
    limit = limits.boot(machine, accelerator)
    content = boot.initial(machine, guest, write_down=True)
    with boot.cold(machine, guest, accelerator, content=content) as running:
        try:
            if running.receive(time.monotonic() + limit.seconds) is None:
                raise failed.silent(running, failed.BOOTING, f"{limit}")
            message = running.receive(time.monotonic() + limit.seconds) or {}
        except HarnessError as error:
            raise _NotWritten(f"{error}") from error
        written = running.content(wire.STDOUT)
        if message.get("written") != {"size": len(written)}:
            raise _NotWritten(f"{failed.silent(running, _WRITING, f'{limit}')}, after {len(written)} bytes")
        return written
