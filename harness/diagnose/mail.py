"""A mail as it is saved (.eml): its texts with their encoding undone, and what is attached."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from email import policy
from email.message import Message
from email.parser import BytesParser

MOST_PARTS = 200

_HEADER = re.compile(rb"[A-Za-z][A-Za-z-]{1,40}:[ \t]")
_SURE = re.compile(rb"^(?:MIME-Version|Content-Type|Content-Transfer-Encoding):[ \t]", re.MULTILINE | re.IGNORECASE)
_TAG = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^<>]{0,400}>\n?", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]{0,2000}>")


def is_mail(data: bytes) -> bool:
    """Whether it begins with a mail's headers."""
    head = data[:8192].replace(b"\r\n", b"\n").split(b"\n\n", 1)[0]
    return bool(_HEADER.match(head) and _SURE.search(head))


def parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each text and attachment. Raises ValueError when it is no mail after all."""
    try:
        message = BytesParser(policy=policy.compat32).parsebytes(data)
        found = [part for part in message.walk() if not part.is_multipart()][:MOST_PARTS]
        plain = any(part.get_content_type() == "text/plain" for part in found)
        for number, part in enumerate(found, 1):
            payload = part.get_payload(decode=True)
            if not isinstance(payload, bytes) or not payload.strip():
                continue
            if part.get_content_maintype() == "text":
                payload = payload.decode(part.get_content_charset() or "utf-8", "replace").encode("utf-8", "replace")
            if part.get_content_type() == "text/html" and not part.get_filename():
                if plain:
                    continue  # the same again
                payload = _text(payload)
            yield _name(part, number), payload
    except (
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:  # email's own, on nonsense
        raise ValueError(f"no whole mail: {error}") from error


def _name(part: Message, number: int) -> str:
    name = part.get_filename()
    return str(name) if name else f"part {number}"


def _text(page: bytes) -> bytes:
    text = _ANY_TAG.sub("", _TAG.sub("\n", page.decode("utf-8", "replace")))
    return html.unescape(text).encode("utf-8", "replace")
