"""What is installed: dpkg, rpm, ls, which, the agent's own --version and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import shown
from harness.diagnose.facts import AgentConfig, AgentVersion, Package, PathSeen
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section

MOST = 4_000

_NAMES = r"azure-proxy-agent|cloud-init|walinuxagent|WALinuxAgent|linux-image-[\w.+-]{1,80}"
_DPKG = re.compile(
    rf"^(?P<state>[uihrp][ncHUFWti])[R ]?\s+(?P<name>{_NAMES})(?::\w+)?\s+(?P<version>\S{{1,100}})", re.MULTILINE
)
_STATUS = re.compile(rf"^Package: (?P<name>{_NAMES})\s*\n(?P<rest>(?:[ \t\w-]+:[^\n]*\n){{0,12}})", re.MULTILINE)
_RPM = re.compile(
    rf"^(?P<name>{_NAMES})-(?P<version>\d[\w.+~^]{{0,60}}-[\w.+~^]{{1,60}})\.(?:x86_64|aarch64|noarch)\s*$",
    re.MULTILINE,
)
_LISTED = re.compile(
    rf"^(?P<name>{_NAMES})(?:/\S{{1,100}}|\.(?:x86_64|aarch64|noarch|amd64))\s+(?P<version>\d\S{{0,80}})\s+"
    r"[^\n]{0,120}(?:\[[^\n]{0,40}installed|@|installed)",
    re.MULTILINE,
)
_NO_PACKAGE = re.compile(
    rf"package (?P<rpm>{_NAMES}) is not installed|no packages found matching (?P<dpkg>{_NAMES})"
    rf"|package '(?P<status>{_NAMES})' is not installed",
    re.IGNORECASE,
)
_LS = re.compile(
    r"^(?P<mode>[bcdlps-][rwxsStT-]{9}[.+@]?)\s+\d{1,6}\s+(?P<owner>\S{1,40})\s+\S{1,40}\s+(?P<size>\d{1,15})\s+"
    r"(?:[A-Z][a-z]{2}\s+\d{1,2}\s+[\d:]{4,5}|\d{4}-\d\d-\d\d\s+\S+(?:\s+[+-]\d{4})?)\s+"
    r"(?P<path>/?[^\n]{1,300}?)(?: -> [^\n]{0,300})?$",
    re.MULTILINE,
)
_FOLDER = re.compile(r"^(/[^\n:]{0,300}):[ \t]*$", re.MULTILINE)
_GONE = re.compile(
    r"(?:cannot access|cannot stat|cannot open|stat:|ls:|find:|cat:|tail:|head:)[^\n'/]{0,40}['\"‘]?"
    r"(?P<path>/[^\n:'\"’]{1,300}?)['\"’]?: No such file or directory"
)
_NOT_FOUND = re.compile(
    r"(?:^|\b)(?:which: no (?P<which>[\w.-]{1,64}) in|(?:-?(?:ba|z|da|k)?sh: (?:line )?(?:\d+: )?)"
    r"(?P<sh>[\w./-]{1,64}): (?:command )?not found"
    r"|sudo: (?P<sudo>[\w./-]{1,64}): command not found|Command '(?P<apt>[\w./-]{1,64})' not found)",
    re.MULTILINE,
)
_WHICH = re.compile(
    r"^(/[\w./+-]{1,200}/(?:azure-proxy-agent|ebpf_cgroup\.o|cloud-init|waagent|grubby))[ \t]*$", re.MULTILINE
)
_ASKS_PATH = re.compile(r"^(?:sudo )?(?:which|command -v|type|whereis|ls|stat|find|test)\b")
_ASKED_WHICH = re.compile(r"^(?:sudo )?(?:which|command -v)\s+(\S+)")
_AGENT_VERSION = re.compile(
    r"\bazure-proxy-agent\b.*-version|proxyagent.*version|GuestProxyAgent.*--version", re.IGNORECASE
)
_NUMBER = re.compile(r"(?:azure-proxy-agent |Version:? )?v?(\d{1,4}(?:\.\d{1,9}){1,3})")


def read_packages(section: Section) -> Iterator[Found]:
    for match in list(_DPKG.finditer(section.text))[:MOST]:
        yield Package(section.at(match.start()), match["name"], match["version"], match["state"][1] == "i")
    for match in list(_STATUS.finditer(section.text))[:MOST]:
        version = re.search(r"^Version: (\S+)", match["rest"], re.MULTILINE)
        state = re.search(r"^Status: (.*)$", match["rest"], re.MULTILINE)
        if state:
            installed = state[1].strip().endswith(" installed")
            yield Package(section.at(match.start()), match["name"], version[1] if version else None, installed)
    for pattern in (_RPM, _LISTED):
        for match in list(pattern.finditer(section.text))[:MOST]:
            yield Package(section.at(match.start()), match["name"], match["version"])
    for match in list(_NO_PACKAGE.finditer(section.text))[:MOST]:
        yield Package(section.at(match.start()), match["rpm"] or match["dpkg"] or match["status"], None, False)


def read_paths(section: Section) -> Iterator[Found]:
    folders = [(match.start(), match[1]) for match in _FOLDER.finditer(section.text)]
    asked = re.search(r"\bls\s+(?:-\S+\s+)*(/\S+)\s*$", section.command or "")
    for match in list(_LS.finditer(section.text))[:MOST]:
        path = match["path"].strip()
        if not path.startswith("/"):
            above = [folder for at, folder in folders if at < match.start()]
            base = above[-1] if above else asked[1] if asked else None
            if base is None or path in (".", ".."):
                continue
            path = f"{base.rstrip('/')}/{path}"
        yield PathSeen(
            section.at(match.start()), shown(path, 300), True, match["mode"][:10], match["owner"], int(match["size"])
        )
    for match in list(_GONE.finditer(section.text))[:MOST]:
        yield PathSeen(section.at(match.start()), shown(match["path"], 300), False)
    for match in list(_NOT_FOUND.finditer(section.text))[:MOST]:
        name = match["which"] or match["sh"] or match["sudo"] or match["apt"]
        yield PathSeen(section.at(match.start()), name, False)
    if section.command and _ASKS_PATH.match(section.command):
        for match in list(_WHICH.finditer(section.text))[:MOST]:
            yield PathSeen(section.at(match.start()), match[1], True)
        which = _ASKED_WHICH.match(section.command)
        if which and section.ended and not section.text.strip():
            yield PathSeen(section.prompt, shown(which[1], 300), False)


def read_agent_version(section: Section) -> Iterator[Found]:
    if _AGENT_VERSION.search(section.command or section.document.rsplit("/", 1)[-1]):
        first = section.text.strip().split("\n", 1)[0].strip()
        if match := _NUMBER.fullmatch(first[:120]):
            yield AgentVersion(section.at(section.text.find(first)), match[1])


def of_config(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    values = {
        shown(str(name), 64): shown(item, 400) if isinstance(item, str) else item
        for name, item in list(value.items())[:100]
        if isinstance(item, str | int | bool)
    }
    yield AgentConfig(section.at(begin), values)
