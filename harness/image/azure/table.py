"""Which row of the guide's table of deployment failures a boot was, by what it did: no version counts."""

from __future__ import annotations

from dataclasses import dataclass

from harness.image.azure.health import fields_of
from harness.image.azure.inside import Inside
from harness.image.azure.observation import Observation, first_failure
from harness.image.azure.outcome import End, Provisioning
from harness.image.azure.timeline import entries
from harness.image.predict import ROWS, Row
from harness.msp import codes
from harness.msp import deployment_errors as errors
from harness.msp.codes import Code


@dataclass(frozen=True)
class Happened:
    """row: None where the boot is none of them; then why."""

    row: Row | None
    why: str

    @property
    def number(self) -> int:
        return self.row.number if self.row else 0

    @property
    def code(self) -> Code | None:
        return codes.all_codes()[self.row.code] if self.row else None


def happened(seen: Observation, inside: Inside, end: Provisioning) -> Happened:
    """The row that a boot was."""
    if end.end is End.PROVISIONED:
        return Happened(None, "it provisions")
    if end.end is End.TIMED_OUT:
        return _unheard(seen, inside)
    failure = first_failure(seen)
    if end.end is End.REPORTED and failure is not None:
        if errors.NOT_FOUND.search(failure.reason):
            return Happened(ROWS[1], f"cloud-init reported: {failure.reason}")
        if errors.UNHEALTHY.search(failure.reason):
            return Happened(ROWS[3], f"cloud-init reported: {failure.reason}")
        return Happened(None, f"cloud-init reported what is not MSP's: {failure.reason}")
    if seen.agent_at is not None:
        return Happened(ROWS[2], "an agent was at work, and cloud-init reported ready before the key was latched")
    if inside.agent_installed:
        return Happened(ROWS[2], f"{inside.agent} is in the image, which asked for no key; cloud-init reported ready")
    if inside.agent_installed is None:
        return Happened(ROWS[0], "nobody asked for a key, and cloud-init reported ready; the disk could not be read")
    return Happened(ROWS[0], "there is no agent, and cloud-init reported ready")


def _unheard(seen: Observation, inside: Inside) -> Happened:
    """Nothing was reported; what it would have reported stands in cloud-init's log, when its report was refused."""
    if not seen.refused:
        return Happened(None, f"nothing was reported: {seen.stopped} ({seen.limit})")
    why = "its report was refused, unsigned (403), for a key is latched and nothing is redirected"
    reasons = [fields_of(text).get("reason", "") for _, _, text in entries(inside.cloud_init_log) if REPORT in text]
    if any(errors.UNHEALTHY.search(reason) for reason in reasons):
        return Happened(ROWS[3], f"cloud-init found the agent unhealthy, and {why}")
    return Happened(None, f"nothing was reported: {why}")


REPORT = "result=error|"
"""How a report begins in cloud-init's log."""
