"""The list of what was found in an image, in the form of a CycloneDX 1.5 bill of materials, as far as it is simple."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote

from harness import __version__
from harness.image import agent_files, cloud_init, kernels
from harness.image.cgroup_layout import os_release
from harness.image.checks import waagent
from harness.image.image import Image, Package
from harness.image.object import agent_object
from harness.image.reading import Unread
from harness.report import Json

Found = TypeVar("Found")

OF_INTEREST = ("azure-proxy-agent", "cloud-init", "waagent", "walinuxagent", "WALinuxAgent", "systemd", "util-linux")


def listed(image: Image) -> Json:
    """System, kernels, agent, cloud-init and every package. What was not read is told as `unread: reason`."""
    release = _asked(lambda: os_release(image))
    packages = sorted(image.packages.values(), key=lambda one: one.name)
    rows: list[Json] = [_operating_system(image, release), *_kernels(image), *_agent(image), *_cloud_init(image)]
    rows += [_package(one, image.system, release) for one in packages]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "msp-harness", "version": __version__}]},
            "component": {"type": "container" if not image.disk.is_disk else "platform", "name": image.name,
                          "bom-ref": "image",
                          "properties": _properties({"msp-harness:format": image.disk.format,
                                                     "msp-harness:virtual size": str(image.disk.virtual_size)})},
        },
        "components": rows,
    }  # fmt: skip


def _package(one: Package, system: Mapping[str, str], release: dict[str, str] | str) -> Json:
    found: dict[str, Json] = {"type": "library", "name": one.name, "version": one.version,
                              "bom-ref": f"package:{one.name}"}  # fmt: skip
    kind = system.get("package_format", "")
    distribution = release.get("ID", "") if isinstance(release, dict) else ""
    if kind in ("deb", "rpm") and distribution:
        version = one.version if kind == "deb" else one.version.rpartition(":")[2]
        found["purl"] = (
            f"pkg:{kind}/{quote(distribution, safe='')}/{quote(one.name, safe='')}@{quote(version, safe='')}"
        )
    if one.name in OF_INTEREST:
        found["properties"] = _properties({"msp-harness:of interest": "yes"})
    return found


def _asked(ask: Callable[[], Found]) -> Found | str:
    try:
        return ask()
    except Unread as unread:
        return f"unread: {unread}"


def _properties(values: dict[str, str | None]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items() if value is not None]


def _operating_system(image: Image, release: dict[str, str] | str) -> Json:
    known = release if isinstance(release, dict) else {}
    name = known.get("ID") or image.system.get("distro") or "unknown"
    version = known.get("VERSION_ID") or image.system.get("major_version") or ""
    more = {f"os-release:{key}": value for key, value in sorted(known.items())}
    if isinstance(release, str):
        more["msp-harness:os-release"] = release
    return {"type": "operating-system", "name": name, "version": version, "bom-ref": "os",
            "properties": _properties(dict(more))}  # fmt: skip


def _kernels(image: Image) -> list[Json]:
    found = _asked(lambda: kernels.kernels(image))
    if isinstance(found, str):
        return [{"type": "platform", "name": "kernel", "bom-ref": "kernel",
                 "properties": _properties({"msp-harness:unread": found})}]  # fmt: skip
    return [
        {"type": "platform", "name": "kernel", "version": release, "bom-ref": f"kernel:{release}",
         "properties": _properties({"msp-harness:path": path,
                                    "msp-harness:default": "yes" if release == found.default else "no",
                                    "msp-harness:command line": found.line if release == found.default else None})}
        for release, path in found.releases.items()
    ]  # fmt: skip


def _agent(image: Image) -> list[Json]:
    rows: list[Json] = []
    program = _asked(lambda: agent_files.program(image))
    if program is not None:
        package = image.packages.get(agent_files.NAME)
        rows.append({"type": "application", "name": agent_files.NAME, "version": package.version if package else "",
                     "bom-ref": "agent", "properties": _properties({"msp-harness:path": program})})  # fmt: skip
    found = _asked(lambda: agent_object(image))
    if isinstance(found, str):
        rows.append({"type": "file", "name": agent_files.OBJECT, "bom-ref": "object",
                     "properties": _properties({"msp-harness:unread": found})})  # fmt: skip
    elif found is not None:
        rows.append({"type": "file", "name": found.path, "bom-ref": "object",
                     "hashes": [{"alg": "SHA-256", "content": found.digest.removeprefix("sha256:")}]})  # fmt: skip
    return rows


def _cloud_init(image: Image) -> list[Json]:
    folders = _asked(lambda: cloud_init.folders(image))
    rows: list[Json] = []
    for folder in folders if isinstance(folders, list) else ():
        versions = _asked(lambda folder=folder: cloud_init.file_versions(image, folder))  # type: ignore[misc]
        support = _asked(lambda folder=folder: cloud_init.support(image, folder))  # type: ignore[misc]
        version = next(iter(versions.values()), "") if isinstance(versions, dict) else ""
        said = support if isinstance(support, str) else str(support.support) if support else "no Azure datasource"
        rows.append({"type": "application", "name": "cloud-init", "version": version, "bom-ref": f"cloud-init:{folder}",
                     "properties": _properties({"msp-harness:path": folder, "msp-harness:MSP": said})})  # fmt: skip
    agent = _asked(lambda: waagent.program(image))
    if agent is not None:
        rows.append({"type": "application", "name": "waagent", "version": "", "bom-ref": "waagent",
                     "properties": _properties({"msp-harness:path": agent})})  # fmt: skip
    return rows
