"""status.json: whole, cut anywhere, a fragment, with smart quotes, with a BOM, inside a JSON string."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.msp import guide, status

MESSAGE = "Failed to load program 'connect4' with error: x\n\"quoted\" \u00fc \\ tab\t"
STATUS = {
    "timestamp": "2026-11-24T15:04:00Z",
    "proxyAgentStatus": {
        "version": "1.0.30",
        "status": "ERROR",
        "monitorStatus": {"status": "RUNNING", "message": "started"},
        "keyLatchStatus": {
            "status": "RUNNING",
            "message": "ok",
            "states": {"keyGuid": "a-b", "secureChannelState": "x"},
        },
        "ebpfProgramStatus": {"status": "STOPPED", "message": MESSAGE},
        "proxyListenerStatus": {"status": "RUNNING", "message": "listening"},
        "proxyConnectionsCount": 3,
    },
    "proxyConnectionSummary": [{"userName": "root", "ip": "1.2.3.4", "port": 80, "count": 1}],
    "failedAuthenticateSummary": [],
}
TEXT = json.dumps(STATUS, indent=2)


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        TEXT.encode(),
        "\ufeff" + TEXT,
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n"),
        TEXT + "\n",
        json.dumps(STATUS),
    ],
)
def test_a_whole_status(data: str | bytes) -> None:
    read = status.read(data)
    assert read is not None
    assert read.whole
    assert (read.status, read.version) == ("ERROR", "1.0.30")
    assert [module.name for module in read.modules] == list(status.MODULES[:4])
    module = read.module("ebpfProgramStatus")
    assert module == status.Module("ebpfProgramStatus", "STOPPED", MESSAGE)


@pytest.mark.parametrize("data", [TEXT.replace('"timestamp"', "\u201ctimestamp\u201d"), json.dumps(TEXT), TEXT[:-60]])
def test_a_damaged_status_reads_the_same(data: str) -> None:
    read = status.read(data)
    assert read is not None
    assert (read.status, read.version) == ("ERROR", "1.0.30")
    assert read.module("ebpfProgramStatus") == status.Module("ebpfProgramStatus", "STOPPED", MESSAGE)
    key = read.module("keyLatchStatus")
    assert key is not None
    assert key.states == {"keyGuid": "a-b", "secureChannelState": "x"}


def test_smart_quotes_around_every_string() -> None:
    fragment = '"ebpfProgramStatus": { "status": "STOPPED", "message": "Failed to load\u2026" },'
    quotes = iter("\u201c\u201d" * 10)
    fragment = "".join(next(quotes) if letter == '"' else letter for letter in fragment)
    read = status.read(fragment)
    assert read is not None
    assert read.modules == [status.Module("ebpfProgramStatus", "STOPPED", "Failed to load...")]


@pytest.mark.parametrize("name", guide.EXCERPTS)
def test_the_guides_fragments(name: str) -> None:
    read = status.read(guide.excerpt_bytes(name))
    assert read is not None
    assert not read.whole
    assert [(module.name, module.status, module.truncated) for module in read.modules] == [
        ("ebpfProgramStatus", "STOPPED", False)
    ]


@given(st.integers(0, len(TEXT)))
def test_cut_anywhere_it_reads_what_is_there(at: int) -> None:
    read = status.read(TEXT[:at])
    message = TEXT.find('"message"', TEXT.find('"ebpfProgramStatus"'))
    if at > message + 40:
        assert read is not None
        module = read.module("ebpfProgramStatus")
        assert module is not None
        assert module.message is not None
        assert MESSAGE.startswith(module.message.rstrip("\\u0f"))


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps)))
def test_nothing_makes_it_raise(data: str | bytes) -> None:
    status.read(data)


def test_deep_nesting_does_not_make_it_raise() -> None:
    status.read("{" * 100_000)
    status.read('{"proxyAgentStatus":' * 5_000)
    status.read('{"proxyAgentStatus":' + "[" * 100_000)


@pytest.mark.parametrize(
    "value", ["[]", "null", "3", '"x"', '{"keyLatchStatus": 3}', '{"keyLatchStatus": {"message": 5}}']
)
def test_members_of_another_type_are_missing(value: str) -> None:
    read = status.read(f'{{"proxyAgentStatus": {value}}}')
    assert read is None or all(module.message is None for module in read.modules)
