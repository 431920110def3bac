"""By what a guest's code runs: KVM where a boot shows that it works, else TCG, which always does.

A /dev/kvm that is there may not run a guest (nested virtualisation, a sandbox): QEMU refuses, or the guest hangs.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from harness.kernel import facts
from harness.vm import boot, cache, qemu
from harness.vm.guest import Guest
from harness.vm.initramfs import Archive
from harness.vm.machine import KVM, TCG, Machine

_DEVICE = Path("/dev/kvm")
_SECONDS = 20  # a working KVM needs one
_ALIVE = "guest: alive"
_INIT = f"#!/bin/busybox sh\necho '{_ALIVE}'\n/bin/busybox poweroff -f\n"


def usable(machine: Machine, guest: Guest) -> str:
    """kvm or tcg. Asked once for each boot of this machine and QEMU; the answer is kept in the cache."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return TCG
    if found := kept():
        return found
    answer = KVM if _runs(machine, guest) else TCG
    cache.note(_place(), json.dumps({"asked": _asked(), "answer": answer}))
    return answer


def kept() -> str:
    """The answer of this boot of the machine and this QEMU, where it was asked already; else nothing."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads(_place().read_text())
        if found["asked"] == _asked() and found["answer"] in (KVM, TCG):
            return str(found["answer"])
    return ""


def _asked() -> list[str | int]:
    binary = qemu.binary()
    return [facts.boot_id(), str(binary), binary.stat().st_mtime_ns]


def _place() -> Path:
    return cache.directory() / "accelerator.json"


def _runs(machine: Machine, guest: Guest) -> bool:
    """Whether this kernel starts its init under KVM."""
    archive = Archive()
    archive.directory("dev")
    archive.file("init", _INIT.encode(), mode=0o755)
    archive.copy("bin/busybox", guest.busybox)
    deadline = time.monotonic() + _SECONDS
    with boot.cold(machine, guest, KVM, content=archive.finished()) as running:
        while time.monotonic() < deadline:
            if _ALIVE in running.output("console"):
                return True
            if running.ended(patience=0.05) is not None:
                return _ALIVE in running.output("console")
    return False
