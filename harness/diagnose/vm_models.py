"""The virtual machines and scale sets in a JSON text, in the shapes in which ARM, az and PowerShell print them.

ARM (GET, az rest, an exported template) keeps what a resource is in `properties`; az and PowerShell flatten it, and
PowerShell writes names with a capital. Names are therefore looked up whatever their case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import HarnessError

_DEEPEST = 60  # levels; ARM's own limit for a template is lower
_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/Microsoft\.Compute/"
    r"(?P<type>virtualMachines|virtualMachineScaleSets)/(?P<name>[^/]+)(?:/virtualMachines/(?P<instance>[^/]+))?",
    re.IGNORECASE,
)


class Kind(StrEnum):
    VM = "virtual machine"
    SCALE_SET = "scale set"
    INSTANCE = "instance of a scale set"


@dataclass(frozen=True)
class Model:
    """A machine's model. resource is the JSON object itself; whole: it has ARM's own shape, fit for a PUT."""

    name: str
    kind: Kind
    resource: Mapping[str, Any]
    settings: Mapping[str, Any] | None  # ProxyAgentSettings; None where the model has none
    whole: bool
    place: str  # where in the document: "", "[3]", "value[0]" …
    id: str | None = None
    group: str | None = None  # resource group

    @property
    def incarnation(self) -> object:
        """keyIncarnationId as it stands; None where it is not set."""
        return get(self.settings or {}, "keyIncarnationId")


def get(mapping: object, *names: str) -> Any:
    """What stands under these names, one below the other, whatever their case; None where there is nothing."""
    for name in names:
        if not isinstance(mapping, Mapping):
            return None
        mapping = next((value for key, value in mapping.items() if str(key).lower() == name.lower()), None)
    return mapping


def parse(text: str) -> list[Model]:
    """Every machine of a text. Raises HarnessError when it is no JSON, or when no machine is in it."""
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise HarnessError("read the VM model", f"it is no JSON: {error}", _HOW) from error
    found = list(_models(content, "", 0))
    if not found:
        raise HarnessError("read the VM model", "there is no virtual machine and no scale set in it", _HOW)
    return found


_HOW = (
    "give what `az vm show -g GROUP -n NAME`, `az vmss show …` or `az rest --method get --url ID?api-version=…` prints"
)


def _models(content: object, place: str, depth: int) -> Iterator[Model]:
    if depth > _DEEPEST:
        return
    if isinstance(content, list):
        for index, item in enumerate(content):
            yield from _models(item, f"{place}[{index}]", depth + 1)
        return
    if not isinstance(content, dict):
        return
    model = _model(content, place)
    if model:
        yield model
        return
    for name, value in content.items():  # a list of ARM, a template's resources, an object around it
        yield from _models(value, f"{place}.{name}" if place else str(name), depth + 1)


def _model(resource: Mapping[str, Any], place: str) -> Model | None:
    body = get(resource, "properties")
    whole = isinstance(body, Mapping)
    body = body if whole else resource
    matched = _ID.search(str(get(resource, "id") or ""))
    kind = _kind(resource, body, matched)
    if kind is None:
        return None
    profile = get(body, "virtualMachineProfile") if kind is Kind.SCALE_SET else body
    settings = get(profile, "securityProfile", "proxyAgentSettings")
    group = get(resource, "resourceGroup") or get(resource, "resourceGroupName") or (matched and matched["group"])
    return Model(
        name=str(get(resource, "name") or (matched and (matched["instance"] or matched["name"])) or "(no name)"),
        kind=kind,
        resource=resource,
        settings=settings if isinstance(settings, Mapping) else None,
        whole=whole and "properties" in resource,
        place=place,
        id=matched.group() if matched else None,
        group=str(group) if group else None,
    )


def _kind(resource: Mapping[str, Any], body: Mapping[str, Any], matched: re.Match[str] | None) -> Kind | None:
    """By its id or type, else by what only such a resource has."""
    if matched:
        if matched["type"].lower() == "virtualmachines":
            return Kind.VM
        return Kind.INSTANCE if matched["instance"] else Kind.SCALE_SET
    type_name = str(get(resource, "type") or "").lower()
    if type_name.startswith("microsoft.compute/"):
        kinds = {
            "microsoft.compute/virtualmachines": Kind.VM,
            "microsoft.compute/virtualmachinescalesets": Kind.SCALE_SET,
            "microsoft.compute/virtualmachinescalesets/virtualmachines": Kind.INSTANCE,
        }
        return kinds.get(type_name)
    if isinstance(get(body, "virtualMachineProfile"), Mapping):
        return Kind.SCALE_SET
    if isinstance(get(body, "securityProfile", "proxyAgentSettings"), Mapping):
        return Kind.VM
    has = [name for name in ("storageProfile", "hardwareProfile", "osProfile") if isinstance(get(body, name), Mapping)]
    return Kind.VM if len(has) >= 2 else None
