"""The guide's table of deployment failures on Linux, as data, and which of its rows a boot was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.image.azure.inside import Inside
from harness.image.azure.observation import Observation, first_failure
from harness.image.azure.outcome import End, Provisioning
from harness.msp import deployment_errors as errors
from harness.msp import diagnosis_codes as codes
from harness.msp.codes import Code


@dataclass(frozen=True)
class GuideRow:
    """A row, with the guide's words; says: what the platform or the report must say."""

    number: int
    agent: bool
    knows_msp: bool  # cloud-init >= 24.3
    failure: str
    cause: str
    code: Code


ROWS: Sequence[GuideRow] = (
    GuideRow(
        1, False, False,
        "Linux.OSProvisioningInternalError Linux.cloud-init successfully reported ready for provisioning but the "
        "platform failed to record success",
        "VM may fail to provision even though cloud-init reports ready.",
        codes.NO_AGENT_OLD_CLOUD_INIT,
    ),
    GuideRow(
        2, False, True,
        "Linux.Cloud-Init failed due to azure-proxy-agent not found",
        "Cloud-init reports failure to platform after detecting GPA not installed.",
        codes.NO_AGENT_NEW_CLOUD_INIT,
    ),
    GuideRow(
        3, True, False,
        "Linux.OSProvisioningInternalError",
        "Cloud-init may report ready before GPA is configured as it is GPA-unaware. May fail up to 100% of the time "
        "depending on scenario.",
        codes.AGENT_OLD_CLOUD_INIT,
    ),
    GuideRow(
        4, True, True,
        "Cloud-init reports GPA is unhealthy",
        "Any of: eBPF setup failure, Cgroups v2 not enabled, generic startup failure, failure to acquire key",
        codes.AGENT_UNHEALTHY,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Happened:
    """row: None where the boot is none of them; then why."""

    row: GuideRow | None
    why: str

    @property
    def number(self) -> int:
        return self.row.number if self.row else 0


def happened(seen: Observation, inside: Inside, end: Provisioning) -> Happened:
    """The row that a boot was, by what it did: no version counts."""
    if end.end is End.PROVISIONED:
        return Happened(None, "it provisions")
    if end.end is End.TIMED_OUT:
        return Happened(None, f"nothing was reported: {seen.stopped} ({seen.limit})")
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
