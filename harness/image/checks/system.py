"""system.*: whether there is a system, which, and for which machine."""

from __future__ import annotations

from collections.abc import Iterator

from harness.image.cgroup_layout import os_release
from harness.image.checks.question import Question, answers
from harness.image.elf_header import machine_of
from harness.image.image import Image
from harness.msp import guide, image_codes
from harness.report import Json, Result

_ON_AZURE = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init", "/bin/sh", "/usr/bin/bash")


def present(image: Image) -> bool:
    """Whether there is a Linux system to ask anything about."""
    return image.tree.exists("/etc/os-release") or image.tree.exists("/usr/lib/os-release") or bool(image.system)


def _found(image: Image, question: Question) -> Iterator[Result]:
    if not present(image):
        if image.disk.encrypted:
            devices = ", ".join(image.disk.encrypted)
            yield question.unknown(f"no system was found, and {devices} is encrypted", remedy="give it unencrypted")
        elif len(image.systems) > 1:
            remedy = "name the one that boots with --root DEVICE; an image for Azure has one"
            yield question.unknown(image.unseen.get("/", "there are several systems"), {"systems": list(image.systems)},
                                   remedy)  # fmt: skip
        elif image.unseen.keys() - {"/", "packages"}:
            path, reason = next(row for row in image.unseen.items() if row[0] not in ("/", "packages"))
            yield question.unknown(f"no system was found, and {path} could not be read: {reason}")
        else:
            remedy = "look whether it is the right file: there is no os-release and nothing that libguestfs knows"
            yield question.bad("no operating system was found in it", remedy=remedy, code=image_codes.NO_SYSTEM)
        return
    release = os_release(image)
    kind = image.system.get("type", "linux")
    evidence: dict[str, Json] = {"os-release": {name: release[name] for name in sorted(release) if name in _TOLD}}
    evidence["libguestfs"] = dict(image.system)
    name = release.get("PRETTY_NAME") or release.get("ID") or image.system.get("product_name") or "without a name"
    if kind != "linux":
        remedy = "these checks are for Linux images; Windows gets the agent from the platform"
        yield question.bad(f"it is {name}: {kind}, not Linux", evidence, remedy, image_codes.NO_SYSTEM)
        return
    differs = _differences(release, image.system)
    if differs:
        remedy = "look which system boots: os-release may have been copied from another one"
        yield question.doubt(f"{name}; libguestfs says otherwise: {differs}", evidence, remedy)
        return
    yield question.good(str(name), evidence)


_TOLD = frozenset({"ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME", "ID_LIKE", "VARIANT_ID", "IMAGE_ID"})
_SAME = frozenset({("ol", "oraclelinux"), ("sles", "suse"), ("opensuse-leap", "opensuse"), ("amzn", "amazonlinux")})


def _differences(release: dict[str, str], system: object) -> str:
    """In what os-release and libguestfs's own detection differ: the distribution, or its major version."""
    told = dict(system) if isinstance(system, dict) else {}
    own, other = release.get("ID", ""), str(told.get("distro", ""))
    if own and other and other != "unknown" and own != other and not _alike(own, other):
        return f"{other}, and os-release says {own}"
    major, its = str(told.get("major_version", "")), release.get("VERSION_ID", "").partition(".")[0]
    if major not in ("", "0") and its and its.isdecimal() and major != its:
        return f"version {major}, and os-release says {its}"
    return ""


def _alike(own: str, other: str) -> bool:
    return (own, other) in _SAME or own.startswith(other) or other.startswith(own)


def machine(image: Image) -> tuple[str, str]:
    """The machine that the image is for, by uname's name, and what says so; nothing where nothing does."""
    for path in _PROGRAMS:
        data = image.tree.data(path)
        found = machine_of(data) if data is not None else ""
        if found:
            return found, path
    told = image.system.get("arch", "")
    return ("", "") if told in ("", "unknown") else (_ON_AZURE.get(told, told), "libguestfs")


def _architecture(image: Image, question: Question) -> Iterator[Result]:
    name, by = machine(image)
    if not name:
        yield question.unknown("no program was read that says which machine it is for")
        return
    evidence: dict[str, Json] = {"machine": name, "says": by}
    if name not in _ON_AZURE:
        remedy = "make the image for x86_64 or aarch64: Azure has VMs of these"
        yield question.bad(f"it is for {name}, which Azure has no VM of", evidence, remedy)
        return
    yield question.good(f"{_ON_AZURE[name]}, by {by}", evidence)


def _single(image: Image, question: Question) -> Iterator[Result]:
    evidence: dict[str, Json] = {"systems": list(image.systems)}
    if len(image.systems) > 1:
        remedy = "name the one that boots with --root DEVICE; an image for Azure has one"
        summary = (
            f"{len(image.systems)} systems in one image, and one of them was looked at: {'; '.join(image.systems)}"
        )
        yield question.doubt(summary, evidence, remedy)
    else:
        yield question.good("one system", evidence)


def _whole(image: Image, question: Question) -> Iterator[Result]:
    """What could not be read: whoever needs it says so itself, and here it stands together."""
    evidence: dict[str, Json] = {"unread": dict(list(image.unseen.items())[:100])}
    places = [path for path in image.unseen if not image.tree.is_file(path)]
    if not image.unseen:
        yield question.good("everything that was looked for could be read")
    elif not places:
        yield question.good(f"all but {len(image.unseen)} files, which are too large or damaged", evidence)
    else:
        more = f", and {len(places) - 1} more" if len(places) > 1 else ""
        summary = f"not read: {places[0]} ({image.unseen[places[0]]}){more}"
        yield question.doubt(summary, evidence, "what needs it is an ERROR below")


ASKED = (
    (Question("system.found", "Operating system", guide.NEW_VM_LINUX), _found),
    (Question("system.read", "What could be read"), _whole),
)
FURTHER = (
    (Question("system.architecture", "Machine"), _architecture),
    (Question("system.single", "One system"), _single),
)


def system(image: Image) -> Iterator[Result]:
    """Distribution, machine, how many systems."""
    yield from answers(image, ASKED)
    if present(image):
        yield from answers(image, FURTHER)
