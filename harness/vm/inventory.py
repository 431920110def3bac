"""What the cache of kernels holds, and what of it may go."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import appliance, cache, criu, interpreter, kernels, lab_kernels, saved
from harness.vm.kernels import Kernel

KINDS = {
    saved.KIND: "saved guest",
    kernels.KIND: "kernel",
    "guests": "root of guests",
    "packages": "package for guests",
    interpreter.KIND: "interpreter of guests",
    "sources": "kernel source",
    criu.KIND: "CRIU",
    appliance.KIND: "libguestfs' appliance",
    "appliance-kernels": "kernel for libguestfs",
}
"""Of the cache's entries, in the order in which they may go, and what each is."""

_DAY = 86400


@dataclass(frozen=True)
class SavedGuest:
    """A saved guest of a kernel: its name, how its machine differs from the usual one, and its bytes on disk."""

    name: str
    variation: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A kernel of the cache. Times are in seconds since the epoch, sizes in bytes on disk."""

    name: str
    specs: dict[str, float]  # what it answers to, and when that was asked
    kernel: Kernel | None  # None: its record cannot be read
    damage: str
    size: int
    used: float
    in_use: bool
    current: bool  # whether this version of the harness would use it
    guests: tuple[SavedGuest, ...]


def listed(*, thorough: bool = False) -> list[Entry]:
    """The kernels of the cache, by release. thorough: files are read whole and compared with their hashes."""
    answers: dict[str, dict[str, float]] = {}
    for _, answer in kernels.answers():
        answers.setdefault(answer.entry, {})[answer.spec] = answer.asked
    guests = _guests()
    found = []
    for entry in cache.entries(kernels.KIND):
        try:
            kernel = Kernel.at(entry)
        except HarnessError:  # damage says so
            kernel = None
        specs = answers.get(entry.name, {}) | _lab_spec(entry.name)
        found.append(
            Entry(
                entry.name,
                specs,
                kernel,
                kernels.damage(entry, thorough=thorough),
                cache.size(entry),
                used(entry),
                cache.in_use(entry),
                entry.name.endswith(f"-{kernels.RECIPE}"),
                tuple(guests.get(kernel.origin, ())) if kernel else (),
            )
        )
    return sorted(found, key=lambda entry: (entry.kernel.release if entry.kernel else "", entry.name))


def _lab_spec(name: str) -> dict[str, float]:
    """A lab kernel is not remembered by what was asked: its name has it."""
    for row in lab_kernels.LAB_KERNELS:
        recipe = name.removeprefix(f"lab-{row.name}-")
        if recipe != name and recipe.count("-") < 2:
            return {f"{lab_kernels.PREFIX}{row.name}": 0.0}
    return {}


def _guests() -> dict[str, list[SavedGuest]]:
    """The saved guests by the origin of their kernel."""
    found: dict[str, list[SavedGuest]] = {}
    for entry in cache.entries(saved.KIND):
        origin, variation = _kernel_of(entry)
        found.setdefault(origin, []).append(SavedGuest(entry.name, variation, cache.size(entry)))
    return found


def _kernel_of(entry: Path) -> tuple[str, str]:
    """The origin of the kernel of a saved guest, and its machine's variation; empty where its record is damaged."""
    try:
        record = json.loads((entry / "saved.json").read_text())
        return str(record["kernel"]), str(record["variation"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def used(entry: Path) -> float:
    """When an entry was last used, or made."""
    marks = [entry, entry / cache.USED]
    return max(path.stat().st_mtime for path in marks if path.exists())


@dataclass(frozen=True)
class Pruned:
    """What prune() removed or would remove, or had to leave because somebody uses it."""

    what: str
    name: str
    why: str
    size: int
    removed: bool


def prune(*, older_than: float | None = None, everything: bool = False, dry_run: bool = False) -> Iterator[Pruned]:
    """Remove what killed runs left, what is damaged, and what no version like this one asks for.

    With older_than (days) also what was not used for so long; with everything all that can be made or fetched again.
    What a running process uses, or makes just now, is left; it says so.
    """
    origins = {entry.kernel.origin: entry for entry in listed() if entry.kernel and not entry.damage}
    for kind, what in KINDS.items():
        for entry in cache.entries(kind):
            why = "all" if everything else _unwanted(kind, entry, origins, older_than)
            if why:
                size = cache.size(entry)
                removed = not cache.in_use(entry) if dry_run else cache.remove(kind, entry.name)
                yield Pruned(what, entry.name, why, size, removed)
        for name in cache.unfinished(kind):
            size = cache.unfinished_size(kind, name)
            removed = not cache.is_locked(kind, name) if dry_run else cache.remove(kind, name)
            if size or not removed:
                yield Pruned(what, name, "half done by a run that was killed", size, removed)
    yield from _directories(everything, dry_run)
    if not dry_run:
        there = {entry.name for entry in cache.entries(kernels.KIND)}
        for path, answer in kernels.answers():
            if answer.entry not in there:
                path.unlink(missing_ok=True)


def _unwanted(kind: str, entry: Path, origins: dict[str, Entry], older_than: float | None) -> str:
    last = used(entry)
    if kind == kernels.KIND:
        if not entry.name.endswith(f"-{kernels.RECIPE}"):
            return "made by another version"
        damage = kernels.damage(entry)
        if damage:
            return f"damaged: {damage}"
    if kind == saved.KIND:
        owner = origins.get(_kernel_of(entry)[0])
        if owner is None:
            return "its kernel is gone"
        last = max(last, owner.used)
    if older_than is not None and time.time() - last > older_than * _DAY:
        return f"not used for {(time.time() - last) / _DAY:.0f} days"
    return ""


def _directories(everything: bool, dry_run: bool) -> Iterator[Pruned]:
    """What is no entry: half downloads, and with everything apt's lists and the tree in which lab kernels are built."""
    place = cache.directory()
    rows = [("apt", path.name, path / "download", "half a download") for path in sorted(place.glob("apt/*"))]
    if everything:
        rows = [("apt", path.name, path, "all") for path in sorted(place.glob("apt/*"))]
        rows += [("lab", "tree", path, "all") for path in sorted(place.glob("lab/*"))]
    for kind, lock, path, why in rows:
        if not path.is_dir():
            continue
        size = cache.size(path)
        try:
            with cache.locked(kind, lock, wait=False):
                if not dry_run:
                    shutil.rmtree(path, ignore_errors=True)
            yield Pruned(f"{kind} directory", f"{kind}/{lock}", why, size, True)
        except cache.Busy:
            yield Pruned(f"{kind} directory", f"{kind}/{lock}", why, size, False)
