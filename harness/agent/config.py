"""The reference agent's settings: the members of /etc/azure/proxy-agent.json, and a laboratory's own below `lab`.

Names and defaults of the former are those of shared/facts/agent.md; members that are not known are left alone, as a
real configuration has more. `lab` exists for tests: other ports, addresses and times, none of which an agent offers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, errno_text
from harness.msp.endpoints import ENDPOINTS, PROXY, Endpoint

DEFAULT_PATH = Path("/etc/azure/proxy-agent.json")
_LARGEST = 1 << 20  # bytes of a configuration


@dataclass(frozen=True)
class Times:
    """Seconds; the defaults are the agent's."""

    monitor: float = 60.0  # between two writings of status.json
    poll: float = 15.0  # between two polls of the key status
    unknown: float = 1.0  # the same while nothing is known of it yet …
    unknown_for: float = 300.0  # … for so long after the start
    provision: float = 120.0  # until provisioning is given up
    ask: float = 1.0  # between two questions of `--status --wait`
    answer: float = 10.0  # for the platform to answer


@dataclass(frozen=True)
class Config:
    log_folder: Path = Path("/var/log/azure-proxy-agent")
    key_folder: Path = Path("/var/lib/azure-proxy-agent/keys")
    cgroup_root: Path = Path("/sys/fs/cgroup")
    host_ga_plugin: bool = True  # hostGAPluginSupport: whether that endpoint is redirected at all
    times: Times = field(default_factory=Times)
    image: Path | None = None  # a compiled redirector; without one it is compiled
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = PROXY[1]
    endpoints: tuple[Endpoint, ...] = ENDPOINTS
    redirect: bool = True  # False: no eBPF at all, for tests without a kernel's help

    def endpoint(self, name: str) -> Endpoint:
        return next(row for row in self.endpoints if row.name == name)

    @property
    def status_file(self) -> Path:
        return self.log_folder / "status.json"

    @property
    def log_file(self) -> Path:
        return self.log_folder / "ProxyAgent.log"


def read(path: Path) -> Config:
    """The settings in a file. Raises HarnessError when it cannot be read, is no JSON object, or has a wrong value."""
    attempted = f"read the configuration {path}"
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_LARGEST))
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    except ValueError as error:
        raise HarnessError(attempted, f"it is not JSON: {error}", "correct it, or reinstall the agent") from error
    if not isinstance(data, dict):
        raise HarnessError(attempted, "it is not a JSON object", "correct it, or reinstall the agent")
    try:
        return _config(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HarnessError(attempted, f"a member has a wrong value: {error}", "correct it") from error


def _config(data: Mapping[str, Any]) -> Config:
    lab = data.get("lab", {})
    times = Times(
        monitor=float(data.get("monitorIntervalInSeconds", Times.monitor)),
        poll=float(data.get("pollKeyStatusIntervalInSeconds", Times.poll)),
        **{name: float(value) for name, value in lab.get("times", {}).items()},
    )
    found = Config(times=times)
    paths = {"logFolder": "log_folder", "latchKeyFolder": "key_folder", "cgroupRoot": "cgroup_root"}
    changes: dict[str, Any] = {name: Path(data[member]) for member, name in paths.items() if member in data}
    if "hostGAPluginSupport" in data:
        changes["host_ga_plugin"] = bool(int(data["hostGAPluginSupport"]))
    if "image" in lab:
        changes["image"] = Path(lab["image"])
    changes |= {name: lab[name] for name in ("nonce", "port", "redirect") if name in lab}
    changes["endpoints"] = tuple(_moved(endpoint, lab.get("endpoints", {})) for endpoint in ENDPOINTS)
    return replace(found, **changes)


def _moved(endpoint: Endpoint, places: Mapping[str, Any]) -> Endpoint:
    if endpoint.name not in places:
        return endpoint
    address, port = places[endpoint.name]
    return replace(endpoint, address=str(address), port=int(port))


def document(config: Config) -> dict[str, Any]:
    """The file that read() gives this configuration for."""
    moved = {row.name: [row.address, row.port] for row in config.endpoints if row not in ENDPOINTS}
    times = {name: getattr(config.times, name) for name in ("unknown", "unknown_for", "provision", "ask", "answer")}
    lab: dict[str, Any] = {"times": times, "nonce": config.nonce, "port": config.port, "redirect": config.redirect}
    if config.image:
        lab["image"] = str(config.image)
    if moved:
        lab["endpoints"] = moved
    return {
        "logFolder": str(config.log_folder),
        "eventFolder": str(config.log_folder / "events"),
        "latchKeyFolder": str(config.key_folder),
        "monitorIntervalInSeconds": config.times.monitor,
        "pollKeyStatusIntervalInSeconds": config.times.poll,
        "hostGAPluginSupport": int(config.host_ga_plugin),
        "ebpfProgramName": "ebpf_cgroup.o",
        "cgroupRoot": str(config.cgroup_root),
        "fileLogLevel": "Info",
        "lab": lab,
    }
