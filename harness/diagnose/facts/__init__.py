"""The typed facts that evidence gives: what was read, never what it means.

Readers make them, rules read them. Each fact stands on its own and names its source: the document, the line and the
text that is quoted for it. All texts are shown as they are safe to show: no control characters but line ends and
tabs (harness.diagnose.decode.shown), each of bounded length. What could not be read is a Note.

Times: `time` is the text as it stands; `at` the moment in UTC, None where the text has no year, no zone or no date.
"""

from __future__ import annotations

from harness.diagnose.facts.agent import (
    AgentConfig,
    AgentLogEvent,
    AgentStatus,
    AgentVersion,
    Component,
    Connection,
    ExtensionInstalled,
    ExtensionStatus,
    Package,
    PathSeen,
    StatusTag,
)
from harness.diagnose.facts.base import Fact, Source
from harness.diagnose.facts.evidence import Document, Evidence, Note, NoteKind
from harness.diagnose.facts.kernel import (
    AttachedProgram,
    BpfProgram,
    BpfPrograms,
    CgroupPrograms,
    CommandLine,
    Filesystems,
    KernelRelease,
    Mounts,
    OsRelease,
    VerifierLog,
)
from harness.diagnose.facts.machine import CommandOutput, Identity, IdentityKind
from harness.diagnose.facts.provisioning import (
    CloudInitEvent,
    CloudInitState,
    CloudInitVersion,
    InstanceStatus,
    OvfEnv,
    ProvisioningError,
    ProvisioningReport,
    VmModel,
    WaagentEvent,
)
from harness.diagnose.facts.services import SERVICE_STATES, UnitFile, UnitLog, UnitState, WindowsEvent, WindowsService

__all__ = [
    "SERVICE_STATES",
    "AgentConfig",
    "AgentLogEvent",
    "AgentStatus",
    "AgentVersion",
    "AttachedProgram",
    "BpfProgram",
    "BpfPrograms",
    "CgroupPrograms",
    "CloudInitEvent",
    "CloudInitState",
    "CloudInitVersion",
    "CommandLine",
    "CommandOutput",
    "Component",
    "Connection",
    "Document",
    "Evidence",
    "ExtensionInstalled",
    "ExtensionStatus",
    "Fact",
    "Filesystems",
    "Identity",
    "IdentityKind",
    "InstanceStatus",
    "KernelRelease",
    "Mounts",
    "Note",
    "NoteKind",
    "OsRelease",
    "OvfEnv",
    "Package",
    "PathSeen",
    "ProvisioningError",
    "ProvisioningReport",
    "Source",
    "StatusTag",
    "UnitFile",
    "UnitLog",
    "UnitState",
    "VerifierLog",
    "VmModel",
    "WaagentEvent",
    "WindowsEvent",
    "WindowsService",
]
