"""What the kernel answers before anything is loaded: asked once, judged by preflight, used by what comes after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.kernel import bpf, cgroups, facts, features
from harness.kernel.bpf import BpfError
from harness.kernel.features import Answer, Probed
from harness.program import maps


@dataclass(frozen=True)
class LockedMemory:
    """RLIMIT_MEMLOCK as this process had it (bytes; None: unlimited), and what a map of audit_map's size made of it.

    refused: what the kernel said under that limit, and what it still said once this process had lifted its own.
    """

    limit: int | None = None
    refused: str = ""
    still_refused: str = ""


@dataclass(frozen=True)
class Machine:
    """What the checks after this one need to know: the probes' answers, the cgroup2 mount to use."""

    features: Mapping[str, Probed]
    cgroup2: Path | None
    locked_memory: LockedMemory = LockedMemory()

    def has(self, name: str) -> bool:
        return self.features[name].answer is Answer.YES


def ask() -> Machine:
    """Ask the kernel everything. This process's limit on locked memory is lifted on the way, where it is in the way."""
    mounts = cgroups.layout().cgroup2
    locked_memory = _lift_memlock_limit()
    probed = _PROBED.pop() if _PROBED else features.probe_all()
    return Machine(probed, mounts[0].point if mounts else None, locked_memory)


_PROBED: list[Mapping[str, Probed]] = []
"""What the probes answered to this process before, for one ask()."""


def keep(machine: Machine) -> None:
    """Have this process's next ask() take over what the kernel's probes answered, however much later.

    For a guest that is saved: its copies have the kernel that was asked, as it was asked.
    """
    _PROBED[:] = [machine.features]


def _lift_memlock_limit() -> LockedMemory:
    limit, refused, still_refused = facts.memlock_limit(), _refused_map(), ""
    if refused:
        bpf.lift_memlock_limit()
        still_refused = _refused_map()
    return LockedMemory(limit, refused, still_refused)


def _refused_map() -> str:
    """What the kernel says against two maps of audit_map's size, as the program has them; nothing when they fit."""
    layout = maps.LAYOUTS["audit_map"]
    sizes = (layout.key_size, layout.value_size, maps.AUDIT_ENTRIES)
    try:
        with bpf.map_create(bpf.MapType.LRU_HASH, *sizes), bpf.map_create(bpf.MapType.LRU_HASH, *sizes):
            return ""
    except BpfError as error:
        return error.happened
