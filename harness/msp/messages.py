"""The agent's messages, rendered from what the kernel answered and read back.

The forms are the agent's interface (they reach status.json and its log); `{…}` is filled in. Rendering is exact, to
the byte. Reading is lenient about what surrounds a message and strict about the message itself. A status message
longer than 1,024 bytes is cut there and `...` added; the cut counts bytes, so it may fall inside a character, and
then falls before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

REDIRECTOR_PREFIX = "Failed to start redirector: "
CUT_AT = 1024  # bytes
CUT_MARK = "..."


class Form(StrEnum):
    """One kind of message; the value is its template."""

    LOAD = "Failed to load program '{name}' with error: the BPF_PROG_LOAD syscall failed. Verifier output: {log}"
    LOAD_OTHER = "Failed to load program '{name}' with error: {error}"
    ATTACH_LINK = "Failed to attach program '{name}' with error: `bpf_link_create` failed"
    ATTACH_OTHER = "Failed to attach program '{name}' with error: {error}"
    OPEN_CGROUP = "Failed to open cgroup '{path}' with error: {error}"
    GET_PROGRAM = "Failed to get program '{name}' with error: {error}"
    GET_MAP = "Failed to get valid map '{name}' in BPF object with error: {error}"
    UPDATE_MAP = "Failed to update HashMap '{map}' for '{what}' with error: {error}"
    LOAD_OBJECT = "Loading BPF object from file path '{path}' failed with error: {error}"
    LOAD_API = "Loading eBPF API from file path '{path}' failed with error: {error}"
    GAVE_UP = "Failed to start eBPF/redirector with multiple retries"
    KEY_STATUS = "Failed to get key status - {error}"
    KEY_VALIDATION = "Key error: Key status validation failed with the error: {error}"
    KEY_SEND = "Key error: Failed to send {step} key with error: {error}"
    KEY_ANSWER = "Key error: Failed to {step} key with status code: {status}"
    KEY_LOCAL = "Key error: Failed to {step} key locally with error: {error}"
    KEY_LOCAL_FROM = "Key error: Failed to {step} local key with error: {error}"
    KEY_REFUSED = 'Failed to acquire key details: Key(KeyResponse("{step}", {status}))'
    KEY_NOT_ACQUIRED = "Failed to acquire key details: {error}"
    KEY_NOT_SAVED = "Failed to save key details to file: {error}"
    KEY_NOT_CHECKED = "Failed to check the key '{guid}' details saved locally: {error}"
    KEY_NOT_ATTESTED = "Failed to attest the key: {error}"
    KEY_FOUND = "Found key details from local and ready to use."
    KEY_ATTESTED = "Successfully attest the key and ready to use."
    KEY_NOT_ENFORCED = "Customer has not enforce the secure channel state."


REDIRECTOR_FORMS = frozenset(list(Form)[: list(Form).index(Form.GAVE_UP)])
"""The forms that stand behind REDIRECTOR_PREFIX in a status."""

# What a field may hold: names have no quote, steps are words, the rest goes to the end of the message.
_FIELDS: Mapping[str, str] = {
    "name": r"[^'\n]{0,128}",
    "map": r"[^'\n]{0,128}",
    "what": r"[^'\n]{0,512}",
    "path": r"[^\n]{0,4096}?",
    "guid": r"[^'\n]{0,128}",
    "step": r"[a-z]{1,16}",
    "status": r"\d{1,5}",
    "log": r"(?s:.*)",
    "error": r"(?s:.*)",
}


@dataclass(frozen=True)
class Message:
    """One message of the agent: its form, what it was filled with, and whether its end was cut off."""

    form: Form
    fields: Mapping[str, str]
    prefixed: bool = False  # `Failed to start redirector: ` stands before it
    cut: bool = False

    @property
    def text(self) -> str:
        """The whole message, uncut, as the agent's log has it."""
        return (REDIRECTOR_PREFIX if self.prefixed else "") + self.form.format_map(self.fields)


def render(form: Form, *, prefixed: bool | None = None, **fields: str) -> str:
    """The status message for a form: with the redirector's prefix where it belongs, and cut like the agent's.

    Raises KeyError when a field of the form is not given.
    """
    before = form in REDIRECTOR_FORMS if prefixed is None else prefixed
    return cut(Message(form, fields, before).text)


def cut(text: str) -> str:
    """At most 1,024 bytes of UTF-8, and `...` when that is not all."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= CUT_AT:
        return text
    return raw[:CUT_AT].decode("utf-8", "ignore") + CUT_MARK


def is_cut(text: str) -> bool:
    """Whether the agent cut this message: as long as a cut one, with the mark."""
    if not text.endswith(CUT_MARK) or len(text) > CUT_AT + len(CUT_MARK):
        return False
    length = len(text.encode("utf-8", "surrogatepass")) - len(CUT_MARK)
    return CUT_AT - 3 <= length <= CUT_AT


@cache
def _patterns() -> Sequence[tuple[Form, re.Pattern[str]]]:
    """A pattern a form, the special before the general (they stand so in Form)."""
    rows = []
    for form in Form:
        pieces = re.split(r"\{(\w+)\}", form.value)
        pattern = "".join(
            f"(?P<{piece}>{_FIELDS[piece]})" if number % 2 else re.escape(piece) for number, piece in enumerate(pieces)
        )
        rows.append((form, re.compile(pattern)))
    return tuple(rows)


# Where a message may begin inside a log line: the first words of all forms.
_MOST_BEGINNINGS = 8  # a message that is quoted in a message is the deepest that was seen
_BEGINNINGS = re.compile(
    r"Failed to |Key error: |Loading (?:BPF|eBPF) |Found key |Successfully attest |Customer has not "
)


def parse(text: str) -> Message | None:
    """The message in a bare message or a log line; None when there is none of a known form.

    What stands before it (timestamps, module names) is ignored; it goes to the end of the text.
    """
    for begin in itertools.islice(_BEGINNINGS.finditer(text[:8192]), _MOST_BEGINNINGS):
        rest = text[begin.start() :]
        prefixed = rest.startswith(REDIRECTOR_PREFIX)
        if prefixed:
            rest = rest[len(REDIRECTOR_PREFIX) :]
        if message := _parse_at(rest, prefixed, is_cut(text[begin.start() :])):
            return message
    return None


def _parse_at(text: str, prefixed: bool, marked: bool) -> Message | None:
    stripped = text.rstrip()
    for form, pattern in _patterns():
        # an empty verifier log leaves a blank at the end, which whoever pasted the message may have lost
        if match := pattern.fullmatch(text) or pattern.fullmatch(stripped) or pattern.fullmatch(stripped + " "):
            return Message(form, match.groupdict(), prefixed, marked)
    return None
