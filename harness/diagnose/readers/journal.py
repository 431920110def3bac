"""The journal and syslog: what journalctl prints in its various forms, as text and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from harness.diagnose.decode import moment, of_epoch, shown
from harness.diagnose.facts import Identity, IdentityKind, Note, NoteKind, UnitLog
from harness.diagnose.limits import LIMITS
from harness.diagnose.readers import Found
from harness.diagnose.readers.entries import LONGEST, entries, left_out, when
from harness.diagnose.sections import Section
from harness.diagnose.values import number, text

_SINCE_BOOT = r"\[ {0,8}\d{1,9}\.\d{3,9}(?: {1,20}| <[ \d.]{1,20}>)?\]"
# behind a time since boot, a line of dmesg looks much the same (`[    0.000000] Command line: …`)
_SURE = r"[\w.-]{1,64} (?:kernel|[\w(][\w./@()-]{0,63}\[\d{1,9}\]): "
SHORT = re.compile(
    r"(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?[+-]\d\d:?\d\d"
    r"|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Z]{2,5}"
    r"|\d{9,11}\.\d{6}"
    rf"|{_SINCE_BOOT}(?= {_SURE}))"
    r" (?P<host>[\w][\w.-]{0,63}) (?P<ident>[\w(][\w./@:()+-]{0,63}?)(?:\[(?P<pid>\d{1,9})\])?: "
)
DMESG = re.compile(rf"(?P<time>\[ {{0,8}}\d{{1,9}}\.\d{{6}}\]) (?!{_SURE})")
_VERBOSE = re.compile(r"^ {4}([A-Z_][A-Z0-9_]{0,63})=(.*)$")
_EXPORT = re.compile(r"^([A-Z_][A-Z0-9_]{0,63})=(.*)$")
_STANZA = re.compile(r"^(?:__CURSOR=|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\n]{0,40} \[s=)", re.MULTILINE)
_EPOCH = re.compile(r"\d{9,11}\.\d{6}")
MOST_STANZAS = 20_000
_NO_NAMES = {"localhost", "localhost.localdomain", "(none)"}  # what a machine is called before it has its name


def _at(time: str | None) -> datetime | None:
    """short has no year, monotonic no date: no moment. A name of a zone other than UTC says too little."""
    if not time:
        return None
    if _EPOCH.fullmatch(time):
        return datetime.fromtimestamp(float(time), UTC)
    return moment(time)


def read_short(section: Section) -> Iterator[Found]:
    hosts: dict[str, int] = {}
    count = 0
    for entry in entries(section, SHORT, lambda match: match["ident"]):
        count += 1
        match = entry.match
        hosts.setdefault(match["host"], entry.line)
        yield UnitLog(
            section.source(entry.line),
            match["ident"],
            None,
            match["host"],
            int(match["pid"]) if match["pid"] else None,
            match["time"],
            _at(match["time"]),
            None,
            entry.message,
            entry.times,
            when(entry.since, _at, entry.times),
        )
    yield from _hosts(section, hosts)
    yield from left_out(section, SHORT, count)


def read_cat(section: Section) -> Iterator[Found]:
    """-o cat: messages alone; whose they are stands in the command."""
    asked = re.search(r"(?:-u|--unit)[ =]?(\S+)", section.command or "")
    rows: dict[str, tuple[int, int]] = {}
    for index, line in enumerate(section.lines):
        if line.strip():
            rows[line] = (index, rows.pop(line, (0, 0))[1] + 1)
    for line, (index, times) in list(rows.items())[-LIMITS.entries :]:
        message = shown(line, LONGEST)
        unit = asked[1] if asked else None
        yield UnitLog(section.source(index), unit, unit, None, None, None, None, None, message, times)


def read_dmesg(section: Section) -> Iterator[Found]:
    count = 0
    for entry in entries(section, DMESG, lambda match: None):
        count += 1
        yield UnitLog(
            section.source(entry.line), "kernel", None, None, None, entry.match["time"], None, None,
            entry.message, entry.times,
        )  # fmt: skip
    yield from left_out(section, DMESG, count)


def of_values(values: Sequence[tuple[Mapping[str, Any], int, int]], section: Section) -> Iterator[Found]:
    """The entries of journalctl -o json: (entry, begin, end) each; equal ones become one."""
    latest: dict[tuple[str | None, str], tuple[Mapping[str, Any], int, int, datetime | None]] = {}
    hosts: dict[str, int] = {}
    for value, begin, _ in values:
        message = _message(value.get("MESSAGE"))
        key = (text(value.get("SYSLOG_IDENTIFIER")) or text(value.get("_COMM")), message)
        before = latest.pop(key, None)
        first = before[3] if before else _stamp(value)
        latest[key] = (value, begin, before[2] + 1 if before else 1, first)
        if host := text(value.get("_HOSTNAME")):
            hosts.setdefault(host, begin)
    rows = list(latest.items())
    if len(rows) > LIMITS.entries:
        what = f"entries before the last {LIMITS.entries} different ones"
        yield Note(NoteKind.LEFT_OUT, section.document, what)
    for (identifier, message), (value, begin, times, first) in rows[-LIMITS.entries :]:
        at = _stamp(value)
        yield UnitLog(
            section.at(begin, message),
            identifier,
            text(value.get("UNIT")) or text(value.get("_SYSTEMD_UNIT")),
            text(value.get("_HOSTNAME")),
            number(value.get("_PID")) or number(value.get("SYSLOG_PID")),
            at.isoformat() if at else None,
            at,
            number(value.get("PRIORITY")),
            message,
            times,
            first if times > 1 else None,
        )
    for host, begin in list(hosts.items())[:8]:
        if host not in _NO_NAMES:
            yield Identity(section.at(begin, host), IdentityKind.HOST, host)


def _stamp(value: Mapping[str, Any]) -> datetime | None:
    stamp = value.get("__REALTIME_TIMESTAMP")
    return of_epoch(stamp if isinstance(stamp, str | int) else None)


def _message(value: object) -> str:
    """MESSAGE: a string, or an array of bytes where it is not UTF-8 or has control characters."""
    if isinstance(value, list):
        data = bytes(item for item in value[:LONGEST] if isinstance(item, int) and 0 <= item < 256)
        return shown(data.decode("utf-8", "replace"), LONGEST)
    return shown(value, LONGEST) if isinstance(value, str) else ""


def read_stanzas(section: Section) -> Iterator[Found]:
    """-o verbose and -o export: fields one a line, a stanza an entry."""
    starts = [match.start() for match in _STANZA.finditer(section.text)][-MOST_STANZAS:]
    hosts: dict[str, int] = {}
    for begin, end in zip(starts, [*starts[1:], len(section.text)], strict=False):
        fields: dict[str, str] = {}
        for line in section.text[begin : min(end, begin + LONGEST)].split("\n"):
            if match := _VERBOSE.match(line) or _EXPORT.match(line):
                fields.setdefault(match[1], match[2])
        if "MESSAGE" not in fields:
            continue
        head = section.text[begin : begin + 60]
        at = of_epoch(fields.get("__REALTIME_TIMESTAMP")) or moment(head)
        source = section.at(begin, fields["MESSAGE"])
        host = fields.get("_HOSTNAME")
        if host:
            hosts.setdefault(host, source.line - section.first)
        yield UnitLog(
            source,
            fields.get("SYSLOG_IDENTIFIER") or fields.get("_COMM"),
            fields.get("UNIT") or fields.get("_SYSTEMD_UNIT"),
            host,
            number(fields.get("_PID")),
            at.isoformat() if at else head.split(" [", 1)[0],
            at,
            number(fields.get("PRIORITY")),
            shown(fields["MESSAGE"], LONGEST),
        )
    yield from _hosts(section, hosts)


def _hosts(section: Section, hosts: Mapping[str, int]) -> Iterator[Identity]:
    for host, index in list(hosts.items())[:8]:
        if host not in _NO_NAMES:
            yield Identity(section.source(index), IdentityKind.HOST, host)
