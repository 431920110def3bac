"""Which of a disk's kernels boots by default: GRUB's menu (grub.cfg, grubenv) and boot loader entries, read as text.

The menu is a stranger's text: what it says is only a choice among the kernels that are there. GRUB's manual has the
forms; entries are those of the Boot Loader Specification (/boot/loader/entries/*.conf).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_ENTRY = re.compile(r"""(menuentry|submenu)\s+(?:'([^']*)'|"([^"]*)"|(\S+))(.*)""")
_ID = re.compile(r"""(?:\$menuentry_id_option|--id)\s+['"]?([^'"\s{]+)""")
_LINUX = re.compile(r"linux(?:16|efi)?\s+(?:\([^)]*\))?\S*?vmlinuz-([^\s'\"]+)[\"']?(.*)")
_DEFAULT = re.compile(r"""set\s+default=["']?([^"'\n;]*)""")
_DEEP = 8  # submenus


@dataclass
class _Row:
    """An entry of the menu, or a submenu with its rows."""

    title: str
    id: str = ""
    release: str = ""
    line: str = ""
    rows: list[_Row] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """What boots: the release, the command line as it stands there (with GRUB's variables), and the entry's name.

    title is empty where neither the menu nor an entry names a kernel that is there: then it is the newest, and nobody
    knows its command line.
    """

    release: str
    line: str = ""
    title: str = ""


def default(releases: Iterable[str], menu: str, environment: str, entries: Mapping[str, str]) -> str:
    """The release that boots: as the menu or the entries say, else the newest.

    releases are those with an image; menu is grub.cfg, environment is grubenv, entries are the files of loader/entries
    by name without .conf. Raises ValueError where there is no release.
    """
    return choose(releases, menu, environment, entries).release


def choose(releases: Iterable[str], menu: str, environment: str, entries: Mapping[str, str]) -> Choice:
    """The same with its command line and the name of the entry."""
    known = sorted(set(releases), key=version_key)
    if not known:
        raise ValueError("no releases")
    saved = dict(line.split("=", 1) for line in environment.splitlines() if "=" in line).get("saved_entry", "")
    found = _of_entries(entries, saved) if entries and ("blscfg" in menu or not menu) else _of_menu(menu, saved)
    return found if found.release in known else Choice(known[-1])


def version_key(release: str) -> list[tuple[int, int, str]]:
    """For sorting: numbers as numbers, 5.10 after 5.9, and 6.9~rc1 before 6.9."""
    parts = re.findall(r"[0-9]+|[a-zA-Z]+|~", release)
    keys = [(1, int(part), "") if part.isdigit() else (-2 if part == "~" else 0, 0, part) for part in parts]
    return [*keys, (-1, 0, "")]  # the end comes before anything but ~


def _of_entries(entries: Mapping[str, str], saved: str) -> Choice:
    """GRUB shows entries newest first, and takes the saved one where there is one of that name."""
    name = saved if saved in entries else max(entries, key=version_key)
    release, options = "", []
    for line in entries[name].splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "version":
            release = value.strip()
        elif key == "options":
            options.append(value.strip())
        elif not release and (found := _LINUX.match(line.strip())):
            release = found.group(1)
    return Choice(release, " ".join(options), name)


def _of_menu(menu: str, saved: str) -> Choice:
    rows = _rows(menu)
    told = _DEFAULT.findall(menu)
    chosen = next(
        (saved if "saved_entry" in value else value for value in reversed(told) if "next_entry" not in value), "0"
    )
    found: _Row | None = None
    for step in (chosen or "0").split(">")[:_DEEP]:
        found = _chosen(rows, step)
        if found is None:
            break
        rows = found.rows
    return _first(found if found is not None else _Row("", rows=_rows(menu)))


def _chosen(rows: list[_Row], step: str) -> _Row | None:
    if step.isdecimal() and len(step) < 6:
        return rows[int(step)] if int(step) < len(rows) else None
    return next((row for row in rows if step in (row.id, row.title)), None)


def _first(row: _Row) -> Choice:
    """The kernel of an entry, or of the first one in a submenu."""
    waiting = [row]
    while waiting:
        each = waiting.pop(0)
        if each.release:
            return Choice(each.release, each.line, each.title or each.id)
        waiting = [*each.rows, *waiting]
    return Choice("")


def _rows(menu: str) -> list[_Row]:
    """The menu as a tree. A brace that closes what is no entry (a function, an if) closes nothing of it."""
    top = _Row("")
    open_rows, braces = [top], [False]
    for line in menu.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        entry = _ENTRY.match(stripped)
        linux = _LINUX.match(stripped)
        if entry and stripped.endswith("{") and len(open_rows) < _DEEP:
            title = next((group for group in entry.groups()[1:4] if group is not None), "")
            found = _ID.search(entry.group(5))
            row = _Row(title, found.group(1) if found else "")
            open_rows[-1].rows.append(row)
            open_rows.append(row)
            braces.append(True)
        elif linux and not open_rows[-1].release and len(open_rows) > 1:
            open_rows[-1].release, open_rows[-1].line = linux.group(1), linux.group(2).strip()
        elif stripped == "}" and len(braces) > 1:
            if braces.pop():
                open_rows.pop()
        elif stripped.endswith("{"):
            braces.append(False)
    return top.rows
