"""The kernels of an image: which there are, which boots, with which command line and configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.image import reading
from harness.image.image import Image
from harness.image.reading import Unread
from harness.image.uki import Unified, unified_kernels
from harness.vm import boot_menu

MODULES = ("/usr/lib/modules", "/lib/modules")
_IMAGE = re.compile(r"(?:vmlinuz|vmlinux|Image|kernel)-([0-9][A-Za-z0-9.+~_-]{0,200})")
_MENUS = (
    "/boot/grub2/grub.cfg",
    "/boot/grub/grub.cfg",
    "/boot/efi/EFI/redhat/grub.cfg",
    "/boot/efi/EFI/debian/grub.cfg",
    "/boot/efi/EFI/ubuntu/grub.cfg",
)
_ENVIRONMENTS = ("/boot/grub2/grubenv", "/boot/grub/grubenv")
_ENTRIES = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
_LATER = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline", "/etc/cmdline")
_SET = re.compile(r"""^\s*set\s+(\w+)=(?:"([^"\n]*)"|'([^'\n]*)'|(\S*))\s*$""", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OPTION = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)
_OFF = re.compile(r"^# (CONFIG_\w+) is not set$", re.MULTILINE)


@dataclass(frozen=True)
class Kernels:
    """releases: path of each image by release. default is empty where there is none.

    chosen_by: what said so (a path, or "the newest of …"); line: the default's command line, None where nobody tells;
    line_from: where it was read; modules: releases that have a directory of modules.
    """

    releases: Mapping[str, str]
    default: str
    chosen_by: str = ""
    line: str | None = None
    line_from: str = ""
    modules: Sequence[str] = field(default_factory=tuple)

    def parameters(self, name: str) -> list[str | None]:
        """The values of a word of the command line, in order; None for one without a value."""
        found: list[str | None] = []
        for word in (self.line or "").split():
            key, equals, value = word.strip('"').partition("=")
            if key.replace("-", "_") == name.replace("-", "_"):
                found.append(value.strip('"') if equals else None)
        return found


def kernels(image: Image) -> Kernels:
    """The kernels and the one that boots. Raises Unread where a boot loader's file was not read."""
    modules = sorted({name for place in MODULES for name in image.tree.names(place)}, key=boot_menu.version_key)
    releases = _images(image, modules)
    unified = unified_kernels(image, modules)
    menu = reading.first(image, *_MENUS)
    entries = _entries(image)
    if unified and (menu is None or not releases):
        return _of_unified(image, unified, modules)
    if not releases:
        return Kernels({}, "", modules=modules)
    environment = reading.first(image, *_ENVIRONMENTS) or ("", "")
    text = menu[1] if menu else ""
    choice = boot_menu.choose(releases, text, environment[1], entries)
    if not choice.title:
        known = ", ".join(releases)
        by = f"the newest of {known}: neither a menu nor a boot loader entry names one of them"
        line, place = _expected(image)
        return Kernels(releases, choice.release, by if len(releases) > 1 else "the only one", line, place, modules)
    variables = _variables(text, environment[1])
    where = f"the entry {choice.title!r} of {_place_of(image, menu, choice)}"
    return Kernels(releases, choice.release, where, _filled(choice.line, variables), where, modules)


def config(image: Image, release: str) -> tuple[str, Mapping[str, str]] | None:
    """A kernel's configuration: the file, and the values ("y", "m", a number or text; "n" where it is off).

    None where the image has no such file. Raises Unread where it was not read.
    """
    paths = (f"/boot/config-{release}", *(f"{place}/{release}/config" for place in MODULES))
    found = reading.first(image, *paths, f"/usr/lib/ostree-boot/config-{release}")
    if found is None:
        return None
    values = dict.fromkeys(_OFF.findall(found[1]), "n")
    values |= {name: value.strip('"') for name, value in _OPTION.findall(found[1])}
    return found[0], values


def _images(image: Image, modules: Sequence[str]) -> dict[str, str]:
    """The path of each release's image: in /boot, else beside its modules, else where systemd's entries have it."""
    found = {}
    for name in reading.names(image, "/boot") if image.tree.is_directory("/boot") else ():
        match = _IMAGE.fullmatch(name)
        if match and image.tree.is_file(f"/boot/{name}"):
            found[match.group(1)] = f"/boot/{name}"
    for release in modules:
        for place in MODULES:
            if image.tree.is_file(f"{place}/{release}/vmlinuz"):
                found.setdefault(release, f"{place}/{release}/vmlinuz")
        for top in ("/boot", "/boot/efi", "/efi"):
            for folder in image.tree.names(top):
                if image.tree.is_file(f"{top}/{folder}/{release}/linux"):
                    found.setdefault(release, f"{top}/{folder}/{release}/linux")
    return dict(sorted(found.items(), key=lambda row: boot_menu.version_key(row[0])))


def _entries(image: Image) -> dict[str, str]:
    for place in _ENTRIES:
        found = reading.texts(image, place, "*.conf") if image.tree.is_directory(place) else {}
        if found:
            return {path.rpartition("/")[2].removesuffix(".conf"): text for path, text in found.items()}
    return {}


def _place_of(image: Image, menu: tuple[str, str] | None, choice: boot_menu.Choice) -> str:
    folder = next((place for place in _ENTRIES if image.tree.exists(f"{place}/{choice.title}.conf")), None)
    return folder or (menu[0] if menu else "the menu")


def _variables(menu: str, environment: str) -> dict[str, str]:
    """What GRUB knows when it shows its menu: what is set in grub.cfg, and over it what grubenv has saved."""
    found = {row[0]: row[1] or row[2] or row[3] for row in _SET.findall(menu)}
    for line in environment.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] = value
    return found


def _filled(line: str, variables: Mapping[str, str]) -> str:
    """The line with its variables; those that are not set are empty, as GRUB has it."""
    for _ in range(3):  # a variable may hold another
        line = _VARIABLE.sub(lambda match: variables.get(match.group(1) or match.group(2), ""), line)
    return " ".join(line.split())


def _expected(image: Image) -> tuple[str | None, str]:
    """What the next menu will have, where there is none yet: /etc/kernel/cmdline."""
    found = reading.first(image, *_LATER)
    return (None, "") if found is None else (" ".join(found[1].split()), found[0])


def _of_unified(image: Image, found: Sequence[Unified], modules: Sequence[str]) -> Kernels:
    newest = max(found, key=lambda one: boot_menu.version_key(one.release))
    releases = {one.release: one.path for one in sorted(found, key=lambda one: boot_menu.version_key(one.release))}
    by = "the only unified kernel image" if len(found) == 1 else "the newest of the unified kernel images"
    line, place = newest.line, newest.path
    if line is None:
        line, place = _expected(image)
        if line is None:
            reason = "was too large to be read" if not newest.read else "has no command line in it"
            raise Unread(f"{newest.path} {reason}, and there is no /etc/kernel/cmdline")
    return Kernels(releases, newest.release, by, line, place, modules)
