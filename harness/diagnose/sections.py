"""A text as sections: mail's quoting undone, and what each command behind a prompt printed set apart.

A text without prompts is one section. Lines keep their numbers.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

from harness.diagnose.decode import quoted
from harness.diagnose.facts import Source

MOST_SECTIONS = 2_000
_NEAR = 1 << 14  # characters that are counted again rather than indexed

_QUOTE = re.compile(r"^(?:> ?){1,8}", re.MULTILINE)
_QUOTED = re.compile(r"^> ?.*\n> ?", re.MULTILINE)

COMMANDS = (
    "apt apt-cache azure-proxy-agent az bpftool cat cloud-init command curl cut date df dmesg dnf dpkg dpkg-query echo "
    "egrep find findmnt get-azvm get-azvmss get-ciminstance get-content get-eventlog get-service get-winevent grep "
    "grubby head hostname hostnamectl journalctl less ls lsb_release lsinitrd mount more netsh ps readlink reg rpm sc "
    "sc.exe service ss stat strings sysctl systemctl systeminfo systemd-cgls tail tdnf test timedatectl type uname "
    "uptime ver waagent wevtutil whereis which who whoami yum zcat zgrep zypper"
)
_COMMAND = (
    r"(?:sudo\s+(?:-\w+\s+)*)?(?:(?:/\w+)*/s?bin/)?(?:" + "|".join(re.escape(word) for word in COMMANDS.split()) + r")"
    r"(?=[\s;|]|$)[^\n]{0,400}"
)
_PATH = r"(?:/(?:etc|proc|sys|var|usr|run|lib|boot)/[^\s:]{1,200}|[A-Za-z]:\\[^\n:*?<>|]{1,200})"
_PROMPT = re.compile(
    rf"""^[ \t]{{0,8}}(?:
      (?:\([\w.-]{{1,32}}\)[ ])?\[?(?P<user>[\w.-]{{1,64}})@(?P<host>[\w.-]{{1,64}})[:\ ][^\n$\#>]{{0,100}}[$\#>]
        [ \t]{{0,2}}(?P<any>[^\n]{{0,400}})$
    | PS[ ][A-Za-z]:\\[^\n>]{{0,200}}>[ ]?(?P<power>[^\n]{{0,400}})$
    | [A-Za-z]:\\[^\n>]{{0,200}}>(?P<dos>[^\n]{{0,400}})$
    | [$\#>%][ \t]{{0,2}}(?P<bare>{_COMMAND})$
    | \+[ ](?P<traced>{_COMMAND})$
    | [$\#](?P<nothing>)[ \t]*$
    | ==>\s(?P<tail>[^\n]{{1,300}}?)\s<==$
    | (?:[=*-]{{2,}}|[=\#]{{1,40}}\s)\s*`?(?P<headed>{_COMMAND}|{_PATH})`?\s*:?\s*[=\#*-]*$
    | (?P<exit>\[exit\s-?\d{{1,5}}\])$
    )""",
    re.MULTILINE | re.VERBOSE | re.IGNORECASE,
)
_MAY_PROMPT = re.compile(r"^[ \t]{0,8}(?:[$#>%+*=\[(-]|\w[\w.-]{0,63}@|PS [A-Za-z]:|[A-Za-z]:\\)", re.MULTILINE)


class Section:
    """Some lines of a document, with the command that printed them where that is known."""

    def __init__(
        self,
        document: str,
        text: str,
        first: int = 1,
        command: str | None = None,
        host: str | None = None,
        *,
        pinned: bool = False,
    ):
        self.document = document
        self.text = text
        self.first = first  # number of its first line in the document
        self.command = command
        self.host = host  # that the prompt names
        self.pinned = pinned  # it was unescaped from a string: all of it stands in the line `first`
        self.ended = False  # another prompt stands behind it: an empty output is one

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def named(self) -> str:
        """The command or else the document's name, in lower case: what the text is said to be."""
        return (self.command or self.document.rsplit("/", 1)[-1]).lower()

    def source(self, index: int, quote: str | None = None) -> Source:
        """The source of lines[index]."""
        lines = self.lines
        text = quote if quote is not None else lines[index] if index < len(lines) else ""
        return Source(self.document, self.first + (0 if self.pinned else index), quoted(text))

    @cached_property
    def _ends(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self.text)]

    def _number(self, position: int) -> int:
        """How many line ends stand before a position."""
        if position < _NEAR:
            return self.text.count("\n", 0, position)
        return bisect_left(self._ends, position)

    @property
    def prompt(self) -> Source:
        """The source of the command: the line before the first, where it stands in lines of its own."""
        line = self.first if self.pinned or not self.command else max(1, self.first - 1)
        return Source(self.document, line, quoted(self.command or "(empty)"))

    def at(self, position: int, quote: str | None = None) -> Source:
        """The source of a position in text."""
        number = 0 if self.pinned else self._number(position)
        if quote is None:
            begin = self.text.rfind("\n", 0, position) + 1
            quote = self.text[begin : begin + 1000].split("\n", 1)[0]
        return Source(self.document, self.first + number, quoted(quote))

    def part(self, begin: int, end: int) -> Section:
        """The same document's text from begin to end."""
        before = 0 if self.pinned else self._number(begin)
        return Section(self.document, self.text[begin:end], self.first + before, self.command, pinned=self.pinned)

    def with_text(self, text: str) -> Section:
        """The same place with another text of as many lines."""
        section = Section(self.document, text, self.first, self.command, self.host, pinned=self.pinned)
        section.ended = self.ended
        return section


def split(document: str, text: str, first: int = 1, *, pinned: bool = False) -> list[Section]:
    """The sections of a document's text (as decode.text_of gives it), whose first line has the number `first`.

    pinned: the text is one that stood in a string in that line.
    """
    if "> " in text[: 1 << 20] and _QUOTED.search(text):
        text = _QUOTE.sub("", text)
    if not _MAY_PROMPT.search(text):
        return [Section(document, text, first, pinned=pinned)]
    return list(_sections(document, text, first, pinned)) or [Section(document, text, first, pinned=pinned)]


def _sections(document: str, text: str, first: int, pinned: bool) -> Iterator[Section]:
    begin, number, open_section = 0, first, Section(document, "", first, pinned=pinned)
    for count, match in enumerate(_PROMPT.finditer(text)):
        if count >= MOST_SECTIONS:
            break
        yield from _closed(open_section, text[begin : match.start()], ended=open_section.command is not None)
        number += 0 if pinned else text.count("\n", begin, match.end()) + 1
        begin = min(match.end() + 1, len(text))
        open_section = Section(document, "", number, _command(match), match["host"], pinned=pinned)
    yield from _closed(open_section, text[begin:], ended=False)


def _closed(section: Section, text: str, *, ended: bool) -> Iterator[Section]:
    section.text, section.ended = text, ended
    if text.strip() or section.command:
        yield section


def _command(match: re.Match[str]) -> str | None:
    if match["tail"]:
        return "cat " + match["tail"]
    found = next((match[name] for name in ("any", "power", "dos", "bare", "traced", "headed") if match[name]), None)
    if not found or not found.strip():
        return None
    found = found.strip().rstrip("`").strip()
    return "cat " + found if match["headed"] and re.match(_PATH, found) else found
