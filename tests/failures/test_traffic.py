"""Who answered a client."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.failures.model import DIRECT, ELSEWHERE, REDIRECTED
from harness.failures.traffic import fate, told
from harness.lab.clients import Seen
from harness.lab.lab import Lab

LAB = Lab(Path("/"), "ours", Mock(), Mock(), Mock(), Mock())


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Seen(status=200, nonce="ours"), REDIRECTED),
        (Seen(status=421, nonce="ours"), REDIRECTED),
        (Seen(status=200, nonce="another lab's"), DIRECT),
        (Seen(status=200), DIRECT),
        (Seen(status=200, body="other\n"), ELSEWHERE),
        (Seen(error="ECONNREFUSED", step="connect"), "ECONNREFUSED"),
        (Seen(error="timeout", step="answer"), "timeout"),
    ],
)
def test_fate(seen: Seen, word: str) -> None:
    assert fate(LAB, seen) == word


def test_the_peer_varies_and_is_no_evidence() -> None:
    answer = told(LAB, "asked", Seen(status=200, peer="127.0.0.1:3080"))
    assert answer.observed == {"peer": "127.0.0.1:3080"}
    assert not answer.facts
