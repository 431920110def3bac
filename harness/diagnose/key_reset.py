"""Resetting a key: the next KeyIncarnationId of a model, and the calls that apply it. Nothing is sent.

The platform offers a new key when keyIncarnationId of ProxyAgentSettings grows; an equal or smaller value changes
nothing (guide, Key recovery / key reset).
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.diagnose.vm_models import Kind, Model, get

LARGEST = 2**31 - 1
"""keyIncarnationId is an Int32 in Microsoft.Compute's API (ProxyAgentSettings)."""

API_VERSION = "2024-03-01"
"""The first that knows what a model of today has in ProxyAgentSettings: imds and wireServer."""

GUIDE = "Key recovery / key reset"

_READ_ONLY = {
    "": ("id", "name", "type", "etag", "resources", "systemData"),
    "properties": ("provisioningState", "instanceView", "vmId", "timeCreated", "uniqueId"),
}
"""What ARM prints of a model and does not take back, by where it stands."""


@dataclass(frozen=True)
class Refused:
    """A model whose key is not reset, and why; remedy: what to do instead."""

    model: Model
    reason: str
    remedy: str


@dataclass(frozen=True)
class Reset:
    """A model with its next value: the bodies of a PUT (None: the model is not in ARM's shape) and of a PATCH."""

    model: Model
    before: int  # 0 where the model has none
    value: int
    put: Mapping[str, Any] | None
    patch: Mapping[str, Any]
    calls: tuple[tuple[str, str], ...]  # (with what, the command)
    notes: tuple[str, ...] = ()


@dataclass
class Incarnations:
    """Chooses values so that each is larger than every one before for the same machine, however often it comes.

    wanted: this value for every machine; after: larger than this too, such as what was sent before or what the
    agent's status.json shows.
    """

    wanted: int | None = None
    after: int = -1
    _last: dict[str, int] = field(default_factory=dict)

    def reset(self, model: Model) -> Reset | Refused:
        """The model's next value and what applies it; or why there is none."""
        settings = model.settings
        if settings is None or get(settings, "enabled") is False:
            reason = "MSP is not enabled in its model: there is no key to reset"
            return Refused(model, reason, "enable ProxyAgentSettings first; the first key is given without a reset")
        before = model.incarnation
        if before is None:
            before = 0  # what a model without the member stands for
        if not isinstance(before, int) or isinstance(before, bool) or not 0 <= before <= LARGEST:
            reason = f"its keyIncarnationId is {json.dumps(before)}, which is no number from 0 to {LARGEST}"
            return Refused(model, reason, "read the model again from the platform")
        name = (model.id or f"{model.group}/{model.name}").lower()
        floor = max(before, self.after, self._last.get(name, -1))
        value = floor + 1 if self.wanted is None else self.wanted
        if value <= floor:
            reason = f"{value} is not larger than {floor}, so that nothing would change"
            return Refused(model, reason, f"choose {floor + 1} or more" if floor < LARGEST else "contact support")
        if value > LARGEST:
            reason = f"{value} does not fit: keyIncarnationId ends at {LARGEST}"
            remedy = "choose a smaller value" if floor < LARGEST else "contact support: this model can grow no more"
            return Refused(model, reason, remedy)
        self._last[name] = value
        return Reset(
            model, before, value, _put(model, value), _patch(model, value), _calls(model, value), _notes(model)
        )

    def each(self, models: Iterable[Model]) -> Iterator[Reset | Refused]:
        return (self.reset(model) for model in models)


def _patch(model: Model, value: int) -> dict[str, Any]:
    profile: dict[str, Any] = {"securityProfile": {"proxyAgentSettings": {"keyIncarnationId": value}}}
    return {"properties": {"virtualMachineProfile": profile} if model.kind is Kind.SCALE_SET else profile}


def _put(model: Model, value: int) -> dict[str, Any] | None:
    """The whole model less what ARM does not take back. A PUT replaces: a flat shape would not be whole."""
    if not model.whole:
        return None
    body: dict[str, Any] = copy.deepcopy(dict(model.resource))
    for place, names in _READ_ONLY.items():
        part = body[place] if place else body
        for name in [name for name in part if name.lower() in {one.lower() for one in names}]:
            del part[name]
    profile = get(body["properties"], "virtualMachineProfile") if model.kind is Kind.SCALE_SET else body["properties"]
    settings = get(profile, "securityProfile", "proxyAgentSettings")
    for name in [name for name in settings if name.lower() == "keyincarnationid"]:
        del settings[name]
    settings["keyIncarnationId"] = value
    return body


def _calls(model: Model, value: int) -> tuple[tuple[str, str], ...]:
    """az from 2.72 on has --key-incarnation-id; Az.Compute's cmdlet for scale sets has no such parameter."""
    group, name = model.group or "GROUP", model.name if model.name != "(no name)" else "NAME"
    url = f"{model.id or 'ID'}?api-version={API_VERSION}"
    body = json.dumps(_patch(model, value), separators=(",", ":"))
    rest = (
        ("az rest (PATCH)", f"az rest --method patch --url {shlex.quote(url)} --body {shlex.quote(body)}"),
        ("az rest (PUT)", f"az rest --method put --url {shlex.quote(url)} --body @put.json"),
    )
    if model.kind is Kind.INSTANCE:
        return rest[:1] if not model.whole else rest
    command = "vm" if model.kind is Kind.VM else "vmss"
    flags = f"-g {shlex.quote(group)} -n {shlex.quote(name)} --key-incarnation-id {value}"
    return (("az", f"az {command} update {flags}"), _powershell(model, group, name, value), *rest[: 1 + model.whole])


def _powershell(model: Model, group: str, name: str, value: int) -> tuple[str, str]:
    if model.kind is Kind.VM:
        return "PowerShell", (
            f"$vm = Get-AzVM -ResourceGroupName {_ps(group)} -Name {_ps(name)}; "
            f"Set-AzVMProxyAgentSetting -VM $vm -EnableProxyAgent $true -KeyIncarnationId {value}; "
            f"Update-AzVM -ResourceGroupName {_ps(group)} -VM $vm"
        )
    return "PowerShell", (
        f"$set = Get-AzVmss -ResourceGroupName {_ps(group)} -VMScaleSetName {_ps(name)}; "
        f"$set.VirtualMachineProfile.SecurityProfile.ProxyAgentSettings.KeyIncarnationId = {value}; "
        f"Update-AzVmss -ResourceGroupName {_ps(group)} -VMScaleSetName {_ps(name)} -VirtualMachineScaleSet $set"
    )


def _ps(text: str) -> str:
    """A PowerShell literal in single quotes, in which a quote is doubled."""
    return "'" + text.replace("'", "''") + "'"


def _notes(model: Model) -> tuple[str, ...]:
    notes = []
    body = get(model.resource, "properties") if model.whole else model.resource
    if model.incarnation is None:
        notes.append("the model has no keyIncarnationId; 0 is assumed")
    if not model.whole:
        read = f"az rest --method get --url {shlex.quote((model.id or 'ID') + '?api-version=' + API_VERSION)}"
        notes.append(
            f"no PUT body: a PUT replaces the model, and this text is not in ARM's shape; `{read}` prints it so"
        )
    if model.kind is Kind.SCALE_SET:
        if get(body, "orchestrationMode") == "Flexible":
            notes.append("its instances are virtual machines with models of their own: reset each of them too")
        elif str(get(body, "upgradePolicy", "mode") or "Manual").lower() == "manual":
            update = f"az vmss update-instances -g {model.group or 'GROUP'} -n {model.name} --instance-ids '*'"
            notes.append(f"upgrade policy Manual: the instances get it by `{update}`")
    notes.append("afterwards status.json must show the new keyIncarnationId and a keyGuid (within a minute or two)")
    return tuple(notes)
