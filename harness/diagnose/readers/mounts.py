"""Mount tables: mount, /proc/mounts, mountinfo, findmnt as text and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.diagnose.decode import shown
from harness.diagnose.facts import Mounts
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import objects, text
from harness.kernel.cgroups import Mount, parse_mounts

MOST = 5_000

_MOUNT = re.compile(
    r"^[ \t]{0,8}(\S{1,300}) on (/[^\n]{0,300}?) type ([\w.-]{1,40})(?:\s{1,40}\(([^)\n]{0,800})\)?)?", re.MULTILINE
)
_PROC = re.compile(r"^(\S{1,300}) (/\S{0,300}) ([\w.-]{1,40}) ((?:rw|ro)\b\S{0,800}) \d \d[ \t]*$", re.MULTILINE)
_INFO = re.compile(r"^\d{1,9} \d{1,9} \d{1,9}:\d{1,9} /[^\n]{0,2000} - [^\n]{1,1000}$", re.MULTILINE)
_FINDMNT = re.compile(
    r"^(?P<tree>[ │├└─|`\\-]{0,60})(?P<target>/\S{0,300})[ \t]+(?P<source>\S{1,300})[ \t]+(?P<type>[\w.-]{1,40})"
    r"(?:[ \t]+(?P<options>(?:rw|ro)\b\S{0,800}))?[ \t]*$",
    re.MULTILINE,
)
_HEAD = re.compile(r"^TARGET\s+SOURCE\s+FSTYPE", re.MULTILINE)
_TYPES = re.compile(r"(?:-t|--types)[ =]?(\S+)")
_GREP = re.compile(r"\bgrep\s+(?:-\w+\s+)*[\"']?([\w/.-]+)")


def read(section: Section) -> Iterator[Found]:
    rows, at = _rows(section)
    asked = _asked(section)
    if rows:
        yield Mounts(section.at(at), tuple(rows[:MOST]), asked if asked is not None else _seen(rows))
    elif asked and not section.text.strip() and (section.ended or section.command is None):
        yield Mounts(section.prompt, (), asked)


def _rows(section: Section) -> tuple[list[Mount], int]:
    text = section.text
    for pattern in (_MOUNT, _PROC, _INFO, _FINDMNT):
        found = list(pattern.finditer(text))[:MOST]
        if pattern is _FINDMNT and not (_HEAD.search(text) or "findmnt" in section.named):
            return [], 0
        if found:
            rows = _unescaped(found) if pattern is _INFO else _made(pattern, found)
            best = next((match for match in found if "cgroup2" in match[0]), None)
            best = best or next((match for match in found if "cgroup" in match[0]), found[0])
            return rows, best.start()
    return [], 0


def _unescaped(found: list[re.Match[str]]) -> list[Mount]:
    """Of mountinfo, whose octal digits may stand for anything."""
    rows = parse_mounts("\n".join(match[0] for match in found))
    return [replace(row, point=Path(shown(str(row.point), 300)), root=shown(row.root, 300)) for row in rows]


def _made(pattern: re.Pattern[str], found: list[re.Match[str]]) -> list[Mount]:
    if pattern is _FINDMNT:
        return [_mount(match["target"], match["type"], match["options"] or "", match["source"]) for match in found]
    return [_mount(match[2], match[3], match[4] or "", match[1]) for match in found]


def _mount(point: str, kind: str, options: str, source: str) -> Mount:
    """mount, /proc/mounts and findmnt print options of both kinds in one; a bind's root stands in brackets."""
    root = re.search(r"\[(/[^\]]*)\]$", source)
    return Mount(Path(shown(point, 300).replace("\\040", " ")), root[1] if root else "/", kind, shown(options, 800))


def _asked(section: Section) -> str | None:
    """What the command, or the document's name, limits the table to; None where neither says."""
    command = section.command or ""
    if re.search(r"\b(?:mount|findmnt)\b|/proc/(?:\w+/)?mount", command):
        if grep := _GREP.search(command):
            return grep[1]
        types = _TYPES.search(command)
        if types:
            return {"cgroup2": "cgroup2", "cgroup,cgroup2": "cgroup", "cgroup2,cgroup": "cgroup"}.get(types[1])
        return None if re.search(r"findmnt\s+(?:-\S+\s+)*/", command) else ""
    name = section.named if section.command is None else ""
    if re.search(r"(?:^|\W|_)(?:mount|findmnt|mounts)(?:\W|_)", name) and "cgroup2" in name:
        return "cgroup2"
    return None


def _seen(rows: list[Mount]) -> str | None:
    """A table that has what every machine has is whole; one with nothing but v1 hierarchies was made by grep cgroup."""
    kinds = {row.type for row in rows}
    if {"proc", "sysfs"} <= kinds:
        return ""
    v1 = sum(row.type == "cgroup" for row in rows)
    return "cgroup" if v1 >= 3 and all("cgroup" in f"{row.type}{row.point}" for row in rows) else None


def of_value(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """findmnt --json: a list, or a tree by `children`."""
    rows: list[Mount] = []
    waiting = list(reversed(objects(value.get("filesystems"))))
    while waiting and len(rows) < MOST:
        item = waiting.pop()
        point, kind = text(item.get("target")), text(item.get("fstype"))
        if point and kind:
            rows.append(_mount(point, kind, text(item.get("options")) or "", text(item.get("source")) or ""))
        children = item.get("children")
        waiting += reversed(objects(children)) if isinstance(children, list) else []
    asked = _asked(section)
    at = section.text.find('"cgroup2"', begin, end)
    only = (
        asked
        if asked is not None
        else _seen(rows) or ("cgroup2" if {row.type for row in rows} == {"cgroup2"} else None)
    )
    yield Mounts(
        section.at(at if at >= 0 else begin), tuple(rows), _seen(rows) if asked is None and _seen(rows) == "" else only
    )
