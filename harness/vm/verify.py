"""`msp-harness verify` on another kernel: the same checks in a guest, and their Report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.errors import HarnessError
from harness.report import Report, json
from harness.vm import guest, qemu
from harness.vm.kernels import Kernel

COMMAND = ("python3", "-m", "harness", "verify", "--json", "-")


def verify(kernel: Kernel, arguments: Sequence[str] = (), *, timeout: float = 300) -> Report:
    """The Report of `verify ARGUMENTS` on a kernel, whose target says that it ran in a guest, and by what.

    Raises HarnessError when the guest cannot be had, does not end in time (seconds), or sends no Report.
    """
    job = qemu.Job((*COMMAND, *arguments), {"COLUMNS": "120"}, timeout=timeout)
    ended = qemu.boot(kernel, guest.get(), job)
    try:
        report = json.load(ended.stdout)
    except HarnessError as error:
        happened = f"it ended with status {ended.status} and sent no report: {error.happened}"
        attempted = f"verify {kernel.release} in a guest ({ended.accelerator})"
        raise HarnessError(attempted, happened, detail=ended.stderr) from error
    return replace(report, target=f"{kernel.origin} in a guest ({ended.accelerator})")
