"""Boots that nobody made: observations to judge."""

from __future__ import annotations

from xml.sax.saxutils import escape

from harness.image.azure.check import Boot
from harness.image.azure.health import HealthReport, fields_of
from harness.image.azure.inside import Inside
from harness.image.azure.observation import Asked, Lease, Observation
from harness.image.azure.outcome import judged
from harness.image.azure.table import happened
from harness.image.azure.timeline import timeline
from harness.lab.secure_channel import Event

BEGAN = 1_800_000_000.0


def failure(reason: str, **fields: str) -> HealthReport:
    more = "".join(f"|{name}={value}" for name, value in fields.items())
    description = f"result=error|reason={reason}|agent=Cloud-Init/25.1.4{more}|documentation_url=https://aka.ms/x"
    return HealthReport("NotReady", "ProvisioningFailed", description, "c", "i", fields_of(description))


READY = HealthReport("Ready", container="c", instance="i")
NOT_FOUND = failure("azure-proxy-agent not found")
UNHEALTHY = failure("azure-proxy-agent status failure", exit_code="1", stderr="keyLatchStatus - refused")


def body(report: HealthReport) -> str:
    described = f"<Description>{escape(report.description)}</Description>"
    details = f"<Details><SubStatus>{report.substatus}</SubStatus>{described}</Details>"
    return (
        "<Health><Container><ContainerId>c</ContainerId><RoleInstanceList><Role><InstanceId>i</InstanceId><Health>"
        f"<State>{report.state}</State>{details if report.description else ''}</Health></Role></RoleInstanceList>"
        "</Container></Health>"
    )


def observation(
    *reports: HealthReport,
    asks: bool = False,
    latched: float | None = None,
    first: float = 40.0,
    leases: bool = True,
    client: str = "Cloud-Init/22.4.2",
    claims: bool = False,
    status: int = 200,
    console: str = "Linux version 6.1.0\n",
) -> Observation:
    """Reports come a second apart from first on. asks: an agent asks for its key's status at 20 s."""
    headers = [("User-Agent", client)] + [("x-ms-azure-host-claims", "{}")] * claims
    asked = [Asked(first - 1, "imds", "GET", "/metadata/instance?api-version=2021-08-01", 200, headers)] * bool(reports)
    asked += [
        Asked(first + number, "wireserver", "POST", "/machine?comp=health", status, headers, body(report))
        for number, report in enumerate(reports)
    ]
    events = [Event("status", "wireserver", "GET", "/secure-channel/status", 200, "unsigned", at=BEGAN + 20)] * asks
    if latched is not None:
        events.append(
            Event("acquire", "wireserver", "POST", "/secure-channel/key", 200, "unsigned", at=BEGAN + latched)
        )
        target = "/secure-channel/key/1/key-attestation"
        events.append(Event("attest", "wireserver", "POST", target, 200, "verified", at=BEGAN + latched))
    found = [Lease(30.0, "discover"), Lease(30.1, "request")] if leases else []
    return Observation(
        BEGAN, True, "it reported", 80.0, "180 s (as asked for)", "tcg", asked, events, found, console, off=True
    )


def booted(seen: Observation, inside: Inside | None = None) -> Boot:
    inside = inside or Inside()
    end = judged(seen.msp, seen.reports, seen.latched_at)
    return Boot(seen, inside, timeline(seen, inside), end, happened(seen, inside, end), 100.0)
