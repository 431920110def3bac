"""VM and scale-set models, as ARM, az and PowerShell print them, and instance views.

The three spell members differently (proxyAgentSettings, ProxyAgentSettings) and put them under `properties` or not:
names are compared in lower case, and `properties` is looked through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import moment
from harness.diagnose.facts import (
    ExtensionStatus,
    Identity,
    IdentityKind,
    InstanceStatus,
    Note,
    NoteKind,
    OsRelease,
    VmModel,
)
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import members, number, objects, text, truth

MOST = 20_000  # models in one document: a fleet's list
_MOST_STATUSES = 200
_FAR = 1 << 18  # characters in which a model's members are looked for

_MODEL = {"storageprofile", "hardwareprofile", "osprofile", "securityprofile", "virtualmachineprofile"}
_SETTINGS = re.compile(r'"?proxyAgentSettings"?\s{0,40}[:=]\s{0,40}(?=\{)', re.IGNORECASE)
_LISTED = re.compile(
    r"^[ \t]{0,40}(Enabled|Mode|KeyIncarnationId|AddProxyAgentExtension)[ \t]{1,40}:[ \t]*(\S{1,64})[ \t]*$",
    re.M | re.I,
)


def is_model(value: object) -> bool:
    """Whether an object is a VM, a scale set, a list of them or a template with them."""
    return any(True for _ in _models(value, "", 0))


def of_value(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    at = begin
    for count, (model, path) in enumerate(_models(value, "", 0)):
        if count >= MOST:
            yield Note(NoteKind.LEFT_OUT, section.document, f"models after the first {MOST}")
            return
        name = text(members(model).get("name"))
        found = section.text.find(f'"{name}"', at, min(end, at + _FAR)) if name else -1
        at = found if found >= 0 else at
        yield from _of_model(model, path, section, at, min(end, at + _FAR))


def _models(value: object, path: str, depth: int) -> Iterator[tuple[Mapping[str, Any], str]]:
    if depth > 4:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _models(item, f"{path}[{index}]", depth + 1)
        return
    plain = members(value)
    if not plain or "proxyagentstatus" in plain:
        return
    kind = str(plain.get("type", "")).lower()
    if _body(plain).keys() & _MODEL and (not kind or "microsoft.compute/virtualmachine" in kind):
        yield plain, path
        return
    for name in ("value", "resources", "template", "properties"):
        if isinstance(plain.get(name), list | dict):
            yield from _models(plain[name], f"{path}.{name}".lstrip("."), depth + 1)


def _body(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = members(plain.get("properties"))
    return inner if inner.keys() & _MODEL else plain


def _of_model(plain: Mapping[str, Any], path: str, section: Section, at: int, end: int) -> Iterator[Found]:
    body = _body(plain)
    is_set = "virtualmachineprofile" in body
    profile = members(body.get("virtualmachineprofile")) if is_set else body
    security = members(profile.get("securityprofile"))
    settings = members(security.get("proxyagentsettings"))
    kind = "vmss" if is_set else "vmss-instance" if "/virtualmachines" in _type(plain) and _is_instance(plain) else "vm"
    where = _SETTINGS.search(section.text, at, end) if settings else None
    storage = members(profile.get("storageprofile"))
    yield VmModel(
        section.at(where.start() if where else at),
        text(plain.get("name")),
        kind,
        bool(settings),
        **_read_settings(settings),
        os_type=text(members(storage.get("osdisk")).get("ostype")) or _os_type(profile),
        image=_image(members(storage.get("imagereference"))),
        provisioning_state=text(body.get("provisioningstate")),
        vm_id=text(body.get("vmid")),
        path=path,
    )
    if vm_id := text(body.get("vmid")):
        yield Identity(section.at(_find(section, vm_id, at, end)), IdentityKind.VM, vm_id.lower())
    extensions = plain.get("resources") or members(profile.get("extensionprofile")).get("extensions")
    yield from _extensions(extensions, section, at, end)
    if view := members(body.get("instanceview")):
        yield from of_view(view, section, at, end)


def _type(plain: Mapping[str, Any]) -> str:
    return str(plain.get("type", "")).lower()


def _is_instance(plain: Mapping[str, Any]) -> bool:
    return "virtualmachinescalesets/" in _type(plain) or "instanceid" in plain


def _read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    imds, wire = members(settings.get("imds")), members(settings.get("wireserver"))
    return {
        "enabled": truth(settings.get("enabled")),
        "mode": text(settings.get("mode")),
        "key_incarnation_id": number(settings.get("keyincarnationid")),
        "imds_mode": text(imds.get("mode")),
        "imds_profile": text(imds.get("invmaccesscontrolprofilereferenceid")),
        "wireserver_mode": text(wire.get("mode")),
        "wireserver_profile": text(wire.get("invmaccesscontrolprofilereferenceid")),
        "add_extension": truth(settings.get("addproxyagentextension")),
    }


def _os_type(profile: Mapping[str, Any]) -> str | None:
    system = members(profile.get("osprofile"))
    if system.get("linuxconfiguration"):
        return "Linux"
    return "Windows" if system.get("windowsconfiguration") else None


def _image(reference: Mapping[str, Any]) -> str | None:
    parts = [text(reference.get(name)) for name in ("publisher", "offer", "sku", "version")]
    if any(parts):
        return ":".join(part or "" for part in parts)
    return text(reference.get("id")) or text(reference.get("sharedgalleryimageid"))


def _extensions(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    for item in objects(value)[:_MOST_STATUSES] if isinstance(value, list) else []:
        plain = members(item)
        body = {**plain, **members(plain.get("properties"))}
        publisher = text(body.get("publisher"))
        kind = text(body.get("typepropertiestype") or body.get("extensiontype") or body.get("type"))
        if not publisher or not kind:
            continue
        kind = kind.rsplit("/", 1)[-1]
        yield ExtensionStatus(
            section.at(_find(section, kind, begin, end)), f"{publisher}.{kind}",
            text(body.get("typehandlerversion")), None, text(body.get("provisioningstate")), None, None,
        )  # fmt: skip
        if view := members(body.get("instanceview")):
            yield from _of_extension({"type": f"{publisher}.{kind}", **view}, section, begin, end)


def of_extensions(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """az vm extension list or show, Get-AzVMExtension, REST."""
    yield from _extensions(objects(value), section, begin, end)


def of_view(view: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """An instance view: statuses of the VM, its agent and its extensions; the name and system the agent reports."""
    yield from _statuses("vm", view.get("statuses"), section, begin, end)
    agent = members(view.get("vmagent"))
    yield from _statuses("vmAgent", agent.get("statuses"), section, begin, end)
    for handler in objects(agent.get("extensionhandlers"))[:_MOST_STATUSES]:
        plain = members(handler)
        state = members(plain.get("status"))
        name = text(plain.get("type"))
        yield ExtensionStatus(
            section.at(_find(section, name or "", begin, end)), name, text(plain.get("typehandlerversion")), None,
            text(state.get("displaystatus")) or text(state.get("code")), None, text(state.get("message")),
        )  # fmt: skip
    for extension in objects(view.get("extensions"))[:_MOST_STATUSES]:
        yield from _of_extension(members(extension), section, begin, end)
    if host := text(view.get("computername")):
        yield Identity(section.at(_find(section, host, begin, end)), IdentityKind.HOST, host)
    if system := text(view.get("osname")):
        fields = {"NAME": system, "VERSION_ID": text(view.get("osversion")) or ""}
        yield OsRelease(section.at(_find(section, system, begin, end)), fields)


def of_compute(compute: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """The compute part of IMDS's instance document: a model of few words, without the settings of the proxy agent."""
    name, kind = text(compute.get("name")), text(compute.get("ostype"))
    if name:
        yield VmModel(
            section.at(_find(section, name, begin, end)), name, "vm", False, os_type=kind,
            image=_image(compute), vm_id=text(compute.get("vmid")), whole=False,
        )  # fmt: skip


def _of_extension(plain: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    name = text(plain.get("type")) or text(plain.get("name"))
    below = tuple(
        (text(row.get("code")) or "", text(row.get("displaystatus")) or "", text(row.get("message")) or "")
        for row in map(members, objects(plain.get("substatuses"))[:_MOST_STATUSES])
    )
    for state in map(members, objects(plain.get("statuses"))[:4]):
        time = text(state.get("time"))
        yield ExtensionStatus(
            section.at(_find(section, name or "", begin, end)), name, text(plain.get("typehandlerversion")), None,
            text(state.get("displaystatus")) or text(state.get("code")), None, text(state.get("message")), time,
            moment(time, zone="UTC"), below,
        )  # fmt: skip


def _statuses(about: str, value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    for state in map(members, objects(value)[:_MOST_STATUSES] if isinstance(value, list) else []):
        code = text(state.get("code"))
        if code:
            time = text(state.get("time"))
            yield InstanceStatus(
                section.at(_find(section, code, begin, end)), about, code, text(state.get("displaystatus")),
                text(state.get("message")), time, moment(time, zone="UTC"),
            )  # fmt: skip


def _find(section: Section, word: str, begin: int, end: int) -> int:
    at = section.text.find(f'"{word}"', begin, end) if word else -1
    return at if at >= 0 else begin


# --- fragments ----------------------------------------------------------------------------------------------------


def read(section: Section) -> Iterator[Found]:
    """ProxyAgentSettings alone, in a text that is no whole JSON, or as PowerShell lists it."""
    decoder = json.JSONDecoder(strict=False)
    for count, match in enumerate(_SETTINGS.finditer(section.text)):
        if count >= 64:
            return
        try:
            value, _ = decoder.raw_decode(section.text, match.end())
        except (ValueError, RecursionError):
            yield Note(NoteKind.DAMAGED, section.document, "a cut ProxyAgentSettings", section.at(match.start()).line)
            continue
        yield VmModel(section.at(match.start()), None, "vm", True, whole=False, **_read_settings(members(value)))
    if not _SETTINGS.search(section.text):
        listed = {match[1].lower(): match[2] for match in _LISTED.finditer(section.text)}
        if "keyincarnationid" in listed or "addproxyagentextension" in listed:
            first = _LISTED.search(section.text)
            yield VmModel(
                section.at(first.start() if first else 0), None, "vm", True, whole=False, **_read_settings(listed)
            )  # fmt: skip
