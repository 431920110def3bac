"""Facts of provisioning and of the VM model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harness.diagnose.facts.base import Fact


@dataclass(frozen=True, slots=True)
class CloudInitVersion(Fact):
    version: str  # 24.3.1-0ubuntu0~22.04.1, as it stands


@dataclass(frozen=True, slots=True)
class CloudInitEvent(Fact):
    """An entry of cloud-init.log."""

    time: str | None
    at: datetime | None
    place: str | None  # azure.py, util.py …
    level: str | None
    message: str
    count: int = 1
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CloudInitState(Fact):
    """cloud-init status, result.json or its status.json."""

    status: str | None  # done, error, running, degraded …
    datasource: str | None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisioningReport(Fact):
    """The line that cloud-init (or another) reports to the platform: `result=error|reason=…|agent=…`."""

    result: str  # error, success
    reason: str | None
    agent: str | None  # Cloud-Init/24.3.1
    fields: Mapping[str, str]  # everything, vm_id, timestamp, exit_code … included


@dataclass(frozen=True, slots=True)
class ProvisioningError(Fact):
    """An error of the portal or of an ARM deployment: the innermost code with its text."""

    code: str  # OSProvisioningInternalError, Linux.OSProvisioningInternalError …
    message: str | None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class WaagentEvent(Fact):
    """An entry of waagent.log."""

    time: str | None
    at: datetime | None
    level: str | None
    subject: str | None  # ExtHandler, Daemon, or an extension's name-version
    message: str
    count: int = 1
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OvfEnv(Fact):
    """ovf-env.xml. None: the element is not there."""

    provision_guest_proxy_agent: bool | None
    hostname: str | None = None
    preprovisioned: bool | None = None


@dataclass(frozen=True, slots=True)
class VmModel(Fact):
    """A VM or scale set as ARM, az or PowerShell prints it, with its ProxyAgentSettings.

    Values are as written (Enforce, Audit, Disabled …). Where whole is False, it is a part, and what is not there may
    have been cut off; else has_settings is False where the model has none.
    """

    name: str | None
    kind: str  # vm, vmss, vmss-instance
    has_settings: bool
    enabled: bool | None = None
    mode: str | None = None
    key_incarnation_id: int | None = None
    imds_mode: str | None = None
    imds_profile: str | None = None  # inVMAccessControlProfileReferenceId
    wireserver_mode: str | None = None
    wireserver_profile: str | None = None
    add_extension: bool | None = None
    os_type: str | None = None  # Linux, Windows
    image: str | None = None  # publisher:offer:sku:version, or an image's id
    provisioning_state: str | None = None
    vm_id: str | None = None
    path: str = ""  # where the model stands in its document: "", "[3]", "value[0]" …
    whole: bool = True


@dataclass(frozen=True, slots=True)
class InstanceStatus(Fact):
    """A status of a VM's instance view: ProvisioningState/…, PowerState/…, the VM agent."""

    about: str  # vm, vmAgent, an extension's or disk's name
    code: str
    display: str | None
    message: str | None
    time: str | None = None
    at: datetime | None = None
