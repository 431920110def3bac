"""systemd's units as they lie in an image: files, drop-ins, masks, what enables them, and their order at boot.

Read as systemd.unit(5) has it; what generators make at boot is not there to be read.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.image import reading
from harness.image.image import Image

PLACES = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
)
"""The first that has a unit's file counts. /lib is /usr/lib where the two are merged."""

_NO = frozenset({"no", "false", "off", "0", "n", "f"})
_FARTHEST = 5_000  # units that are followed

Settings = Mapping[str, Mapping[str, list[str]]]


@dataclass(frozen=True)
class Unit:
    """A unit: settings by section and name, each with its values in order (an empty value clears those before)."""

    name: str
    path: str
    masked: bool = False
    settings: Settings = field(default_factory=dict)
    drop_ins: tuple[str, ...] = ()

    def values(self, section: str, name: str) -> list[str]:
        return list(self.settings.get(section, {}).get(name, ()))

    def words(self, section: str, name: str) -> list[str]:
        return [word for value in self.values(section, name) for word in value.split()]

    def value(self, section: str, name: str) -> str | None:
        """The last one, which is the one that counts for a setting that has one value."""
        found = self.values(section, name)
        return found[-1] if found else None

    def is_off(self, section: str, name: str) -> bool:
        return (self.value(section, name) or "").lower() in _NO

    def is_on(self, section: str, name: str) -> bool:
        value = self.value(section, name)
        return bool(value) and not self.is_off(section, name)


def find(image: Image, name: str) -> Unit | None:
    """A unit with its drop-ins; None where no file of that name is there. Raises Unread."""
    path = next((found for place in PLACES if image.tree.exists(found := f"{place}/{name}")), None)
    if path is None:
        for place in PLACES:
            reading.exists(image, f"{place}/{name}")
        return None
    if is_masked(image, path):
        return Unit(name, path, masked=True)
    settings: dict[str, dict[str, list[str]]] = {}
    parse(reading.text(image, path) or "", settings)
    drop_ins = _drop_ins(image, name)
    for one in drop_ins:
        parse(reading.text(image, one) or "", settings)
    return Unit(name, path, False, settings, tuple(drop_ins))


def is_masked(image: Image, path: str) -> bool:
    """A link to /dev/null, or an empty file."""
    if image.tree.link(path) == "/dev/null":
        return True
    entry = image.tree.entry(path)
    return entry is not None and entry.known and entry.data == b""


def _drop_ins(image: Image, name: str) -> list[str]:
    """Their paths in the order in which they are read: by file name, /etc before /usr for the same name."""
    found: dict[str, str] = {}
    folders = [f"{name}.d"]
    kind = name.rpartition(".")[2]
    folders.append(f"{kind}.d")  # service.d: of every service
    for folder in folders:
        for place in PLACES:
            for file in image.tree.names(f"{place}/{folder}"):
                if file.endswith(".conf"):
                    found.setdefault(file, f"{place}/{folder}/{file}")
    return [found[file] for file in sorted(found) if not is_masked(image, found[file])]


def parse(text: str, settings: dict[str, dict[str, list[str]]]) -> None:
    """Add a file's settings to those that are there. Lines that are none are left alone, as systemd does."""
    section = ""
    for line in _lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        name, equals, value = line.partition("=")
        if not equals or not section:
            continue
        values = settings.setdefault(section, {}).setdefault(name.strip(), [])
        if value.strip():
            values.append(value.strip())
        else:
            values.clear()


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, those that end in a backslash joined."""
    held = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        if held + line:
            yield held + line
        held = ""
    if held:
        yield held


def wanted_by(image: Image, name: str) -> list[str]:
    """The units that start this one: those in whose .wants or .requires a link of its name lies. Raises Unread."""
    found = []
    for place in PLACES:
        for folder in reading.names(image, place) if image.tree.is_directory(place) else ():
            base, _, kind = folder.rpartition(".")
            if kind in ("wants", "requires") and name in image.tree.names(f"{place}/{folder}"):
                found.append(base)
    return sorted(set(found))


def preset(image: Image, name: str) -> str | None:
    """`enable` or `disable`, as the first preset line that is like the name has it; None where there is none."""
    files: dict[str, str] = {}
    for place in ("/etc/systemd/system-preset", "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset"):
        for path in image.tree.files(place, "*.preset"):
            files.setdefault(path.rpartition("/")[2], path)
    for file in sorted(files):
        for line in (image.tree.text(files[file]) or "").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] in ("enable", "disable") and fnmatch.fnmatchcase(name, words[1]):
                return words[0]
    return None


# --- the order at boot -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Which unit comes directly after which, as the files have it."""

    after: Mapping[str, frozenset[str]]

    def way(self, early: str, late: str) -> list[str] | None:
        """How it comes that late starts only after early: the units between them; None where nothing says so."""
        came: dict[str, str] = {late: ""}
        waiting = [late]
        while waiting and len(came) < _FARTHEST:
            here = waiting.pop(0)
            if here == early:
                way = [here]
                while came[way[-1]]:
                    way.append(came[way[-1]])
                return way
            for name in sorted(self.after.get(here, ())):
                if name not in came:
                    came[name] = here
                    waiting.append(name)
        return None


def order(image: Image) -> Order:
    """The order of all services and targets of an image. Raises Unread."""
    names: set[str] = set()
    for place in PLACES:
        names |= {name for name in image.tree.names(place) if name.endswith((".service", ".target"))}
    after: dict[str, set[str]] = {name: set() for name in names}
    found = {name: unit for name in sorted(names) if (unit := find(image, name)) is not None and not unit.masked}
    for name, unit in found.items():
        after[name] |= set(unit.words("Unit", "After"))
        for other in unit.words("Unit", "Before"):
            after.setdefault(other, set()).add(name)
        if name.endswith(".service") and not unit.is_off("Unit", "DefaultDependencies"):
            after[name] |= {"sysinit.target", "basic.target"}
    return Order({name: frozenset(others - {name}) for name, others in after.items()})
