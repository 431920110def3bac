"""Which reader a JSON value is for, by its members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harness.diagnose.decode import clean
from harness.msp.status import MODULES

MOST_TEXTS = 200  # strings of one value that are read as texts
_SHORTEST = 12
_DEEPEST = 8


class Shape(NamedTuple):
    kind: str
    read: str  # module:function in harness.diagnose.readers
    texts: bool = False  # its strings may hold more


STATUS = Shape("status.json", "status:of_value")
INNER = Shape("status.json", "json_parts:of_inner_status")
STATUSES = Shape("status.json", "json_parts:of_statuses")
JOURNAL = Shape("journal", "json_parts:of_journal")
FINDMNT = Shape("mounts", "mounts:of_value")
AGGREGATE = Shape("extension status", "extension:of_aggregate")
CLOUD_INIT = Shape("cloud-init status", "provisioning:of_state")
CONFIG = Shape("agent's configuration", "software:of_config")
INSTANCE = Shape("instance metadata", "json_parts:of_instance")
VIEW = Shape("instance view", "json_parts:of_view")
ERROR = Shape("provisioning error", "provisioning:of_error", texts=True)
MODEL = Shape("VM model", "vm_model:of_value")
EXTENSION = Shape("extension status", "extension:of_status")
HEARTBEAT = Shape("extension status", "extension:of_heartbeat")
ENVIRONMENT = Shape("extension", "extension:of_environment")
EXTENSIONS = Shape("extensions", "vm_model:of_extensions")
MANIFEST = Shape("extension", "extension:of_manifest")
EVENTS = Shape("agent's events", "json_parts:of_events")
PROGRAMS = Shape("bpftool prog", "bpf:of_programs")
CGROUPS = Shape("bpftool cgroup", "bpf:of_cgroups")

_CONFIG_MEMBERS = {"latchKeyFolder", "monitorIntervalInSeconds", "pollKeyStatusIntervalInSeconds", "ebpfProgramName"}


def of(value: object) -> Shape | None:
    """The shape of a value; None where no reader knows it."""
    if isinstance(value, dict):
        return _of_object(value)
    if isinstance(value, list):
        first = next((item for item in value if isinstance(item, dict)), None)
        return _of_array(first, value) if first is not None else None
    return None


def _of_object(value: Mapping[str, Any]) -> Shape | None:
    names = value.keys()
    if "proxyAgentStatus" in names:
        return STATUS
    if any(name in names and isinstance(value[name], dict) for name in MODULES):
        return INNER
    if "filesystems" in names and isinstance(value["filesystems"], list):
        return FINDMNT
    if "aggregateStatus" in names:
        return AGGREGATE
    if _is_cloud_init(value):
        return CLOUD_INIT
    if len(names & _CONFIG_MEMBERS) > 1:
        return CONFIG
    if isinstance(value.get("compute"), dict) and "vmId" in value["compute"]:
        return INSTANCE
    if "status" in names and _is_extension(value):
        return EXTENSION
    if _is_listed_extension(value):
        return EXTENSIONS
    return _of_platform(value)


def _is_cloud_init(value: Mapping[str, Any]) -> bool:
    inner = value.get("v1")
    if isinstance(inner, dict):
        return bool(inner.keys() & {"datasource", "init", "init-local", "errors", "stage"})
    return "boot_status_code" in value and "datasource" in value


def _is_listed_extension(value: Mapping[str, Any]) -> bool:
    """An extension as az vm extension list, PowerShell and REST print it."""
    names = {str(name).lower() for name in value}
    inner = value.get("properties")
    names |= {str(name).lower() for name in inner} if isinstance(inner, dict) else set()
    return {"publisher", "typehandlerversion"} <= names


def _is_extension(value: Mapping[str, Any]) -> bool:
    body = value.get("status")
    return isinstance(body, dict) and ("operation" in body or "formattedMessage" in body)


def _of_platform(value: object) -> Shape | None:
    """What the platform prints; its readers are asked, since the shapes are many."""
    from harness.diagnose.readers import provisioning, vm_model

    if vm_model.is_model(value):
        return MODEL
    if isinstance(value, dict):
        names = {str(name).lower() for name in value}
        if {"statuses", "vmagent"} & names and names & {"vmagent", "extensions", "disks", "computername"}:
            return VIEW
        if provisioning.is_error(value):
            return ERROR
    return None


def _of_array(first: Mapping[str, Any], value: list[Any]) -> Shape | None:
    names = first.keys()
    if _is_extension(first):
        return EXTENSION
    for name, shape in (("heartbeat", HEARTBEAT), ("handlerEnvironment", ENVIRONMENT), ("handlerManifest", MANIFEST),
                        ("proxyAgentStatus", STATUSES), ("__REALTIME_TIMESTAMP", JOURNAL)):  # fmt: skip
        if name in names:
            return shape
    if "attach_type" in names or {"cgroup", "programs"} <= names:
        return CGROUPS
    if {"id", "type", "tag"} <= names or {"id", "type", "loaded_at"} <= names:
        return PROGRAMS
    if {"EventLevel", "Message"} <= names:
        return EVENTS
    if _is_listed_extension(first):
        return EXTENSIONS
    return _of_platform(value)


def texts(value: object) -> Iterator[str]:
    """The strings in a value that may be texts of their own, cleaned; breadth first, bounded."""
    waiting: list[tuple[object, int]] = [(value, 0)]
    found = looked = 0
    while waiting and found < MOST_TEXTS and looked < 20_000:
        item, depth = waiting.pop()
        looked += 1
        if isinstance(item, str):
            if len(item) >= _SHORTEST and ("\n" in item or "{" in item or "|" in item or len(item) > 40):
                found += 1
                yield clean(item)
        elif depth < _DEEPEST:
            inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            waiting += [(part, depth + 1) for part in list(inner)[:2_000]]
