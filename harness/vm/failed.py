"""A guest that did not do its job, as a Result: what happened, why as far as the console tells, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.report import Json, Outcome, Report, Result
from harness.vm import wire
from harness.vm.qemu import Running

CONSOLE_LINES = 60
STDERR_LINES = 15
_TITLE = "The guest does its job"
_BUILD = (
    "give it the modules of the same build, or a kernel with these built in: virtio_pci, virtio_blk, virtio_console"
)


@dataclass(frozen=True)
class Cause:
    """What a line on the console means; {0} is its first group."""

    line: re.Pattern[str]
    what: str
    happened: str
    remedy: str


CAUSES = (
    Cause(
        re.compile(r"System is deadlocked on memory|Kernel panic - not syncing: .*Out of memory"),
        "memory",
        "it had too little memory to go on",
        "give it more: --memory",
    ),
    Cause(
        re.compile(r"Kernel panic - not syncing: (VFS: Unable to mount root fs.*|No working init found.*)"),
        "start",
        "the kernel found nothing to start: {0}",
        "use a kernel with CONFIG_BLK_DEV_INITRD, CONFIG_BINFMT_ELF and CONFIG_BINFMT_SCRIPT, for x86-64",
    ),
    Cause(
        re.compile(r"guest: (no /dev/vda: .*|no devtmpfs: .*|the root cannot be mounted: .*)"), "start", "{0}", _BUILD
    ),
    Cause(
        re.compile(r"open the guest's ports: (.*)|No such file or directory: '(/sys/class/virtio-ports)'"),
        "start",
        "there is no way to it: virtio_console is missing, or does not work",
        _BUILD,
    ),
    Cause(
        re.compile(r"Kernel panic - not syncing: (.*)"),
        "panic",
        "the kernel panicked: {0}",
        "the console has the trace: report it to whoever built the kernel",
    ),
    Cause(
        re.compile(r"guest: (the server failed)"),
        "ended",
        "{0}",
        "the console has the trace: this is a defect of msp-harness, or of what the kernel lacks",
    ),
)
"""The first of these that the console has is the cause."""


class Failed(Exception):
    """A guest that failed; result says how."""

    def __init__(self, result: Result):
        super().__init__(result.summary)
        self.result = result


def failed(
    what: str, summary: str, remedy: str, running: Running | None = None, *, evidence: Mapping[str, Json] | None = None
) -> Failed:
    """One Result with id guest.WHAT, and with the last lines of console and stderr, where something ran."""
    observed: dict[str, Json] = {}
    if running is not None:
        observed["console"] = running.output("console").splitlines()[-CONSOLE_LINES:]
        if stderr := running.output(wire.STDERR).splitlines()[-STDERR_LINES:]:
            observed["stderr"] = list(stderr)
    return Failed(
        Result(
            f"guest.{what}", _TITLE, Outcome.ERROR, summary, evidence=evidence or {}, observed=observed, remedy=remedy
        )
    )


def verdict(report: Report) -> str:
    """One sentence for a person in a hurry, for a Report of a guest that failed; empty for any other."""
    if len(report.results) == 1 and report.results[0].group == "guest":
        return f"the guest failed, {report.results[0].summary}"
    return ""


def silent(running: Running, doing: str, limit: str) -> Failed:
    """A guest that said nothing more while it was to do this: ended, or still running after its limit (in words)."""
    status = running.ended(patience=0.2)
    console = running.output("console")
    for cause in CAUSES:
        if found := cause.line.search(console):
            return failed(cause.what, f"{doing}: {cause.happened.format(*found.groups())}", cause.remedy, running)
    if status is None:
        return _hanging(running, doing, limit, console)
    said = [line for line in running.output("qemu").splitlines() if line.strip()]
    if status != 0:
        happened = said[-1] if said else f"QEMU ended with status {status} and nothing on stderr"
        remedy = (
            "give a kernel for x86-64: a bzImage, or a vmlinux with CONFIG_PVH" if not console.strip() else "see QEMU"
        )
        return failed("start", f"{doing}: QEMU does not go on: {happened}", remedy, running)
    if not console.strip():
        remedy = "see whether it is a whole kernel for x86-64, with CONFIG_SERIAL_8250_CONSOLE"
        happened = "it reset itself and had printed nothing, as in a triple fault"
        return failed("start", f"{doing}: {happened}", remedy, running)
    return failed("ended", f"{doing}: it went off and told no reason", "see the console's last lines (-v)", running)


def _hanging(running: Running, doing: str, limit: str, console: str) -> Failed:
    if not console.strip() and doing == BOOTING:
        happened = f"nothing came from it, not a line on the console, for {limit}"
        remedy = "see whether it is a kernel for x86-64 with CONFIG_SERIAL_8250_CONSOLE"
        return failed("start", f"{doing}: {happened}", remedy, running)
    last = (console.strip().splitlines() or ["nothing"])[-1]
    what = "start" if doing == BOOTING else "hang"
    happened = f"it had not ended after {limit}; last on the console: {last}"
    return failed(
        what, f"{doing}: {happened}", "see the console's last lines (-v), or give it longer: --timeout", running
    )


BOOTING = "booting"
PREPARING = "preparing what jobs need"
WORKING = "doing the job"


def without_report(ended: Mapping[str, Any], running: Running) -> Failed:
    """A job that ended and left no Report."""
    status, full, killed = ended.get("status"), ended.get("full"), ended.get("out_of_memory")
    if full:
        summary = f"{WORKING}: the disk is full: {', '.join(map(str, full))}"
        return failed("disk", summary, "its files lie in memory: give it more: --memory", running)
    if killed:
        summary = f"{WORKING}: it ran out of memory: the kernel killed {killed} of its processes"
        return failed("memory", summary, "give it more: --memory", running)
    said = (running.output(wire.STDERR).strip().splitlines() or ["nothing on stderr"])[-1]
    summary = f"{WORKING}: the command ended with status {status} and left no report: {said}"
    return failed("report", summary, "the lines of stderr say more (-v)", running)


def garbled(error: HarnessError, running: Running) -> Failed:
    """A guest whose answer makes no sense."""
    return failed("report", f"{WORKING}: its answer cannot be read: {error.happened}", "try --fresh", running)
