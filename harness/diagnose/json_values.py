"""The JSON in a text: whole documents, several after each other, one a line, and objects between other lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

MOST_FAILURES = 24  # attempts that may fail, and characters that may be read in vain, in texts' lengths
_IN_VAIN = 4
_BEGIN = re.compile(r"[\[{](?=\s{0,200}[\[{\]}\"])")
_DECODER = json.JSONDecoder(strict=False)  # a mail breaks lines inside strings


def values(text: str) -> Iterator[tuple[object, int, int]]:
    """(value, begin, end) of each JSON object or array in a text, in order; what is none is passed over."""
    at, failures, vain = 0, 0, 0
    while failures < MOST_FAILURES and vain <= _IN_VAIN * len(text):
        match = _BEGIN.search(text, at)
        if not match:
            return
        begin = match.start()
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            failures += 1
            vain += max(0, error.pos - begin)
            at = begin + 1
        except (RecursionError, ValueError):  # ValueError: a number of more than 4300 digits
            failures += 1
            vain += len(text) - begin
            at = begin + 1
        else:
            yield value, begin, end
            at = end
