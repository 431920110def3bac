"""The operating systems on a disk, as libguestfs tells them: roots, descriptions, mounts, packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from harness.image.image import Package
from harness.image.listing import text
from harness.vm.appliance import Appliance, quoted

ROOT = re.compile(r"/dev/[A-Za-z0-9/_.:+-]+|btrfsvol:/dev/[A-Za-z0-9/_.:+@ -]+")
"""What libguestfs calls a file system; nothing else is given back to it."""

_WORDS = ("type", "distro", "product-name", "major-version", "arch", "package-format")
_VALUE = 1024  # characters of a description
_MOUNTS = 32
_FIELD = re.compile(r"  app2_(name|epoch|version|release): ?(.*)")
_BEGIN = re.compile(r"\[\d+\] = \{")


def roots(appliance: Appliance) -> tuple[list[str], str]:
    """The systems on the disk, by the device or volume of their root; and what libguestfs complained of, if it did."""
    before = appliance.complaints()
    found = [line.strip() for line in appliance.ask("-inspect-os") if ROOT.fullmatch(line.strip())]
    return found, text(appliance.said().encode()) if appliance.complaints() != before else ""


def description(appliance: Appliance, root: str) -> dict[str, str]:
    """What libguestfs knows of a system, by the names of its calls with underscores; unknown values are left out."""
    found = {}
    for word in _WORDS:
        value = "\n".join(appliance.ask(f"-inspect-get-{word} {quoted(root)}"))[:_VALUE]
        if value and value != "unknown":
            found[word.replace("-", "_")] = text(value.encode("utf-8", "surrogateescape"))
    return found


def title(words: Mapping[str, str]) -> str:
    """A description in two words: `debian 12.15`."""
    return " ".join(filter(None, (words.get("distro", words.get("type", "")), words.get("product_name", ""))))


def mounts(appliance: Appliance, root: str) -> dict[str, str]:
    """Devices by mount point, as the system's fstab has it, parents first."""
    found = {"/": root}
    for line in appliance.ask(f"-inspect-get-mountpoints {quoted(root)}"):
        place, _, device = line.rpartition(": ")
        if place.startswith("/") and ".." not in place.split("/") and ROOT.fullmatch(device.strip()):
            found.setdefault(place.rstrip("/") or "/", device.strip())
    return dict(sorted(found.items())[:_MOUNTS])


def mount(appliance: Appliance, found: Mapping[str, str]) -> dict[str, str]:
    """Mount them in the appliance, read only. What could not, by its place, with libguestfs' words."""
    unseen = {}
    for place, device in found.items():
        before = appliance.complaints()
        appliance.ask(f"-mount-ro {quoted(device)} {quoted(place)}")
        if appliance.complaints() != before:
            shown = text(place.encode("utf-8", "surrogateescape"))
            unseen[shown] = f"{device} cannot be mounted there: {text(appliance.said().encode())}"
    return unseen


def packages(lines: Iterable[str]) -> dict[str, Package]:
    """The packages in what inspect-list-applications2 printed; of several with one name the last."""
    found: dict[str, Package] = {}
    fields: dict[str, str] = {}
    for line in (*lines, "[0] = {"):
        if _BEGIN.fullmatch(line):
            if fields.get("name"):
                found[fields["name"]] = Package(fields["name"], _version(fields))
            fields = {}
        elif match := _FIELD.fullmatch(line):
            fields.setdefault(match.group(1), text(match.group(2).strip().encode("utf-8", "surrogateescape"))[:_VALUE])
    return found


def _version(fields: Mapping[str, str]) -> str:
    epoch, release = fields.get("epoch", "0"), fields.get("release", "")
    return (
        (f"{epoch}:" if epoch not in ("", "0") else "") + fields.get("version", "") + (f"-{release}" if release else "")
    )
