"""Messages between host and guest, whole and in pieces, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MESSAGES = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4)


@given(MESSAGES, st.integers(1, 50))
def test_what_was_sent_arrives_in_whatever_pieces(messages: list[dict[str, object]], size: int) -> None:
    stream = b"".join(wire.packed(message) for message in messages)
    unpacker = wire.Unpacker()
    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    assert [message for piece in pieces for message in unpacker.feed(piece)] == messages


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error(stream: bytes) -> None:
    try:
        found = list(wire.Unpacker().feed(stream))
    except HarnessError:
        return
    assert all(isinstance(message, dict) for message in found)


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"\xff\xff\xff\xff", "a message of 4294967295 bytes"),
        (b"\0\0\0\1[", "no JSON"),
        (b"\0\0\0\2[]", "JSON that is no object"),
        ((100_000).to_bytes(4, "big") + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_message_is_told(stream: bytes, told: str) -> None:
    with pytest.raises(HarnessError, match=told):
        list(wire.Unpacker().feed(stream))


def test_a_part_of_a_message_is_none_yet() -> None:
    assert list(wire.Unpacker().feed(wire.packed({"ready": {}})[:-1])) == []
