"""`image check --boot` and `--full`: an image booted in Azure's surroundings, and what came of it as Results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.image.azure import boot_results, full_results, inside, limits, machine, outcome, table, timeline, watch
from harness.image.azure.deployment import Deployment
from harness.image.azure.inside import Inside
from harness.image.azure.machine import Hardware
from harness.image.azure.observation import Observation
from harness.image.azure.outcome import Provisioning
from harness.image.azure.table import Happened
from harness.image.azure.timeline import Timeline
from harness.image.image import Image
from harness.lab.scenarios import DEFAULT, Scenario
from harness.report import Outcome, Result
from harness.vm import scratch
from harness.vm.machine import KVM, TCG

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Boot:
    """One boot and everything that was learned of it."""

    seen: Observation
    inside: Inside
    timeline: Timeline
    end: Provisioning
    happened: Happened
    seconds: float


@dataclass(frozen=True)
class How:
    """How to boot. seconds: the limit, 0 for the measured one."""

    deployment: Deployment = field(default_factory=Deployment)
    hardware: Hardware = field(default_factory=Hardware)
    scenario: Scenario = DEFAULT
    seconds: float = 0.0


def once(disk: Path, format: str, how: How, tell: Tell = lambda line: None, *, look_inside: bool = True) -> Boot:
    """Boot a disk image once, and read what it left. Raises HarnessError where that cannot be begun."""
    began = time.monotonic()
    if os.geteuid() != 0:
        happened = "this is not root: it takes a network namespace and a tap device of its own"
        raise HarnessError(f"boot {disk.name}", happened, "run it as root")
    how = replace(how, hardware=replace(how.hardware, accelerator=accelerator()))
    seconds = limits.expected(how.hardware.accelerator)
    tell(f"booting it in Azure's surroundings{f': some {seconds:.0f} s, as the last boots here' if seconds else ''}")
    with scratch.directory("azure") as place:
        overlay = machine.overlay(disk, format, place)
        seen = watch.boot(overlay, place, how.deployment, how.hardware, how.scenario, how.seconds, tell)
        found = inside.read(overlay) if look_inside else Inside(problem="it was not looked at in this boot")
    end = outcome.judged(how.deployment.msp, seen.reports, seen.latched_at)
    line = timeline.timeline(seen, found)
    boot = Boot(seen, found, line, end, table.happened(seen, found, end), time.monotonic() - began)
    limits.remember(how.hardware.accelerator, boot.seconds, limits.WHOLE)
    return boot


def accelerator() -> str:
    """KVM where a guest of ours has shown that it works since this machine started, else TCG."""
    from harness.vm import accelerator as known

    return KVM if os.access("/dev/kvm", os.R_OK | os.W_OK) and known.kept() == KVM else TCG


def boot(
    source: str, image: Image, results: Sequence[Result], *, provision: bool, repeat: int, seconds: float, tell: Tell
) -> Iterator[Result]:
    """The Results of --boot and, with provision, of --full."""
    if not image.disk.is_disk:
        reason = f"{image.disk.format} is no disk: there is nothing that a machine could boot"
        yield Result("boot.started", "The image boots", Outcome.SKIP, reason, remedy="give the disk that is made of it")
        return
    firmware = machine.UEFI if image.disk.firmware == machine.UEFI else machine.BIOS
    how = How(hardware=Hardware(firmware), seconds=seconds)
    try:
        first = once(Path(source), image.disk.format, how, tell)
    except HarnessError as error:
        happened = f"could not find out: {error}"
        yield Result("boot.started", "The image boots", Outcome.ERROR, happened, remedy=error.remedy)
        return
    yield from boot_results.results(first)
    if not provision:
        return
    yield from full_results.results(first, results)
    if repeat > 1:
        boots = [first, *_again(source, image.disk.format, how, repeat - 1, tell)]
        yield full_results.rate(boots, repeat)


def _again(source: str, format: str, how: How, times: int, tell: Tell) -> Iterator[Boot]:
    """Further boots; one that cannot be begun ends them."""
    for number in range(times):
        tell(f"boot {number + 2} of {times + 1}")
        try:
            yield once(Path(source), format, how, tell, look_inside=False)
        except HarnessError as error:
            tell(f"no further boot: {error}")
            return
