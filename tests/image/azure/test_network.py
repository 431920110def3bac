"""The network of a run's own: its namespace, its addresses, its name server."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.image.azure import network
from harness.image.azure.deployment import Deployment
from harness.lab.scenarios import DEFAULT
from harness.lab.worker import Worker

QUERY = bytes.fromhex("abcd01000001000000000000") + b"\x03www\x07example\x03com\x00\x00\x01\x00\x01"


def test_a_question_is_refused_with_itself() -> None:
    reply = network.refusal(QUERY)
    assert reply is not None
    assert reply[:2] == QUERY[:2]
    assert reply[2] & 0x80  # an answer
    assert reply[3] & 0x0F == 5  # REFUSED
    assert reply[12:] == QUERY[12:]


def test_what_stands_behind_the_question_is_left_out() -> None:
    edns = QUERY[:11] + b"\x01" + QUERY[12:] + bytes.fromhex("0000290500000000000000")
    assert network.refusal(edns) == network.refusal(QUERY)


@pytest.mark.parametrize("query", [b"", QUERY[:-1], QUERY[:20], QUERY[:2] + b"\x81" + QUERY[3:], QUERY[:5] + b"\2"])
def test_what_is_no_question_gets_no_answer(query: bytes) -> None:
    assert network.refusal(query) is None


@given(st.binary(max_size=80))
def test_datagrams_of_a_stranger_do_no_harm(data: bytes) -> None:
    network.refusal(data)


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun")
def test_the_tap_device_is_in_a_namespace_of_its_own_and_ends_with_it() -> None:
    before = {path.name for path in Path("/sys/class/net").iterdir()}
    with Worker("platform", lambda: network.serve(asdict(Deployment())), asynchronous=True) as worker:
        _, (tap,) = worker.call_with_descriptors("build")
        worker.call("start", scenario=DEFAULT.dump())
        assert {path.name for path in Path("/sys/class/net").iterdir()} == before  # nothing of it is in ours
        own = Path(f"/proc/{worker.pid}/net/dev").read_text()
        assert network.DEVICE in own
        assert "eth0" not in own
        assert worker.call("requests", after=0) == []
        assert worker.call("leases") == []
        os.close(tap)
        pid = worker.pid
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_a_tun_device_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str, flags: int) -> int:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "open", gone)
    with pytest.raises(HarnessError, match="modprobe tun"):
        network._tap()
