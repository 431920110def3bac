"""Which cgroup layout an image's systemd mounts, by its version, its default and the kernel's command line.

The rules are those of cg_is_unified_wanted() and its kin in systemd's src/basic/cgroup-util.c and src/core/mount-setup:
the words of the command line decide, else what it was compiled with. 256 refuses v1 unless it is forced, 258 has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.image import reading
from harness.image.image import Image
from harness.image.kernels import Kernels

UNIFIED = "systemd.unified_cgroup_hierarchy"
LEGACY_CONTROLLER = "systemd.legacy_systemd_cgroup_controller"
FORCE = "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE"
NO_V1 = "cgroup_no_v1"

YES = frozenset({"1", "yes", "y", "true", "t", "on"})
_SHARED = re.compile(r"libsystemd-shared-(\d{3})[^/]*\.so")
_COMPILED = re.compile(rb"default-hierarchy=(unified|hybrid|legacy)")
_SYSTEMD = frozenset({"/usr/lib/systemd/systemd", "/lib/systemd/systemd"})

# What distributions compile in, where the library could not be read: from a version on, else before it.
# systemd itself has unified from 243 on; RHEL 8 has legacy, Debian 11 and Ubuntu 21.10 were the first with unified.
_DISTRIBUTIONS: Mapping[str, tuple[tuple[int, int], str]] = {
    "debian": ((11, 0), "hybrid"),
    "ubuntu": ((21, 10), "hybrid"),
    "fedora": ((31, 0), "hybrid"),
    "rhel": ((9, 0), "legacy"),
    "centos": ((9, 0), "legacy"),
    "rocky": ((9, 0), "legacy"),
    "almalinux": ((9, 0), "legacy"),
    "ol": ((9, 0), "legacy"),
    "sles": ((16, 0), "hybrid"),
    "opensuse-leap": ((16, 0), "hybrid"),
    "azurelinux": ((3, 0), "hybrid"),
}


@dataclass(frozen=True)
class Layout:
    """kind: unified, hybrid, legacy, refused (systemd 256 and 257 do not start so), or nothing where not known.

    why says what decided; sure is False where it was expected of the distribution and not read.
    """

    kind: str
    why: str
    sure: bool = True
    version: int = 0


def layout(image: Image, found: Kernels) -> Layout:
    """The layout. Raises Unread where what decides was not read."""
    init = next((path for path in ("/sbin/init", "/usr/sbin/init", "/etc/init") if image.tree.exists(path)), None)
    leads_to = image.tree.resolve(init) if init else None
    if init is not None and leads_to not in _SYSTEMD:
        return Layout("", f"{init} is {leads_to or 'a link to nothing'}, not systemd")
    version = systemd_version(image)
    if not version:
        return Layout("", "no systemd was found: neither its package nor libsystemd-shared-*.so")
    compiled, why, sure = _default(image, version)
    if version >= 258:
        return Layout("unified", f"systemd {version} has no cgroup v1", version=version)
    if found.line is None:
        if not compiled:
            return Layout("", "neither the command line nor systemd's default could be read", version=version)
        return Layout(compiled, f"{why}; the command line is not known", False, version)
    return _asked(found, compiled, why, sure, version)


def _asked(found: Kernels, compiled: str, why: str, sure: bool, version: int) -> Layout:
    unified, word = _wanted(found)
    if unified is None and not compiled:
        return Layout("", f"{why}, and the command line has neither {UNIFIED} nor {NO_V1}=all", version=version)
    if unified is None:
        unified, word = compiled == "unified", ""
    if unified:
        return Layout("unified", f"`{word}` on the command line" if word else why, sure or bool(word), version)
    if version >= 256 and not _is_on(found, FORCE):
        return Layout("refused", f"`{word}` without `{FORCE}=1`: systemd {version} does not start so", True, version)
    controller = found.parameters(LEGACY_CONTROLLER)
    said = f"`{word}` on the command line" if word else why
    if controller:
        legacy = (controller[-1] or "1").lower() in YES
        return Layout("legacy" if legacy else "hybrid", f"{said}, `{LEGACY_CONTROLLER}`", True, version)
    if not compiled:
        return Layout("hybrid", f"{said}; whether hybrid or v1 alone could not be read", False, version)
    return Layout("legacy" if compiled == "legacy" else "hybrid", said, sure or bool(word), version)


def _wanted(found: Kernels) -> tuple[bool | None, str]:
    """Whether the command line asks for the unified layout, and by which word; None where it says nothing."""
    values = found.parameters(UNIFIED)
    if values:
        value = values[-1]
        return (value is None or value.lower() in YES), UNIFIED + (f"={value}" if value is not None else "")
    if "all" in found.parameters(NO_V1):
        return True, f"{NO_V1}=all"
    return None, ""


def _is_on(found: Kernels, name: str) -> bool:
    values = found.parameters(name)
    return bool(values) and (values[-1] or "1").lower() in YES


def systemd_version(image: Image) -> int:
    """The version by the name of its library, else by its package; 0 where there is neither."""
    for path in libraries(image):
        match = _SHARED.fullmatch(path.rpartition("/")[2])
        if match:
            return int(match.group(1))
    package = image.packages.get("systemd")
    number = re.match(r"(?:\d+:)?v?(\d{3})", package.version) if package else None
    return int(number.group(1)) if number else 0


def libraries(image: Image) -> list[str]:
    """libsystemd-shared-*.so, in /usr/lib/systemd or, as Debian has it, in a directory of the architecture."""
    tops = [top for top in ("/usr/lib", "/lib", "/usr/lib64") if image.tree.is_directory(top)]
    folders = [f"{top}/systemd" for top in tops]
    folders += [f"{top}/{name}/systemd" for top in tops for name in image.tree.names(top) if name.count("-linux-")]
    return [f"{folder}/{name}" for folder in folders for name in image.tree.names(folder) if _SHARED.fullmatch(name)]


def _default(image: Image, version: int) -> tuple[str, str, bool]:
    """What systemd was compiled with, what says so, and whether it was read (not expected)."""
    for path in libraries(image):
        data = image.tree.data(path)
        match = _COMPILED.search(data) if data is not None else None
        if match:
            return match.group(1).decode(), f"systemd {version} was compiled with {match.group().decode()}", True
        if data is not None and version >= 256:
            return "unified", f"systemd {version} has no other default", True
    if version >= 256:
        return "unified", f"systemd {version} has no other default", True
    return _expected(image, version)


def _expected(image: Image, version: int) -> tuple[str, str, bool]:
    release = os_release(image)
    name = release.get("ID", "")
    number = tuple(int(word) for word in re.findall(r"\d+", release.get("VERSION_ID", ""))[:2])
    if name in _DISTRIBUTIONS and number:
        first, before = _DISTRIBUTIONS[name]
        kind = "unified" if number >= first[: len(number)] else before
        return kind, f"expected of {name} {release['VERSION_ID']} (systemd {version}); its library was not read", False
    return "", f"the default of systemd {version} could not be read", False


def os_release(image: Image) -> dict[str, str]:
    """The fields of os-release. Raises Unread."""
    found = reading.first(image, "/etc/os-release", "/usr/lib/os-release")
    rows = (line.partition("=") for line in (found[1] if found else "").splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, equals, value in rows if equals}
