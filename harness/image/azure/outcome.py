"""What the platform would make of what was seen: a model, since the platform itself is not here.

With MSP on, the platform can record `ready` only of a machine whose key is latched; until then it waits for the key.
So, by the guide's table:
- ready, the key latched before it          provisioned
- ready, no key latched yet                 Linux.OSProvisioningInternalError: the platform failed to record success
- a failure report, whatever comes after    the report's own reason
- nothing within the time                   OSProvisioningTimedOut
Where a key is latched and nothing redirects, the platform refuses the unsigned report of it: nothing comes, either.
(What a guest may tell its host by Hyper-V's KVP besides is not seen here.)
Without MSP, ready is enough. That the first report decides, and that an attestation a moment after `ready` is too late,
is the model's; the times that were measured stand beside its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.image.azure.health import HealthReport
from harness.msp import deployment_errors as errors

TIMED_OUT = "OSProvisioningTimedOut"
CLIENT = "OSProvisioningClientError"
"""What Azure's documents call a failure that the machine itself reported."""

NOT_RECORDED = "Linux.cloud-init successfully reported ready for provisioning but the platform failed to record success"
"""The guide's words."""


class End(StrEnum):
    PROVISIONED = "provisioned"
    NOT_RECORDED = "ready, not recorded"
    REPORTED = "failure reported"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Arrived:
    """A report that was accepted, and when: seconds since power on."""

    at: float
    report: HealthReport


@dataclass(frozen=True)
class Provisioning:
    """How a deployment ends. code and text as the portal would show them; both empty where it succeeds.

    margin: seconds from the key's latching to the ready report; negative where ready came first; None where one of
    the two never came.
    """

    end: End
    code: str = ""
    text: str = ""
    ready_at: float | None = None
    latched_at: float | None = None

    @property
    def margin(self) -> float | None:
        if self.ready_at is None or self.latched_at is None:
            return None
        return self.ready_at - self.latched_at

    @property
    def portal(self) -> str:
        return f"{self.code}: {self.text}" if self.code else ""


def judged(msp: bool, reports: Sequence[Arrived], latched_at: float | None) -> Provisioning:
    """The outcome, from the reports in the order in which they came and from when a key was first latched."""
    first = reports[0] if reports else None
    ready_at = next((row.at for row in reports if row.report.ready), None)
    if first is None:
        return Provisioning(End.TIMED_OUT, TIMED_OUT, "the machine reported nothing", None, latched_at)
    if not first.report.ready:
        text = f"Linux.Cloud-Init failed due to {first.report.reason}"
        return Provisioning(End.REPORTED, CLIENT, text, ready_at, latched_at)
    if msp and (latched_at is None or latched_at > first.at):
        return Provisioning(End.NOT_RECORDED, f"Linux.{errors.INTERNAL}", NOT_RECORDED, ready_at, latched_at)
    return Provisioning(End.PROVISIONED, ready_at=ready_at, latched_at=latched_at)
