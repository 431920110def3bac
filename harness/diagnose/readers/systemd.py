"""systemctl: status, show, list-units, is-active and is-enabled; and unit files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from harness.diagnose.decode import moment, shown
from harness.diagnose.facts import Note, NoteKind, PathSeen, UnitFile, UnitState
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import number

MOST = 2_000

_UNIT = r"[\w@:.\\-]{1,200}\.(?:service|socket|target|mount|timer|slice|path|scope)"
_HEAD = re.compile(rf"^[ \t]{{0,8}}(?:[●○×↻*•?x]|�|â\S{{0,3}})\s{{1,2}}(?P<name>{_UNIT})(?: - [^\n]*)?$", re.MULTILINE)
_LOADED = re.compile(r"^\s{0,20}Loaded: (?P<load>[\w-]+)(?: \((?P<rest>[^\n)]{0,300}(?:\.\.\.)?)\)?)?", re.MULTILINE)
_ACTIVE = re.compile(
    r"^\s{0,20}Active: (?P<active>[\w-]+)(?: \((?P<sub>[\w-]+)\)| \(Result: (?P<plain>[\w-]+)\))?"
    r"(?: \(Result: (?P<result>[\w-]+)\))?(?: since (?P<since>[^;\n]{0,60}))?",
    re.MULTILINE,
)
_MAIN = re.compile(
    r"^\s{0,20}(?:Main PID|Process): (?P<pid>\d{1,9})"
    r"(?: \((?P<in>[^\n]{0,300})\)| (?P<start>Exec\w+)=(?P<path>\S+)[^\n]*"
    r"\((?P<how>[^\n()]{0,100})\))",
    re.MULTILINE,
)
_WRAPPED = re.compile(r"(\S)[ \t]{0,8}\n(?=[^\s●○×└├│|`])(?!(?:[A-Z][A-Za-z]{1,12}|Main PID): )")
_ENDED = re.compile(r"code=(\w+)(?:, (?:status|signal)=([^\s,)]{1,40}))?")
_RUNS = re.compile(r"(?:[└├]─|[`|]-)\s{0,2}(\d{1,9}) (\S{1,400})")
_NOT_FOUND = re.compile(rf"Unit ({_UNIT}|[\w@:.-]{{1,100}}) (?:could not be found|not found|does not exist)\b")
_NO_FILES = re.compile(
    rf"^(?:No files found for (?P<none>\S{{1,200}}?)\.?|# Unit (?P<masked>{_UNIT}) is masked\.)$", re.M
)
_NOT_BOOTED = re.compile(r"System has not been booted with systemd|Failed to connect to bus: ")
_FAILED_GET = re.compile(r"Failed to get unit file state for (\S{1,200}?): No such file or directory")
_SHOW = re.compile(
    r"^(Id|LoadState|ActiveState|SubState|UnitFileState|FragmentPath|MainPID|ExecMainPID|ExecMainCode|ExecMainStatus|"
    r"Result|ActiveEnterTimestamp|ExecStart)=(.*)$",
    re.MULTILINE,
)
_LISTED = re.compile(
    rf"^[ \t]{{0,4}}(?:[●○×*]\s)?\s{{0,2}}(?P<name>{_UNIT})\s+(?P<load>loaded|not-found|masked|error|bad-setting)\s+"
    r"(?P<active>active|inactive|failed|activating|deactivating|reloading)\s+(?P<sub>[\w-]+)\b",
    re.MULTILINE,
)
_FILES = re.compile(
    rf"^[ \t]{{0,4}}(?P<name>{_UNIT})\s+(?P<state>enabled|disabled|static|masked|indirect|generated|alias|"
    r"enabled-runtime|linked|transient|bad)(?:\s+(?:enabled|disabled|ignored|-))?\s*$",
    re.MULTILINE,
)
_ASKED = re.compile(
    r"\bsystemctl\s+(?:-\S+\s+)*(?P<verb>is-active|is-enabled|is-failed|status|show|cat)\s+(?:-\S+\s+)*(?P<name>\S+)"
)
_WORD = re.compile(r"[a-z][a-z-]{2,20}")
_UNIT_FILE = re.compile(r"^\[(?:Unit|Service|Install)\]\s*$", re.MULTILINE)
_SETTING = re.compile(r"^(ExecStart|Before|After|WantedBy|Alias)=(.*)$", re.MULTILINE)
_FILE_NAME = re.compile(r"^#\s(/\S{1,300}\.service)\s*$", re.MULTILINE)
_CODES = {"1": "exited", "2": "killed", "3": "dumped"}  # CLD_EXITED …, as systemctl show prints ExecMainCode


def full(name: str) -> str:
    """systemctl takes a name without its type for a service."""
    return name if re.search(r"\.(?:service|socket|target|mount|timer|slice|path|scope)$", name) else name + ".service"


def read_status(section: Section) -> Iterator[Found]:
    text = section.text
    heads = list(_HEAD.finditer(text))[:MOST]
    starts = [(match.start(), match["name"]) for match in heads]
    if not starts and (loaded := _LOADED.search(text)) and _ACTIVE.search(text):
        asked = _ASKED.search(section.command or "")  # its head was cut off
        name = asked["name"] if asked else _name_of(text[loaded.start() : loaded.start() + 400])
        if name:
            starts = [(loaded.start(), full(name))]
    for (begin, name), end in zip(starts, [*(start for start, _ in starts[1:]), len(text)], strict=False):
        yield from _status(section, begin, end, name)
    for match in _NOT_FOUND.finditer(text):
        yield UnitState(section.at(match.start()), full(match[1]), load="not-found", active="inactive", sub="dead")
    for match in _NO_FILES.finditer(text):
        load = "masked" if match["masked"] else "not-found"
        yield UnitState(section.at(match.start()), full(match["masked"] or match["none"]), load=load)
    if asked_nobody := _NOT_BOOTED.search(text):
        what = "systemctl had no systemd to ask: it ran in a container, or in a machine with another init"
        yield Note(NoteKind.NOT_UNDERSTOOD, section.document, what, section.at(asked_nobody.start()).line)
    for match in _FAILED_GET.finditer(text):
        yield UnitState(section.at(match.start()), full(match[1]), load="not-found")


def _name_of(text: str) -> str | None:
    found = re.search(rf"/({_UNIT})", text)
    return found[1] if found else None


def _status(section: Section, begin: int, end: int, name: str) -> Iterator[Found]:
    text = _joined(section.text[begin : min(end, begin + 4_000)])
    loaded, active = _LOADED.search(text), _ACTIVE.search(text)
    if not loaded and not active:
        return
    rest = (loaded["rest"] or "").split(";") if loaded else []
    since = active["since"] if active else None
    pid, code, status, path = _main(text)
    runs = _RUNS.search(text)
    word = section.text.find("Active: " if active else "Loaded: ", begin, end)
    yield UnitState(
        section.at(max(word, begin)),
        name,
        loaded["load"] if loaded else None,
        _enabled(rest),
        active["active"] if active else None,
        (active["sub"] or None) if active else None,
        rest[0].strip() if rest and rest[0].startswith("/") else None,
        pid,
        (runs[2] if runs else None) or path,
        code,
        status,
        (active["result"] or active["plain"]) if active else None,
        since.strip() if since else None,
        moment(since),
    )


def _joined(text: str) -> str:
    """The part before the log, with lines joined that a mail wrapped: systemctl itself indents all but the first."""
    head, blank, log = text.partition("\n\n")
    return _WRAPPED.sub(lambda match: match[1] if match[1] == "-" else match[1] + " ", head) + blank + log


def _enabled(rest: list[str]) -> str | None:
    for word in (part.strip() for part in rest[1:2]):
        return word if _WORD.fullmatch(word) else None
    return None


def _main(text: str) -> tuple[int | None, str | None, str | None, str | None]:
    """(pid, code, status, path) of the main process, else of the process that ended last."""
    found: tuple[int | None, str | None, str | None, str | None] = (None, None, None, None)
    for match in _MAIN.finditer(text):
        ended = _ENDED.search(match["in"] or match["how"] or "")
        main = match[0].lstrip().startswith("Main")
        row = (int(match["pid"]), ended[1] if ended else None, ended[2] if ended else None, match["path"])
        if main:
            return (*row[:3], row[3] or found[3])
        if ended:
            found = row
    return found


def read_show(section: Section) -> Iterator[Found]:
    """systemctl show: Name=value, units apart by an empty line."""
    fields: dict[str, str] = {}
    begin = 0
    for match in _SHOW.finditer(section.text):
        if match[1] in fields and match[1] != "ExecStart":
            yield from _shown(section, begin, fields)
            fields = {}
        if not fields:
            begin = match.start()
        fields[match[1]] = match[2].strip()
    yield from _shown(section, begin, fields)


def _shown(section: Section, begin: int, fields: Mapping[str, str]) -> Iterator[UnitState]:
    asked = _ASKED.search(section.command or "")
    name = fields.get("Id") or (asked["name"] if asked else None)
    if not name or not fields.keys() & {"LoadState", "ActiveState", "SubState"}:
        return
    path = re.search(r"path=(\S{1,400})", fields.get("ExecStart", ""))
    status = fields.get("ExecMainStatus")
    since = fields.get("ActiveEnterTimestamp")
    yield UnitState(
        section.at(begin),
        full(shown(name, 200)),
        fields.get("LoadState"),
        fields.get("UnitFileState") or None,
        fields.get("ActiveState"),
        fields.get("SubState"),
        fields.get("FragmentPath") or None,
        number(fields.get("MainPID")) or None,
        path[1] if path else None,
        _CODES.get(fields.get("ExecMainCode", "")),
        status,
        fields.get("Result"),
        since or None,
        moment(since),
    )


def read_lists(section: Section) -> Iterator[Found]:
    """list-units and list-unit-files."""
    for count, match in enumerate(_LISTED.finditer(section.text)):
        if count >= MOST:
            return
        yield UnitState(
            section.at(match.start("name")), match["name"], match["load"], None, match["active"], match["sub"]
        )
    for count, match in enumerate(_FILES.finditer(section.text)):
        if count >= MOST:
            return
        yield UnitState(section.at(match.start("name")), match["name"], enabled=match["state"])


def read_asked(section: Section) -> Iterator[Found]:
    """is-active and is-enabled: a word, whose meaning is in the command."""
    asked = _ASKED.search(section.command or "")
    word = section.text.strip().split("\n", 1)[0].strip()
    if not asked or not _WORD.fullmatch(word):
        return
    name, source = full(asked["name"]), section.source(0, word)
    if asked["verb"] in ("is-active", "is-failed"):
        yield UnitState(source, name, active=word)
    elif asked["verb"] == "is-enabled":
        yield UnitState(source, name, load="not-found" if word == "not-found" else None, enabled=word)


def read_file(section: Section) -> Iterator[Found]:
    """A unit's file: the document, or what systemctl cat prints."""
    if not _UNIT_FILE.search(section.text):
        return
    settings: dict[str, list[str]] = {}
    first = None
    for match in _SETTING.finditer(section.text[: 1 << 16]):
        first = first or match
        settings.setdefault(match[1], []).append(match[2].strip())
    named = _FILE_NAME.search(section.text)
    said = re.search(r"(\S{1,300}\.service)\b", section.command or section.document)
    path = named[1] if named else said[1] if said else None
    if first is None or not settings.get("ExecStart"):
        return
    words = {name: tuple(" ".join(values).split()) for name, values in settings.items()}
    name = path.rsplit("/", 1)[-1] if path else None
    yield UnitFile(
        section.at(first.start()),
        name,
        path,
        tuple(settings["ExecStart"]),
        words.get("Before", ()),
        words.get("After", ()),
        words.get("WantedBy", ()),
    )
    if path and path.startswith("/"):
        yield PathSeen(section.at(first.start()), path, True)
