"""The agent's files in an image: executable, configuration, object, unit, package, extension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.image import reading, units
from harness.image.image import Image

NAME = "azure-proxy-agent"
UNIT = "azure-proxy-agent.service"
CONFIG = "/etc/azure/proxy-agent.json"
EXTENSION = "Microsoft.CPlat.ProxyAgent.ProxyAgentLinux"
WAAGENT = "/var/lib/waagent"
OBJECT_FOLDER = "/usr/lib/azure-proxy-agent"
OBJECT = "ebpf_cgroup.o"

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""The PATH of services, as systemd has it (and as cloud-init, which is one, looks for the agent)."""

_LARGEST_CONFIG = 1 << 20  # bytes


@dataclass(frozen=True)
class Config:
    """The configuration. values is empty where it is missing or wrong; trouble says why, a clause."""

    path: str
    values: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""

    def text(self, member: str, usual: str) -> str:
        value = self.values.get(member)
        return value if isinstance(value, str) and value else usual


def executable(image: Image) -> str | None:
    """The agent where cloud-init finds it: the first in PATH. Raises Unread."""
    for folder in PATH:
        if reading.exists(image, f"{folder}/{NAME}"):
            return f"{folder}/{NAME}"
    return None


def started(image: Image) -> str | None:
    """The program that the agent's unit starts, without systemd's prefixes; None where there is no such unit."""
    unit = units.find(image, UNIT)
    value = unit.value("Service", "ExecStart") if unit is not None else None
    word = value.split()[0].lstrip("@-:+!") if value and value.split() else ""
    return word.strip("\"'") or None


def program(image: Image) -> str | None:
    """The agent's program: in PATH, else where its unit has it. Raises Unread."""
    found = executable(image)
    if found is not None:
        return found
    other = started(image)
    return other if other is not None and image.tree.exists(other) else None


def config(image: Image) -> Config:
    """The agent's configuration. Raises Unread."""
    text = reading.text(image, CONFIG)
    if text is None:
        return Config(CONFIG, trouble="it is not there")
    if len(text) > _LARGEST_CONFIG:
        return Config(CONFIG, trouble="it has more than a MiB")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Config(CONFIG, trouble=f"it is not JSON: {error}"[:200])
    if not isinstance(values, dict):
        return Config(CONFIG, trouble="it is not a JSON object")
    return Config(CONFIG, values)


def reference_program(image: Image) -> str | None:
    """The program that this project's reference agent loads instead of an object; None for another agent's."""
    lab = config(image).values.get("lab")
    path = lab.get("image") if isinstance(lab, dict) else None
    return path if isinstance(path, str) and image.tree.is_file(path) else None


def extensions(image: Image) -> list[str]:
    """The folders of the agent's VM extension that are in the image. Raises Unread."""
    if not image.tree.is_directory(WAAGENT):
        reading.exists(image, WAAGENT)
        return []
    return [f"{WAAGENT}/{name}" for name in reading.names(image, WAAGENT) if name.startswith(EXTENSION)]


def installed(image: Image) -> bool:
    """Whether anything of the agent is there: a program, a unit or the package. Raises Unread."""
    return program(image) is not None or units.find(image, UNIT) is not None or NAME in image.packages
