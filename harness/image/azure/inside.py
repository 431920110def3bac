"""What a boot left on its disk: logs and states, read in libguestfs' appliance after the machine went off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError
from harness.vm.appliance import Appliance

CLOUD_INIT_LOG = "/var/log/cloud-init.log"
CLOUD_INIT_RESULT = "/var/lib/cloud/data/result.json"
AGENT_LOGS = "/var/log/azure-proxy-agent"
AGENT_STATUS = f"{AGENT_LOGS}/status.json"
STATUS_TAG = "/var/lib/azure-proxy-agent/keys/status.tag"
AGENTS = ("/usr/sbin/azure-proxy-agent", "/usr/bin/azure-proxy-agent")

_LARGEST_LOG = 16 << 20  # bytes
_LARGEST_STATE = 1 << 20
_LOGS = 8  # of an agent


@dataclass(frozen=True)
class Inside:
    """The texts, empty where there is no such file. agent_logs: by path. problem: why nothing could be read."""

    cloud_init_log: str = ""
    cloud_init_result: str = ""
    agent_logs: Mapping[str, str] = field(default_factory=dict)
    agent_status: str = ""
    status_tag: str = ""
    agent: str = ""  # the path of its executable
    problem: str = ""

    @property
    def agent_installed(self) -> bool | None:
        """None where that could not be found out."""
        return None if self.problem else bool(self.agent)


def read(disk: Path) -> Inside:
    """Read an overlay. What cannot be read is a problem that is told, and nothing else."""
    try:
        with Appliance(disk, "qcow2") as appliance:
            appliance.mount_system()
            logs = [name for name in appliance.names(AGENT_LOGS) if name.endswith(".log")][:_LOGS]
            return Inside(
                appliance.text(CLOUD_INIT_LOG, _LARGEST_LOG),
                appliance.text(CLOUD_INIT_RESULT, _LARGEST_STATE),
                {f"{AGENT_LOGS}/{name}": appliance.text(f"{AGENT_LOGS}/{name}", _LARGEST_LOG) for name in logs},
                appliance.text(AGENT_STATUS, _LARGEST_STATE),
                appliance.text(STATUS_TAG, _LARGEST_STATE),
                next((path for path in AGENTS if path.rpartition("/")[2] in appliance.names(_folder(path))), ""),
            )
    except HarnessError as error:
        return Inside(problem=str(error))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
