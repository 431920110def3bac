"""An object's maps beside those of the Guest Proxy Agent, field by field.

What counts is what a reader of the map relies on: sizes, where each field lies, and what it holds. The names of fields
have changed with the agent's versions, so of a name only its words are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.program.maps import LAYOUTS
from harness.program.object.btf import Field
from harness.program.object.contents import Contents
from harness.program.object.definitions import Definition


@dataclass(frozen=True)
class Part:
    """A field of the agent's: what it holds, where it begins and how long it is, in bytes."""

    holds: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.holds} at {self.offset}, {self.size} bytes"


def _words(*holds: str) -> tuple[Part, ...]:
    """Fields of a __u32 each, one behind the other."""
    return tuple(Part(name, 4 * number, 4) for number, name in enumerate(holds))


_DESTINATION = (Part("ip", 0, 16), Part("port", 16, 4), Part("protocol", 20, 4))
_WHO = ("uid", "pid", "is_root", "ip", "port")

FIELDS: Mapping[str, tuple[Sequence[Part], Sequence[Part]]] = {
    "skip_process_map": (_words("pid"), _words("pid")),
    "policy_map": (_DESTINATION, _DESTINATION),
    "audit_map": (_words("protocol", "port"), _words(*_WHO)),
    "local_map": ((Part("pid_tgid", 0, 8),), _words(*_WHO, "protocol")),
}
"""Key and value of the agent's maps: shared/facts/agent.md."""

PROGRAMS: Mapping[str, str] = {"connect4": "cgroup/connect4", "tcp_v4_connect": "kprobe/tcp_v4_connect"}
"""The agent's programs by function, and their sections."""

KPROBE_SYMBOL = "tcp_connect"
"""Where the agent attaches tcp_v4_connect, whatever its section says."""

# Words of a field's name that tell what it holds.
_MEANINGS: Mapping[str, frozenset[str]] = {
    "ip": frozenset({"ip", "ipv4", "ipv6", "addr", "address", "ip4"}),
    "port": frozenset({"port", "sport", "dport"}),
    "protocol": frozenset({"protocol", "proto"}),
    "uid": frozenset({"uid", "user", "logon"}),
    "pid": frozenset({"pid", "process", "tgid"}),
    "is_root": frozenset({"root", "admin"}),
}


def is_redirector(contents: Contents) -> bool:
    """Whether an object means to be one: it has a program or a map of the agent's."""
    names = {one.name for one in contents.maps} & set(FIELDS)
    return bool(names) or any(program.section == PROGRAMS["connect4"] for program in contents.programs)


def differences(one: Definition) -> Sequence[str]:
    """In what a map of one of the agent's names is another map than the agent's; empty where it is the same."""
    layout = LAYOUTS[one.name]
    if one.type is None:
        return ["nobody can tell its type and sizes: it is defined by BTF, and there is none for it"]
    found = []
    for what, own, agents in (
        ("type", one.type, int(layout.type)),
        ("key", one.key_size, layout.key_size),
        ("value", one.value_size, layout.value_size),
    ):
        if own != agents and what == "type":
            found.append(f"its type is {one.kind}, the agent's {layout.type.name}")
        elif own != agents:
            size = "not known" if own is None else f"{own} bytes"
            found.append(f"its {what} is {size}, the agent's {agents}")
    for what, fields, parts in (("key", one.key, FIELDS[one.name][0]), ("value", one.value, FIELDS[one.name][1])):
        found += [f"{what}: {text}" for text in _fields(fields, parts)]
    return found


def remarks(one: Definition) -> Sequence[str]:
    """Differences that no reader of the map minds: the number of entries, flags."""
    layout = LAYOUTS[one.name]
    found = [] if one.entries == layout.entries else [f"{one.entries} entries, the agent's has {layout.entries}"]
    return found + ([f"flags {one.flags:#x}, the agent's has none"] if one.flags else [])


def _fields(fields: Sequence[Field], parts: Sequence[Part]) -> list[str]:
    """Where fields do not lie as the agent's parts do, or hold something else by their names."""
    if not fields:  # no BTF: sizes are all there is
        return []
    found = []
    for part in parts:
        within = [one for one in fields if one.offset < part.offset + part.size and one.offset + one.size > part.offset]
        outside = [one for one in within if one.offset < part.offset or one.offset + one.size > part.offset + part.size]
        if not within:
            found.append(f"nothing where the agent has {part}")
        elif outside:
            found.append(f"`{outside[0]}` lies across the agent's {part}")
        else:
            found += [f"`{one}` where the agent has {part}" for one in within if _holds_another(one.name, part.holds)]
    end = parts[-1].offset + parts[-1].size
    return found + [f"`{one}`, which the agent does not have" for one in fields if one.offset >= end]


def _holds_another(name: str, holds: str) -> bool:
    """Whether a name speaks of something else that the agent has, and not of this."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    spoken = {meaning for meaning, known in _MEANINGS.items() if words & known}
    return bool(spoken) and holds in _MEANINGS and holds not in spoken
