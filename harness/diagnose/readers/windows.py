"""Windows: services (sc query, queryex, qc, Get-Service), its version. Numbers decide: sc's labels are in the language
of the system, the order of its lines and their numbers are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.diagnose.facts import Identity, IdentityKind, OsRelease, WindowsService
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section

MOST = 5_000

_LABEL = r"[^\s:：0-9][^:：\n]{0,40}"
_COLON = r"[:：][ \t]{0,20}"
# `SERVICE_NAME: eBPFCore`, `DIENSTNAME: eBPFCore`, `NOM_SERVICE : eBPFCore`; then `TYPE : 1  KERNEL_DRIVER`
_SERVICE = re.compile(
    rf"^[ \t]{{0,8}}{_LABEL}{_COLON}(?P<name>[\w.$()-]{{1,80}})[ \t]{{0,40}}\n"
    # the display name, where all are listed
    rf"(?:[ \t]{{0,8}}{_LABEL}[:：](?![ \t]{{0,20}}[0-9a-f]{{1,4}}[ \t]{{1,4}}[A-Z])[^\n]{{0,300}}\n)?"
    rf"(?P<type>[ \t]{{0,16}}{_LABEL}{_COLON}(?P<kind>[0-9a-f]{{1,4}})[ \t]{{1,4}}"
    r"[A-Z][A-Z0-9_]{2,40}[^\n]{0,80})\n",
    re.MULTILINE,
)
_NUMBERED = re.compile(
    rf"^[ \t]{{0,16}}(?P<label>{_LABEL}){_COLON}(?P<value>(?:0x)?[0-9a-f]+)\b(?P<rest>[^\n]*)$", re.IGNORECASE
)
_HEX = re.compile(r"[ \t]*\(0x[0-9a-f]+\)", re.IGNORECASE)
_STATE = re.compile(r"[ \t]+[A-Z][A-Z_]+")
_PATH = re.compile(
    rf"^[ \t]{{0,16}}{_LABEL}{_COLON}"
    r"(?P<path>(?:\\\?\?\\|\\SystemRoot\\|system32\\|\"?[A-Za-z]:\\)[^\n]{1,300})$",
    re.I,
)
_FAILED = re.compile(
    r"(?:EnumQueryServicesStatus:)?(?:OpenService|QueryServiceConfig|OpenSCManager|GetServiceKeyName|ControlService|"
    r"StartService)[:\s]?[^\d\n]{0,60}?\b(\d{1,5})\b",
    re.IGNORECASE,
)  # `[SC] EnumQueryServicesStatus:OpenService FAILED 1060:`
_ASKED = re.compile(
    r"\bsc(?:\.exe)?\s+(?:\\\\\S+\s+)?(?:query|queryex|qc|start|stop)\s+\"?([\w.-]{1,80})\"?\s*$", re.IGNORECASE
)
_GET = re.compile(
    r"^[ \t]{0,4}(Running|Stopped|StartPending|StopPending|Paused|PausePending|ContinuePending)"
    r"[ ]{1,8}([\w.$-]{1,80})\s",
    re.M,
)
_GET_STATES = {"Stopped": 1, "StartPending": 2, "StopPending": 3, "Running": 4, "ContinuePending": 5, "PausePending": 6,
               "Paused": 7}  # fmt: skip
_GET_LIST = re.compile(
    r"^Name\s{1,30}: (?P<name>[\w.$-]{1,80})[ \t]{0,40}\n(?:(?!Name\s)[^\n]{0,200}\n){0,6}?"
    r"Status\s{1,30}: (?P<state>[A-Z][A-Za-z]{5,20})",
    re.M,
)
_NO_GET = re.compile(r"Cannot find any service with service name '([^'\n]{1,80})'|NoServiceFoundForGivenName")
_VERSION = re.compile(r"(?:Microsoft Windows \[\D{0,12}|^OS Version:\s+|^BuildNumber\s*:\s*)(\d+(?:\.\d+){0,3})", re.M)
_PRODUCT = re.compile(r"^(?:OS Name|Caption|WindowsProductName|ProductName)\s*:\s*(\S[^\n]{2,80})$", re.MULTILINE)
_HOST = re.compile(r"^(?:Host Name|CsName|CSName|PSComputerName)\s*:\s*([\w-]{1,64})\s*$", re.MULTILINE)


def read_services(section: Section) -> Iterator[Found]:
    found = list(_SERVICE.finditer(section.text))[:MOST]
    ends = [match.start() for match in found[1:]] + [len(section.text)]
    for match, end in zip(found, ends, strict=False):
        yield from _service(section, match, end)
    if not found:
        yield from _without_head(section)
    yield from _missing(section)
    for match in _GET.finditer(section.text):
        yield WindowsService(section.at(match.start()), match[2], state=_GET_STATES[match[1]])
    for match in _GET_LIST.finditer(section.text):
        if match["state"] in _GET_STATES:
            yield WindowsService(section.at(match.start("state")), match["name"], state=_GET_STATES[match["state"]])


def _service(section: Section, match: re.Match[str], end: int) -> Iterator[Found]:
    yield _numbers(section, match["name"].strip(), int(match["kind"], 16), match.start("type"), match.end(), end)


def _without_head(section: Section) -> Iterator[Found]:
    """A paste that begins below the name: the name is in the command, where there is one."""
    asked = _ASKED.search(section.command or "")
    first = re.search(
        rf"^[ \t]{{0,16}}{_LABEL}{_COLON}([0-9a-f]{{1,4}})[ \t]{{1,4}}"
        r"(?:KERNEL_DRIVER|WIN32|FILE_SYSTEM_DRIVER|USER_)[^\n]*$", section.text, re.M
    )  # fmt: skip
    if asked and first:
        yield _numbers(section, asked[1], int(first[1], 16), first.start(), first.end(), len(section.text))


def _numbers(section: Section, name: str, kind: int, at: int, begin: int, end: int) -> WindowsService:
    """The numbers below the type, by their form: the state has a word behind it, exit codes a number in hexadecimal."""
    state = start = pid = None
    exits: list[int] = []
    path = None
    where = at
    for line in section.text[begin : min(end, begin + 3_000)].split("\n"):
        match = _NUMBERED.match(line)
        if match is None:
            path = path or (found["path"].strip() if (found := _PATH.match(line)) else None)
            begin += len(line) + 1
            if not line.strip() and (state is not None or start is not None):
                break
            continue
        value, rest = match["value"], match["rest"]
        if _HEX.match(rest):
            exits.append(int(value))
        elif value.lower().startswith("0x"):
            pass  # checkpoint and wait hint
        elif _STATE.match(rest) and value.isdigit():
            if "_START" in rest or "DISABLED" in rest:
                start = int(value)
            elif (
                state is None
                and 1 <= int(value) <= 7
                and not rest.strip().startswith(("NORMAL", "IGNORE", "SEVERE", "CRITICAL"))
            ):
                state, where = int(value), begin
        elif exits and pid is None and value.isdigit() and not rest.strip():
            pid = int(value)  # the one number that stands alone
        begin += len(line) + 1
    return WindowsService(
        section.at(where),
        name,
        True,
        state,
        kind,
        exits[0] if exits else None,
        exits[1] if len(exits) > 1 else None,
        pid,
        start,
        path,
    )


def _missing(section: Section) -> Iterator[Found]:
    """What sc prints where it fails; the number is the error, the name is in the command alone."""
    asked = _ASKED.search(section.command or "")
    match = _FAILED.search(section.text)
    if match:
        name = asked[1] if asked else ""
        number = int(match[1])
        if name or number == 1060:
            yield WindowsService(section.at(match.start()), name, exists=number != 1060, error=number)
    for match in _NO_GET.finditer(section.text):
        if match[1]:
            yield WindowsService(section.at(match.start()), match[1], exists=False, error=1060)


def read_version(section: Section) -> Iterator[Found]:
    """ver, systeminfo, Get-ComputerInfo."""
    version, product = _VERSION.search(section.text), _PRODUCT.search(section.text)
    if version or (product and "Windows" in product[1]):
        fields = {"ID": "windows"}
        if product:
            fields["NAME"] = fields["PRETTY_NAME"] = product[1].strip()
        if version:
            fields["VERSION_ID"] = version[1]
        first = version or product
        yield OsRelease(section.at(first.start() if first else 0), fields)
        if host := _HOST.search(section.text):
            yield Identity(section.at(host.start()), IdentityKind.HOST, host[1])
