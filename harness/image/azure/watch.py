"""One boot, watched from the platform's side until it has reported, and a little longer; then switched off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import interruption
from harness.image.azure import limits, machine, media, network
from harness.image.azure.deployment import Deployment
from harness.image.azure.machine import Hardware, Plugged
from harness.image.azure.observation import Asked, Lease, Observation
from harness.lab.platform import Platform
from harness.lab.scenarios import Scenario
from harness.lab.secure_channel import Event
from harness.lab.worker import Worker
from harness.report.text import visible
from harness.vm.limits import Limit

Tell = Callable[[str], None]

_PAUSE = 0.5  # seconds between two looks: what is seen has its own times
_OFF_SECONDS = 90.0  # a shutdown takes 3 s emulated; a service that does not stop has 90 s of systemd's
_OFF_PACE = 2  # times as long as it took until it asked for an address
_DEAD_SECONDS = 2.0  # for one that never gave a sign of life
_PRESS_AGAIN = 5.0
_KEPT_CONSOLE = 4 << 20  # characters

REPORTED, ENDED, LIMIT = "it reported", "the machine ended by itself", "the time was up"
REFUSED = "the platform kept refusing what it asks unsigned"


@dataclass
class _Seen:
    """What came so far."""

    began: float
    asked: list[Asked] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    def take(self, worker: Worker, platform: Platform) -> None:
        while rows := worker.call("requests", after=len(self.asked)):
            self.asked += [_asked(row, self.began) for row in rows]
        self.events += platform.events()
        self.leases = [Lease(row["at"] - self.began, row["what"]) for row in worker.call("leases")]


def _asked(row: dict[str, Any], began: float) -> Asked:
    return Asked(
        row["at"] - began, row["endpoint"], row["method"], row["target"], row["status"], row["headers"], row["body"]
    )


def boot(
    disk: Path, place: Path, deployment: Deployment, hardware: Hardware, scenario: Scenario, seconds: float, tell: Tell
) -> Observation:
    """Boot a disk that may be written to. place: a directory for the time of the boot.

    seconds: the limit until the report, 0 for the measured one. Raises HarnessError where it cannot be started. Call
    it while the process has one thread: it forks.
    """
    with Worker("platform", lambda: network.serve(asdict(deployment)), asynchronous=True) as worker:
        _, (tap,) = worker.call_with_descriptors("build")
        worker.call("start", scenario=scenario.dump())
        with machine.power_on(hardware, deployment, disk, media.disk(deployment), tap, place) as plugged:
            seen = _Seen(time.time())
            stopped, limit = _watch(plugged, worker, seen, hardware.accelerator, seconds, tell)
            tell(f"{time.time() - seen.began:.0f} s: {stopped}; switching it off, and looking at what it left")
            off = _switch_off(plugged, _off_seconds(seen))
            seen.take(worker, Platform(worker))
            return Observation(
                seen.began,
                deployment.msp,
                stopped,
                time.time() - seen.began,
                str(limit),
                hardware.accelerator,
                seen.asked,
                seen.events,
                seen.leases,
                plugged.console()[-_KEPT_CONSOLE:],
                plugged.running.output("qemu"),
                off,
            )


def _watch(
    plugged: Plugged, worker: Worker, seen: _Seen, accelerator: str, seconds: float, tell: Tell
) -> tuple[str, Limit]:
    """Look until it is over; why it is."""
    platform, begun, told = Platform(worker), time.monotonic(), 0
    limit = Limit(seconds, "as asked for") if seconds else limits.silent(accelerator)
    leased = latched = False
    while True:
        interruption.check()
        ended = plugged.ended()
        seen.take(worker, platform)
        now = Observation(seen.began, True, "", 0, "", "", seen.asked, seen.events, seen.leases)
        if now.leased_at is not None and not leased:
            leased = True
            limits.remember(accelerator, now.leased_at)
            tell(f"{now.leased_at:.0f} s: it has an address")
            limit = limit if seconds else limits.whole(now.leased_at)
        if now.latched_at is not None and not latched:
            latched = True
            tell(f"{now.latched_at:.0f} s: its agent has latched a key")
        for row in now.reports[told:]:
            told += 1
            tell(visible(f"{row.at:.0f} s: it reports {row.report.state} {row.report.reason}".rstrip()))
        if ended:
            return ENDED, limit
        elapsed = time.time() - seen.began
        if _settled(now, elapsed):
            return REPORTED, limit
        if not now.reports and now.refused and elapsed - now.refused[0].at > limits.REFUSED:
            return REFUSED, limit
        if time.monotonic() - begun > limit.seconds + (limits.SETTLE if now.reports else 0):
            return (REPORTED if now.reports else LIMIT), limit
        time.sleep(_PAUSE)


def _settled(now: Observation, elapsed: float) -> bool:
    """Whether nothing more is to be expected: ready and latched, or a while without another report."""
    if not now.reports:
        return False
    last = now.reports[-1]
    quiet = elapsed - max(last.at, now.latched_at or 0)
    return quiet > (2 * _PAUSE if last.report.ready and now.latched_at is not None else limits.SETTLE)


def _off_seconds(seen: _Seen) -> float:
    """How long it may take to go off: by its own pace, since its start has to end before it does."""
    leased = next((row.at for row in seen.leases), None)
    return _DEAD_SECONDS if leased is None else max(_OFF_SECONDS, _OFF_PACE * leased)


def _switch_off(plugged: Plugged, seconds: float) -> bool:
    """Press the button and wait; whether it went off by itself. A press that came before its logind is lost."""
    begun = pressed = time.monotonic()
    plugged.press_power()
    while not plugged.ended():
        interruption.check()
        now = time.monotonic()
        if now - begun > seconds:
            return False
        if now - pressed > _PRESS_AGAIN:
            pressed = now
            plugged.press_power()
        time.sleep(_PAUSE)
    return True
