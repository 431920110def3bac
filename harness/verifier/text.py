"""From whatever a user pastes to clean lines: escapes, quoting, prefixes and mail's wrapping undone.

Every step is one pass over the text. Nothing here raises on any str or bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.msp.paste import decode, plain, unescape_once

_MAX_ROUNDS = 2  # a log inside JSON inside JSON

# Where a verifier log has a line break: before an instruction, a source line or the statistics.
_ESCAPED_BREAK = re.compile(r"(?<!\\)\\{1,4}[nr](?=\s?\d{1,7}: ?\(|; |processed \d|R\d|func#\d|last_idx \d|from \d)")
_REAL_BREAK = re.compile(r"[\r\n](?=\s?\d{1,7}: ?\(|; |processed \d|R\d|func#\d|last_idx \d|from \d)")
_LINE_END = re.compile(r"\r\n?|\n")

_STAMP = (
    r"(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?Z| ?[+-]\d\d:?\d\d| UTC)?"  # ISO 8601, the agent's log
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?)"  # syslog, journalctl
)
_HOST = r"(?: [\w.-]{1,64}(?: [\w./@-]{1,64}(?:\[\d{1,8}\])?)?:(?= ))?"  # ` host unit[123]:`
_TAGS = r"(?: ?\[[^\[\]\n]{1,48}\]| (?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|Error|Info|Warn))*"
_PREFIX = re.compile(rf"(?:<\d{{1,3}}>)?(?:{_STAMP}{_HOST}{_TAGS} ?-? ?|\[ {{0,8}}\d{{1,8}}\.\d{{1,9}}\] )")
_QUOTE = re.compile(r"(?:> ?|\| ){1,8}")
_DECORATED = re.compile(r"^(?:> |>>|\| )", re.MULTILINE)
_STAMPED = re.compile(rf"^(?:> ?){{0,8}}(?:<\d{{1,3}}>)?(?:{_STAMP}|\[ {{0,8}}\d{{1,8}}\.\d{{1,9}}\] )", re.MULTILINE)

# A line that begins something of its own, so that it cannot be the rest of the line before.
_BEGINS = re.compile(
    r"\s*(?:\d+: ?\(|\d+: (?:frame\d+: )?[Rf]|; ?|processed \d|from \d+ to \d|func#\d|last_idx \d|regs=|mark_precise:|"
    r"parent |libbpf:|bpf: |verification time|stack depth|max_states|Verification failed:|"
    r"[A-Z][a-z]+(?: [a-z]+)?:$|\[\d+\]|"
    r"(?:R\d+ [!a-z]|invalid |unknown |unreachable |math between|cannot |program |helper |kernel |dereference |"
    r"infinite |back-edge|jump |last insn|The sequence|BPF program|combined |unsupported |misaligned |Unreleased|"
    r"At program|At callback|same insn|attempt |reference |calling |kfunc |arg#|btf |BTF ))"
)
_WRAP_MIN, _WRAP_MAX = 60, 80


def unescape(text: str) -> str:
    r"""Undo JSON's escapes where they, and not real line ends, are what separates the lines (once or twice).

    A source line may hold a `\n` of its own (`bpf_printk("x\n")`), so the breaks before what only a verifier log has
    are counted, and the escaped ones must be the majority.
    """
    for _ in range(_MAX_ROUNDS):
        if "\\" not in text:
            break
        escaped = sum(1 for _ in _ESCAPED_BREAK.finditer(text))
        if not escaped or escaped <= sum(1 for _ in _REAL_BREAK.finditer(text)):
            break
        text = unescape_once(text)
    return text


def _undecorated(lines: list[str], text: str) -> list[str]:
    if _DECORATED.search(text):
        lines = [_QUOTE.sub("", line, count=1) if line[:1] in ">|" else line for line in lines]
    if _STAMPED.search(text):
        lines = [line[match.end() :] if (match := _PREFIX.match(line)) else line for line in lines]
    return lines


def _width(lines: Sequence[str]) -> int:
    """The column at which a mail client wrapped, or 0: no line is longer than 80, and some come near."""
    longest = max(map(len, lines), default=0)
    return longest if _WRAP_MIN <= longest <= _WRAP_MAX else 0


def _unwrapped(lines: list[str]) -> list[str]:
    """Join a line to the one before when its first word had no room there and it begins nothing of its own."""
    width = _width(lines)
    if not width:
        return lines
    joined: list[str] = []
    pieces: list[str] = []  # of the line being put together, so that joining stays linear
    room = 0  # left in the physical line before, when it was wrapped
    for line in lines:
        stripped = line.strip()
        first = len(stripped.split(None, 1)[0]) if stripped else 0
        if pieces and first and room <= first and not _BEGINS.match(line):
            pieces.append(stripped)
        else:
            if pieces:
                joined.append(" ".join(pieces))
            pieces = [line.rstrip()]
        room = width - len(line.rstrip())
    if pieces:
        joined.append(" ".join(pieces))
    return joined


def clean_lines(data: str | bytes) -> list[str]:
    """The lines of a log, without what was put in and around it on the way. The last is '' if the text ended a line."""
    text = unescape(plain(decode(data)))
    lines = _LINE_END.split(text)
    return _unwrapped(_undecorated(lines, text))
