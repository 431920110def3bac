"""Which modules the kernel that boots has, built in or beside it, and which it is forbidden to load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.image import kernels, reading
from harness.image.image import Image
from harness.image.kernels import Kernels
from harness.image.reading import Unread

_PLACES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_KILLED = re.compile(r"install\s+(\S+)\s+(?:/usr)?/bin/(?:true|false)\b")
_BLACKLIST = re.compile(r"blacklist\s+(\S+)")


@dataclass(frozen=True)
class Modules:
    """built_in and loadable: by name, the loadable with their paths. config: the configuration, empty where not read.

    forbidden: by name, the line and the file that forbid it.
    """

    release: str
    built_in: frozenset[str]
    loadable: Mapping[str, str]
    config: Mapping[str, str]
    forbidden: Mapping[str, str]

    def has(self, name: str, option: str) -> str:
        """`built in`, the path of a module, or nothing."""
        if name in self.built_in or self.config.get(option) == "y":
            return "built in"
        return self.loadable.get(name, "")


def modules(image: Image, found: Kernels) -> Modules:
    """Those of the kernel that boots. Raises Unread where neither its lists nor its configuration were read."""
    release = found.default
    folder = next((f"{place}/{release}" for place in kernels.MODULES if image.tree.is_directory(f"{place}/{release}")),
                  None)  # fmt: skip
    built, dep = "", ""
    if folder is not None:
        built = reading.text(image, f"{folder}/modules.builtin") or ""
        dep = reading.text(image, f"{folder}/modules.dep") or ""
    config = kernels.config(image, release)
    if not built and not dep and config is None:
        raise Unread(f"there is neither modules.builtin nor modules.dep nor a configuration of {release}")
    loadable = {_name(line.partition(":")[0]): line.partition(":")[0] for line in dep.splitlines() if ":" in line}
    return Modules(release, frozenset(map(_name, built.split())), loadable, config[1] if config else {},
                   _forbidden(image, found))  # fmt: skip


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _forbidden(image: Image, found: Kernels) -> dict[str, str]:
    rows: dict[str, str] = {}
    files: dict[str, str] = {}
    for place in _PLACES:
        if image.tree.is_directory(place):
            for path in reading.texts(image, place, "*.conf"):
                files.setdefault(path.rpartition("/")[2], path)
    for path in sorted(files.values()):
        for raw in (image.tree.text(path) or "").splitlines():
            line = raw.strip()
            match = _KILLED.match(line) or _BLACKLIST.fullmatch(line)
            if match:
                rows.setdefault(match.group(1).replace("-", "_"), f"`{line}` in {path}")
    for word in ("module_blacklist", "modprobe.blacklist", "rd.driver.blacklist"):
        for value in found.parameters(word):
            for name in (value or "").split(","):
                rows.setdefault(name.replace("-", "_"), f"`{word}={value}` on the command line")
    return rows
