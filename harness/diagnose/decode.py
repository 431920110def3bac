"""From bytes to text that is safe to show, and from a log's stamp to a moment. Nothing here raises."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from harness.msp.paste import plain

LONGEST_QUOTE = 400  # characters of a quoted line
LONGEST_TEXT = 1 << 20  # characters of one text in a fact

_CONTROLS = bytes(code for code in range(32) if code not in (9, 10, 13)) + b"\x7f"
_BINARY = bytes(code for code in range(1, 32) if code not in (8, 9, 10, 12, 13, 27)) + b"\x7f"
_COLOUR = re.compile(r"\x1b\[[0-9;:?]{0,32}[A-Za-z]|\x1b\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\)|\x1b[()][A-Za-z0-9]")
# C0 but tab and line end, DEL, C1, what turns the direction of a text, line and paragraph separators, halves of pairs
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text with whatever could drive a terminal written out (`\\x1b`), cut to a length."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, text)


def quoted(line: str) -> str:
    """A line as a Source quotes it: one line, without blanks around it."""
    return shown(line.strip().replace("\n", " "), LONGEST_QUOTE)


def name_of(name: str) -> str:
    """A document's name as it is shown: one line of bounded length, every byte of it visible."""
    name = name.replace("\\", "/") if "/" not in name and ":" not in name else name
    clean = _UNSAFE.sub(_visible, name.replace("\n", "\\n").replace("\t", "\\t"))
    return clean if len(clean) <= 240 else clean[:120] + "…" + clean[-119:]


def text_of(data: bytes) -> str | None:
    """The text of a document; None when it is binary.

    UTF-8 or UTF-16, with or without a byte order mark; line ends as \\n; typographic quotes as ASCII; colours gone,
    other control characters written out, so that no reader meets one.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    elif wide := _wide(data[:4096]):
        text = data.decode(wide, "replace")
    else:
        if b"\0" in data:  # a file that was preallocated, or has holes
            data = data.replace(b"\0", b"")
        if _is_binary(data):
            return None
        text = data.decode("utf-8", "replace")
        if len(data) > 64 and text.count("\ufffd") * 4 > len(text):
            return None
        if len(data.translate(None, _CONTROLS)) == len(data) and text.isascii():
            return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    return clean(text)


def clean(text: str) -> str:
    """A text as readers take it: see text_of."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = plain(text)
    return _UNSAFE.sub(_visible, text) if _UNSAFE.search(text) else text


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: of ASCII text, every other byte is 0."""
    if len(head) < 8 or b"\0" not in head:
        return None
    even, odd, half = head[0::2].count(0), head[1::2].count(0), len(head) / 2
    if odd > 0.6 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.6 * half and odd < 0.1 * half else None


def _is_binary(data: bytes) -> bool:
    return any(len(part) - len(part.translate(None, _BINARY)) > len(part) / 20 for part in (data[:8192], data[-8192:]))


# --- times --------------------------------------------------------------------------------------------------------

_ISO = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s?(Z|UTC|GMT|[+-]\d\d:?\d\d)?"
)


def moment(text: str | None, *, zone: str | None = None) -> datetime | None:
    """The moment in UTC of a stamp that has a date and a zone; zone: the one to take where the stamp has none."""
    match = _ISO.search(text[:80]) if text else None
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, found = match.groups()
    offset = _offset(found or zone)
    if offset is None:
        return None
    try:
        at = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        return at.replace(microsecond=int((fraction or "0")[:6].ljust(6, "0"))) - offset
    except (ValueError, OverflowError):
        return None


def _offset(zone: str | None) -> timedelta | None:
    if zone is None:
        return None
    if zone in ("Z", "UTC", "GMT"):
        return timedelta()
    size = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    return -size if zone[0] == "-" else size


def of_epoch(microseconds: str | int | None) -> datetime | None:
    """The moment of a journal's __REALTIME_TIMESTAMP."""
    try:
        return datetime.fromtimestamp(int(microseconds or "") / 1e6, UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
