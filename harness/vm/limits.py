"""How long a guest may take: a multiple of what boots of the same kernel took here.

A kernel that never booted here has more time. The times are kept in the cache under the kernel's digest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.vm import cache
from harness.vm.machine import KVM, TCG, Machine

_KEPT = 8  # the last boots
_UNMEASURED = 30.0  # seconds that a boot is taken for which nobody measured: emulated, on a busy machine
_BOOT = 6  # boots that a boot may last: the machine may be busier than it was
_LEAST = 20.0  # seconds that a boot may last in any case
_RESUME = 20.0  # seconds; it takes 0.2
_JOBS = {"verify": 150, "reproduce": 300, "agent": 150}
_OTHER = 60
_LEAST_JOB = 60.0  # seconds


@dataclass(frozen=True)
class Limit:
    """Seconds, and where they come from."""

    seconds: float
    origin: str

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s ({self.origin})"


def _place(machine: Machine, accelerator: str) -> Path:
    digest = machine.kernel.digest.removeprefix("sha256:")[:32]
    return cache.directory() / "boots" / f"{digest}-{accelerator}-{machine.cpus}.json"


def measured(machine: Machine, accelerator: str) -> list[float]:
    """How long the last boots took, in seconds from exec to ready; empty where there were none."""
    try:
        found = json.loads(_place(machine, accelerator).read_text())
        return [float(seconds) for seconds in found if 0 < float(seconds) < 3600]
    except (OSError, ValueError, TypeError):
        return []


def quickest(machine: Machine) -> float:
    """Seconds that the quickest of its last boots took, by whatever; infinite where none was measured."""
    return min((seconds for by in (KVM, TCG) for seconds in measured(machine, by)), default=math.inf)


def remember(machine: Machine, accelerator: str, seconds: float) -> None:
    """Keep the time of a boot. Losing one, on a full disk or to another process, does no harm."""
    kept = json.dumps([*measured(machine, accelerator), round(seconds, 3)][-_KEPT:])
    cache.note(_place(machine, accelerator), kept)


def boot(machine: Machine, accelerator: str) -> Limit:
    return _limit(machine, accelerator, _BOOT, _LEAST)


def resume() -> Limit:
    return Limit(_RESUME, "to resume")


def job(machine: Machine, accelerator: str, arguments: Sequence[str]) -> Limit:
    return _limit(machine, accelerator, _JOBS.get(arguments[0], _OTHER), _LEAST_JOB)


def _limit(machine: Machine, accelerator: str, factor: float, least: float) -> Limit:
    boots = measured(machine, accelerator)
    if not boots:
        return Limit(max(factor * _UNMEASURED, least), "this kernel was never measured here")
    slowest = max(boots)
    return Limit(max(factor * slowest, least), f"{factor} × the slowest of its last boots, {slowest:.1f} s")
