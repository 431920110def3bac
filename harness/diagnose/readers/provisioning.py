"""Provisioning: cloud-init's version, state and reports, ovf-env.xml, and errors of the portal or an ARM deployment."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import shown
from harness.diagnose.facts import (
    CloudInitState,
    CloudInitVersion,
    Identity,
    IdentityKind,
    Note,
    NoteKind,
    OvfEnv,
    ProvisioningError,
    ProvisioningReport,
    StatusTag,
)
from harness.diagnose.limits import LIMITS
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import members, text
from harness.msp.status import MODULES

MOST = 64
LONGEST = 8_192

# `/usr/bin/cloud-init 24.1.3-0ubuntu3.3`; `Cloud-init v. 24.1.3 running 'init-local' at …`; agent=Cloud-Init/24.1.3
_VERSION = re.compile(
    r"(?:^|[\s/])cloud-init (?P<plain>\d{1,4}\.\d{1,3}(?:[.\w~+:-]{0,60}))[ \t]*$"
    r"|[Cc]loud-init v\. (?P<running>\d{1,4}\.\d{1,3}[.\w~+:-]{0,60})",
    re.MULTILINE,
)
_ALONE = re.compile(r"(?:cloud-init\s+)?v?(\d{1,4}\.\d{1,3}(?:\.\d{1,4})?(?:[-+~][\w.+~-]{0,60})?)")
_STATUS = re.compile(r"^status: (done|error|running|disabled|not run|degraded[\w ]*|not started)[ \t]*$", re.MULTILINE)
_REPORT = re.compile(r"result=(?:error|success)\|[^\n]{0,16000}")
_REPORT_END = "documentation_url="
_PART = re.compile(rf"({'|'.join(MODULES)}) - ([^\r\n]{{0,2000}}?)(?=\\n|$|\n)", re.MULTILINE)
_VM_ID = re.compile(r"[0-9a-fA-F-]{36}")
_DATA_SOURCE = re.compile(r"DataSource\w+")


def read_version(section: Section) -> Iterator[Found]:
    seen: set[str] = set()
    for match in list(_VERSION.finditer(section.text))[:MOST]:
        version = shown((match["plain"] or match["running"]).rstrip("."), 80)
        if version not in seen:
            seen.add(version)
            yield CloudInitVersion(section.at(match.start()), version)
    if not seen and re.search(r"cloud-?_?init\s+(?:--version|-v)|cloud-?_?init[-_.]*version", section.named):
        first = section.text.strip().split("\n", 1)[0].strip()
        if alone := _ALONE.fullmatch(first[:120]):
            yield CloudInitVersion(section.at(section.text.find(first)), alone[1])


def read_state(section: Section) -> Iterator[Found]:
    """cloud-init status, with or without --long."""
    for match in list(_STATUS.finditer(section.text))[:4]:
        rest = section.text[match.end() : match.end() + 4_000]
        source = _DATA_SOURCE.search(rest)
        errors = tuple(
            shown(line.strip(" -\t"), 1_000) for line in re.findall(r"^[ \t]*- (\S[^\n]*)$", rest, re.M)[:MOST]
        )
        yield CloudInitState(section.at(match.start()), match[1], source[0] if source else None, errors)


def of_state(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """result.json and status.json of cloud-init ({"v1": …}); `cloud-init status --format json`."""
    body = members(value.get("v1")) or members(value)
    errors: list[str] = []
    for part in (body, *(members(item) for item in body.values() if isinstance(item, dict))):
        found = part.get("errors")
        errors += [shown(str(item), 1_000) for item in found[:MOST]] if isinstance(found, list) else []
    status = text(body.get("status")) or ("error" if errors else None)
    yield CloudInitState(section.at(begin), status, text(body.get("datasource")) or None, tuple(errors[:MOST]))


def read_reports(section: Section) -> Iterator[Found]:
    """Reports to the platform: csv, `|` between fields, ' as the quote (cloud-init quotes what has one of the two)."""
    seen: set[str] = set()
    for match in _REPORT.finditer(section.text):
        if len(seen) >= MOST:
            return
        line = _whole_report(section.text, match)
        if line in seen:
            continue
        seen.add(line)
        fields = _fields(line)
        result = fields.get("result", "")
        source = section.at(match.start())
        yield ProvisioningReport(source, result, fields.get("reason"), fields.get("agent"), fields)
        agent = fields.get("agent", "")
        if agent.lower().startswith("cloud-init/"):
            yield CloudInitVersion(source, agent.split("/", 1)[1])
        if failures := _parts(fields):
            yield StatusTag(source, failures)
        if _VM_ID.fullmatch(fields.get("vm_id", "")):
            yield Identity(source, IdentityKind.VM, fields["vm_id"].lower())


def _parts(fields: Mapping[str, str]) -> dict[str, str]:
    """What the agent's --status printed: the same lines as status.tag has."""
    said = "\n".join(fields.get(name, "") for name in ("stdout", "stderr"))
    return {match[1]: match[2].strip() for match in _PART.finditer(said)}


def _whole_report(text: str, match: re.Match[str]) -> str:
    """The report's line, with those behind it where a mail wrapped it: a report ends with its documentation_url."""
    if _REPORT_END in match[0]:
        return match[0]
    rest = text[match.end() : match.end() + 4_000].split("\n\n", 1)[0]
    end = rest.find(_REPORT_END)
    if end < 0 or _REPORT.search(rest, 0, end):
        return match[0]
    word = re.match(r"\S{0,200}", rest[end:])
    return " ".join((match[0] + rest[: end + (word.end() if word else 0)]).split("\n"))


def _fields(line: str) -> dict[str, str]:
    begin = line[: line.find("|")]
    try:
        row = next(csv.reader([line], delimiter="|", quotechar="'"), [begin])
    except csv.Error:
        row = line.split("|")
    pairs = (field.partition("=") for field in row[:MOST])
    return {
        shown(name.strip(), 64): shown(value.strip().rstrip("'\""), LONGEST) for name, equals, value in pairs if equals
    }


# --- ovf-env.xml --------------------------------------------------------------------------------------------------

_OVF = re.compile(r"<(?:\w{1,32}:)?(?:Environment|ProvisioningSection|PlatformSettings(?:Section)?)\b")
_OVF_END = re.compile(r"</(?:\w{1,32}:)?Environment>")
_ELEMENT = r"<(?:\w{{1,32}}:)?{0}(?:\s[^>]{{0,200}})?>\s{{0,20}}([^<]{{0,200}}?)\s{{0,20}}</(?:\w{{1,32}}:)?{0}>"
_WANTED = {
    name: re.compile(_ELEMENT.format(name))
    for name in ("ProvisionGuestProxyAgent", "HostName", "ComputerName", "PreprovisionedVm")
}


def read_ovf(section: Section) -> Iterator[Found]:
    begin = section.text.find("<?xml")
    match = _OVF.search(section.text)
    if match is None and "ProvisionGuestProxyAgent" not in section.text:
        return
    start = begin if 0 <= begin < (match.start() if match else 0) else match.start() if match else 0
    end = _OVF_END.search(section.text, start)
    piece = section.text[start : end.end() if end else len(section.text)][: LIMITS.xml]
    found = _parsed(piece)
    if isinstance(found, str):
        yield Note(NoteKind.DAMAGED, section.document, found, section.at(start).line)
        found = {name: hit[1] for name, pattern in _WANTED.items() if (hit := pattern.search(piece))}
        if not found:
            return
    wanted = found.get("ProvisionGuestProxyAgent")
    at = section.text.find("ProvisionGuestProxyAgent", start)
    host = found.get("HostName") or found.get("ComputerName")
    yield OvfEnv(
        section.at(at if at >= 0 else start),
        wanted.lower() == "true" if wanted and wanted.lower() in ("true", "false") else None,
        shown(host, 200) if host else None,
        found["PreprovisionedVm"].lower() == "true" if found.get("PreprovisionedVm") else None,
    )
    if host:
        at = section.text.find(host, start)
        yield Identity(section.at(at if at >= 0 else start), IdentityKind.HOST, shown(host, 64))


def _parsed(piece: str) -> dict[str, str] | str:
    """The wanted elements' texts, or why the piece is no XML of which anything may be believed."""
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        tree = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", piece, count=1))
    except DefusedXmlException as error:
        return f"XML with entities or a document type: {type(error).__name__}; its elements were read one by one"
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        return f"no whole XML ({shown(str(error), 120)}): its elements were read one by one"
    found: dict[str, str] = {}
    for element in tree.iter():
        name = element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""
        if name in _WANTED and element.text and element.text.strip():
            found.setdefault(name, element.text.strip()[:200])
    return found


# --- errors of a deployment ---------------------------------------------------------------------------------------

_CODES = (
    r"(?:Linux\.|Windows\.)?(?:OSProvisioning\w{3,40}|VMExtension\w{3,60}|VMAgent\w{3,60}|ProxyAgent\w{0,40}(?:Error|Failure|Failed)"
    r"|InternalExecutionError|AllocationFailed|ZonalAllocationFailed|OverconstrainedAllocationRequest|SkuNotAvailable|"
    r"QuotaExceeded|OperationNotAllowed|OperationPreempted|RetryableError|NetworkingInternalOperationError|"
    r"VMStartTimedOut|VMRedeploymentFailed|OperationTimedOut|ResourceDeploymentFailure|DeploymentFailed|InvalidParameter|"
    r"FeatureNotSupported\w{0,40}|BadRequest|Conflict)"
)
_STRONG = re.compile(
    r"(?<![\w./])((?:Linux|Windows)\.OSProvisioning\w{3,40}|OSProvisioning\w{3,40}|VMExtension(?:Provisioning|Handler|Management)\w{3,50}"
    r"|VMAgentStatusCommunicationError|VMStartTimedOut|Linux\.[Cc]loud-[Ii]nit)(?![\w(])"
)
_LISTED = re.compile(
    rf"(?:^|[\s(\"'])(?:Error)?[Cc]ode[\"']?\s{{0,4}}[:=]\s{{0,4}}[\"']?(?P<code>{_CODES})\b|\((?P<az>{_CODES})\)\s",
    re.MULTILINE,
)
_MESSAGE = re.compile(r"(?:Error)?[Mm]essage[\"']?\s{0,4}[:=]\s{0,4}[\"']?([^\n]{1,6000})")
_LINUX = re.compile(
    r"(?:Linux\.)?("
    r"Cloud-[Ii]nit (?:successfully reported|failed due|reports)[^\n<|]{0,600}"
    r"|cloud-init successfully reported[^\n<|]{0,600})"
)
_OUTER = {"DeploymentFailed", "ResourceDeploymentFailure", "Conflict", "BadRequest"}


def read_errors(section: Section) -> Iterator[Found]:
    """Error codes in a text: az's and PowerShell's lines, a portal's message, a sentence in a mail."""
    seen: set[tuple[str, str]] = set()
    found: list[tuple[int, str, str]] = []
    for match in list(_LISTED.finditer(section.text))[:MOST]:
        code = match["code"] or match["az"]
        rest = section.text[match.end() : match.end() + LONGEST]
        said = _MESSAGE.search(rest) if match["code"] else None
        found.append((match.start(), code, (said[1] if said else rest.split("\n", 1)[0]).strip(" \"',}")))
    taken = {at for at, _, _ in found}
    for match in list(_STRONG.finditer(section.text))[:MOST]:
        if not any(abs(at - match.start()) < 24 for at in taken):
            found.append((match.start(), match[1], _sentence(section.text, match)))
    for match in list(_LINUX.finditer(section.text))[:MOST]:
        if not section.text[max(0, match.start() - 6) : match.start() + 1].lower().endswith(".c"):
            found.append((match.start(), "Linux.Cloud-Init", match[1].strip()))
    inner = {code for _, code, _ in found} - _OUTER
    for at, code, message in sorted(found):
        key = (code, message[:200])
        if key in seen or (code in _OUTER and inner):
            continue
        seen.add(key)
        yield ProvisioningError(section.at(at), shown(code, 120), shown(message, LONGEST) or None)


def _sentence(text: str, match: re.Match[str]) -> str:
    """The line that the code stands in; the next or the one before where the code is all there is of it."""
    begin = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    line = text[begin : end if end >= 0 else len(text)].strip()
    if line == match[0]:
        behind = text[end + 1 : end + 1 + LONGEST].strip() if end >= 0 else ""
        before = text[max(0, begin - LONGEST) : begin].strip()
        return (behind.split("\n", 1)[0] if behind else before.rsplit("\n", 1)[-1]) or line
    return line[:LONGEST]


def is_error(value: object) -> bool:
    plain = members(value)
    inner = members(plain.get("error")) or plain
    return isinstance(inner.get("code"), str) and ("message" in inner or "details" in inner) and "vmid" not in inner


def of_error(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """ARM's error: code, message, details, innererror; a message may be JSON with the same again."""
    rows: list[tuple[str, str, str | None]] = []
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting and len(rows) < MOST:
        item, depth = waiting.pop(0)
        if depth > 12:
            continue
        if isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item[:MOST]]
            continue
        plain = members(item)
        for name in ("error", "details", "innererror", "statusmessage", "properties"):
            if isinstance(plain.get(name), dict | list):
                waiting.append((plain[name], depth + 1))
        message = plain.get("message")
        if isinstance(plain.get("code"), str):
            inner = _nested(message) or _nested(plain.get("statusmessage"))
            if inner is not None:
                waiting.append((inner, depth + 1))
            shown_message = "" if inner is not None else text(message) or ""
            rows.append((text(plain["code"]) or "", shown_message[:LONGEST], text(plain.get("target"))))
    inner_codes = [row for row in rows if row[0] not in _OUTER and row[1]]
    for code, message, target in inner_codes or rows:
        at = section.text.find(code, begin, end)
        yield ProvisioningError(section.at(at if at >= 0 else begin), code, message or None, target)


def _nested(message: object) -> object:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        return json.loads(message, strict=False)
    except (ValueError, RecursionError):
        return None
