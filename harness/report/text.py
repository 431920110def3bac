"""Text that may come from strangers, made fit to be shown; the words that all renderers share.

Logs, paths and answers of servers end up in summaries and evidence. Whatever they hold (terminal escapes, directional
overrides, bytes that were no UTF-8) is shown, never obeyed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from harness.report.model import Json, Outcome, Report, Result

TAB = 4  # columns; verifier logs and dumps indent with tabs

_PLAINER = str.maketrans(
    {"→": "->", "…": "...", "–": "-", "—": "-", "·": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "≥": ">="}
)
"""For terminals without Unicode: what our own messages use, better than an escape."""

_WORDS = (
    (Outcome.PASS, "passed", "passed"),
    (Outcome.FAIL, "failed", "failed"),
    (Outcome.ERROR, "error", "errors"),
    (Outcome.WARN, "warning", "warnings"),
    (Outcome.SKIP, "skipped", "skipped"),
)


def visible(text: str, encoding: str = "utf-8") -> str:
    r"""The text on one line, with everything that does not print shown as an escape: `\x1b`, `\n`, `\u202e`.

    What the encoding cannot express (surrogates always) is escaped too, so that writing the text cannot fail.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escape(char) for char in text)
    if not text.isascii() and not encoding.lower().startswith("utf"):
        text = text.translate(_PLAINER)
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def visible_lines(text: str, encoding: str = "utf-8") -> list[str]:
    """Like visible, but line by line, with tabs as spaces; at least one line."""
    lines = text.expandtabs(TAB).replace("\r\n", "\n").rstrip("\n").split("\n")
    return [visible(line, encoding) for line in lines]


def value_text(value: Json) -> str:
    """A fact as a person would write it: text as it is, lists of scalars with commas, other things as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and value and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(value_text(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def facts(evidence: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The evidence as (name, text) in the order in which the check gave it; the text may have several lines."""
    return [(name, value_text(value)) for name, value in evidence.items()]


def counts(results: Report | list[Result], *, all_of_them: bool = False) -> str:
    """`34 passed, 1 failed, 2 warnings`; zeros are left out unless asked for."""
    outcomes = [result.outcome for result in (results.results if isinstance(results, Report) else results)]
    parts = []
    for outcome, one, many in _WORDS:
        number = outcomes.count(outcome)
        if number or all_of_them:
            parts.append(f"{number} {one if number == 1 else many}")
    return ", ".join(parts) or "nothing was checked"


def took(seconds: float) -> str:
    """How long a Result took; nothing for one that was not timed."""
    return duration(seconds) if seconds else ""


def duration(seconds: float) -> str:
    """`<1 ms`, `12 ms`, `3.4 s`, `2 min 05 s`."""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
