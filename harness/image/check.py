"""`msp-harness image check`: the depths, each a superset of the one before, each saying what it could not see."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from harness.checks.recording import Recording
from harness.errors import HarnessError
from harness.image import azure, checks, own_kernel, predict, said
from harness.image.image import Image
from harness.image.list import listed
from harness.kernel import packages
from harness.report import Outcome, Report, Result
from harness.report.model import Json
from harness.report.text import visible
from harness.vm import qemu
from harness.vm.appliance import Appliance


class Depth(IntEnum):
    """How deep an image is looked into."""

    INSPECT = 0
    KERNEL = 1
    BOOT = 2
    FULL = 3


_SEES = {
    Depth.KERNEL: "whether its kernel loads and attaches the image's eBPF object, and redirects",
    Depth.BOOT: "whether the image itself starts in Azure's surroundings, with its agent",
    Depth.FULL: "what its cloud-init reports with MSP on, and whether the prediction holds",
}
"""What a depth sees that those before it cannot."""


@dataclass(frozen=True)
class Options:
    """How an image is checked. repeat: boots for the race. seconds: limit of a boot, 0 for the usual one."""

    depth: Depth = Depth.INSPECT
    allow_backing: bool = False
    root: str = ""  # the device with the system, where there are several
    repeat: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Checked:
    """A Report, and the list of what was found in the image."""

    report: Report
    found: Json


READ = "image.read"
"""The id of the Result of an image that could not be read."""

Tell = Callable[[str], None]


def check(source: str, options: Options, tell: Tell = lambda line: None) -> Checked:
    """Check an image. One that cannot be read is a Report that says so."""
    from harness.image.read import read

    recording = Recording(_target(source))
    taken = own_kernel.Taken(None, "the image's system could not be read")

    def also(appliance: Appliance, image: Image) -> None:
        nonlocal taken
        if options.depth >= Depth.KERNEL and image.tree.names("/"):
            tell("taking the kernel out of it")
            taken = own_kernel.take(appliance, image)

    try:
        image = read(source, allow_backing=options.allow_backing, root=options.root, tell=tell, also=also)
    except HarnessError as error:
        summary = f"could not find out: cannot {error.attempted}: {error.happened}"
        result = _not_read(summary, error.remedy, said=error.detail.splitlines()[-20:])
        report = replace(recording.report([result]), kernel="unknown", distribution="unknown")
        return Checked(report, {})
    results = list(checks.check(image))
    if options.depth >= Depth.KERNEL:
        results += own_kernel.verified(image, taken, results, tell)
    results += predict.results(image, results)
    if options.depth >= Depth.BOOT:
        results += azure.boot(
            source,
            image,
            results,
            provision=options.depth is Depth.FULL,
            repeat=options.repeat,
            seconds=options.seconds,
            tell=tell,
        )
    results += [_unseen(depth) for depth in _SEES if depth > options.depth]
    report = replace(
        recording.report(results),
        kernel=said.text(results, "kernel.default", "release") or "unknown",
        distribution=said.text(results, "system.found", "os-release", "PRETTY_NAME")
        or image.system.get("product_name")
        or "unknown",
    )
    return Checked(report, listed(image))


def needed(depth: Depth) -> None:
    """Raises HarnessError where this machine has not what the depth needs."""
    wanted = [("guestfish", packages.GUESTFISH)] + [(qemu.BINARY, packages.QEMU)] * (depth > Depth.INSPECT)
    for command, need in wanted:
        if shutil.which(command) is None:
            raise HarnessError("check an image", f"there is no {command}", packages.install_hint([need]))


def lost(source: str, what: str, how: str, said: Sequence[str]) -> Report:
    """The Report of an image whose process gave none."""
    result = _not_read(f"could not find out: its process {how}", said=list(said))
    return replace(Recording(_target(source)).report([result]), kernel="unknown", distribution="unknown")


def _not_read(summary: str, remedy: str | None = None, **observed: Json) -> Result:
    return Result(READ, "The image can be read", Outcome.ERROR, summary, observed=observed, remedy=remedy)


def _target(source: str) -> str:
    return f"image {Path(source).name or source}"


def _unseen(depth: Depth) -> Result:
    name = depth.name.lower()
    return Result(
        f"depth.{name}",
        f"Looked into by --{name}",
        Outcome.SKIP,
        f"not seen without --{name}: {_SEES[depth]}",
        remedy=f"`msp-harness image check --{name} IMAGE`",
    )


def timeline(report: Report) -> list[str]:
    """What happened in the boot of --full, the agent's side and provisioning's, a line each; empty without one."""
    found = next((result for result in report.results if result.id == "full.timeline"), None)
    lines = found.observed.get("lines") if found else None
    if not isinstance(lines, list):
        return []
    heading = "seconds from power on; platform: as it saw it; guest: from the logs that the image left"
    return [heading, *(visible(str(line)) for line in lines), ""]


def verdict(report: Report) -> str:
    """One sentence about an image: what will happen to a VM that is made of it."""
    known = {result.id: result for result in report.results}
    for id in ("full.row", "prediction.outcome"):
        if id in known:
            return known[id].summary
    return "it could not be found out whether a VM made of it provisions"
