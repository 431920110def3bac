"""Text as people paste it: bytes of whatever encoding, typographic quotes, escapes. Nothing here raises."""

from __future__ import annotations

import re

_SMART = str.maketrans(
    {
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'",
        "\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u2026": "...", "\u2212": "-", "\u2010": "-", "\u2011": "-",
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\0": None,
    }
)  # fmt: skip
_NEEDS_SMART = re.compile(
    "[\u201c-\u201f\u2018-\u201b\u00a0\u00ab\u00bb\u2007\u202f\u2026\u2212\u2010\u2011\u200b-\u200d\u2060\ufeff\0]"
)
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrtbf"\\/]))')
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(data: str | bytes) -> str:
    """Bytes as UTF-8 (or UTF-16 when a BOM says so), what is not decodable replaced."""
    if isinstance(data, str):
        return data
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8", "replace")


def plain(text: str) -> str:
    """Typographic quotes, blanks and ellipses as ASCII; zero-width characters and NUL gone."""
    return text.translate(_SMART) if _NEEDS_SMART.search(text) else text


def _escape(match: re.Match[str]) -> str:
    code, letter = match.groups()
    return chr(int(code, 16)) if code else _ESCAPES.get(letter, letter)


def unescape_once(text: str) -> str:
    """Undo one level of JSON's escapes; a pair of surrogates becomes one character, half a pair U+FFFD."""
    text = _ESCAPE.sub(_escape, text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
