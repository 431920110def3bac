"""Failure codes of a deployment: MSP's own, those of provisioning, those that pass.

Sources: the guide's table of Linux failures; Microsoft's published lists of MSP error codes and of common
provisioning errors. A code may have `Linux.` or `Windows.` before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class MspFailure(NamedTuple):
    """A code that only MSP gives; pattern: what must stand in its message, where the code has other uses too."""

    code: str
    meaning: str
    remedy: str
    pattern: str = ""


MSP_FAILURES: Sequence[MspFailure] = (
    MspFailure("ProxyAgentNotSupportedInRegion", "the region has no MSP", "deploy in a region that has it"),
    MspFailure(
        "SubscriptionNotEnabledForProxyAgentFeature",
        "the subscription is not registered for MSP",
        "register the feature for the subscription, then deploy again",
    ),
    MspFailure(
        "BadRequest",
        "KeyIncarnationId may only grow",
        "`msp-harness key-reset --vm-model FILE` computes a value that the platform takes",
        r"keyIncarnationId\b.{0,80}\bincrement",
    ),
    MspFailure(
        "BadRequest",
        "mode and inVMAccessControlProfileReferenceId exclude one another for an endpoint",
        "give one of the two for each endpoint",
        r"inVMAccessControlProfileReferenceId\b.{0,200}\bmode\b",
    ),
    MspFailure(
        "BadRequest",
        "an endpoint's mode is not one of the known values",
        "use Audit, Enforce or Disabled",
        r"proxyAgentSettings\.\w+\.mode\b.{0,80}\binvalid",
    ),
    MspFailure(
        "InvalidParameter",
        "the reference to an access control profile is malformed",
        "give the resource id of a gallery's inVMAccessControlProfile version",
        r"inVMAccessControlProfile",
    ),
    MspFailure(
        "GalleryInVMAccessControlProfileNotMatchOSDisk",
        "the access control profile is for another operating system",
        "refer to a profile for this operating system",
    ),
    MspFailure(
        "GalleryInVMAccessControlProfileNotMatchHostEndpointType",
        "the access control profile is for another endpoint",
        "refer to an Imds profile for imds and a WireServer profile for wireServer",
    ),
    MspFailure(
        "InVMAccessControlProfileNotFound",
        "the access control profile is not there",
        "see that it exists and is replicated to the VM's region",
    ),
    MspFailure("BadRequest", "a value in ProxyAgentSettings is refused", "correct it", r"proxyAgentSettings"),
)

INTERNAL = "OSProvisioningInternalError"
REPORTED_READY = re.compile(r"reported ready for provisioning but the platform failed to record", re.IGNORECASE)
NOT_FOUND = re.compile(r"azure-proxy-agent not found", re.IGNORECASE)
UNHEALTHY = re.compile(
    r"azure-proxy-agent status failure|\b(?:GPA|azure-proxy-agent|guest proxy agent) is unhealthy", re.IGNORECASE
)

TRANSIENT = frozenset(
    {
        "OSProvisioningTimedOut", "VMExtensionProvisioningTimeout", "InternalExecutionError",
        "InternalOperationError", "InternalDiskManagementError", "NetworkingInternalOperationError",
        "AllocationFailed", "OverconstrainedAllocationRequest", "ZonalAllocationFailed", "OperationPreempted",
        "RetryableError", "Conflict", "TooManyRequests", "ServerTimeout", "GatewayTimeout", "ServiceUnavailable",
        "InternalServerError", "OSProvisioningInternalError", "VMStartTimedOut", "VMAgentStatusCommunicationError",
    }
)  # fmt: skip
"""What Azure's documents call transient, or what a second try often mends."""

EXTENSION_ERRORS = frozenset(
    {"VMExtensionProvisioningError", "VMExtensionProvisioningTimeout", "VMExtensionHandlerNonTransientError",
     "VMExtensionHandlerTransientError", "VMExtensionManagementInternalError", "VMAgentStatusCommunicationError"}
)  # fmt: skip
AGENTS_EXTENSION = re.compile(r"ProxyAgent|Microsoft\.CPlat\.ProxyAgent|GuestProxyAgent", re.IGNORECASE)


def bare(code: str) -> str:
    """The code without the operating system before it: `Linux.OSProvisioningInternalError`."""
    return code.rpartition(".")[2].strip()


def msp_failure(code: str, message: str | None) -> MspFailure | None:
    """The row of MSP's own failures that a code and its message are."""
    parts = {part.strip().casefold() for part in re.split(r"[/,]", bare(code))}
    for row in MSP_FAILURES:
        if row.code.casefold() in parts and (not row.pattern or re.search(row.pattern, message or "", re.I | re.S)):
            return row
    return None


REASONS: Mapping[str, str] = {
    "failure to find DHCP interface": "no network interface was found: redeploy; look at the image's drivers",
    "failure to obtain DHCP lease": "DHCP did not answer: redeploy (transient)",
    "failure to find primary DHCP interface": "eth0 was not found or was renamed",
    "connection timeout querying IMDS": "IMDS could not be reached: NSG or firewall, or transient",
    "read timeout querying IMDS": "IMDS did not answer: firewall, or transient",
    "http error querying IMDS": "IMDS answered with an error",
    "unexpected metadata parsing ovf-env.xml": "ovf-env.xml is malformed",
    "error waiting for host shutdown": "handling of the host's shutdown failed",
    "unhandled exception": "cloud-init itself failed",
}
"""Reasons of cloud-init's report that are not the agent's, in short words."""
