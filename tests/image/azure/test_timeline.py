"""Both sides' events in one order, on one clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from harness.image.azure.inside import Inside
from harness.image.azure.timeline import MOST, clock, timeline
from tests.image.azure.boots import BEGAN, NOT_FOUND, READY, observation


def stamp(seconds: float) -> str:
    """A time of the guest's, so many seconds after power on, as cloud-init's log has it."""
    return datetime.fromtimestamp(BEGAN + seconds, UTC).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]


def log(*rows: tuple[float, str]) -> str:
    return "".join(f"{stamp(at)} - azure.py[DEBUG]: {text}\n" for at, text in rows)


def agent_log(*rows: tuple[float, str]) -> dict[str, str]:
    lines = (
        f"{datetime.fromtimestamp(BEGAN + at, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')} [info] {text}\n" for at, text in rows
    )
    return {"/var/log/azure-proxy-agent/ProxyAgent.log": "".join(lines)}


SENDING = "Sending health report to Azure fabric."


def test_the_guest_s_clock_is_put_on_the_host_s() -> None:
    """The guest is an hour behind: its log says 40 s less 3600 when the host saw the report at 40 s."""
    inside = Inside(log((-3560, SENDING), (-3570, "Found provisioning metadata in /dev/sr0")))
    found = timeline(observation(READY), inside)
    assert found.offset == 3600
    assert [(round(row.at), row.who) for row in found.rows if row.side == "guest"] == [(30, "cloud-init")]


def test_the_agent_s_rows_have_whole_seconds_and_say_so() -> None:
    inside = Inside(log((40, SENDING)), agent_logs=agent_log((35.9, "connect4 is attached")))
    (row,) = [row for row in timeline(observation(READY), inside).rows if row.who == "agent"]
    assert (row.at, row.coarse) == (35.0, True)
    assert "35…" in row.text()


def test_several_reports_give_the_median() -> None:
    inside = Inside(log((39.9, SENDING), (40.8, SENDING)))
    assert abs((clock(observation(NOT_FOUND, READY), inside) or 0) - 0.15) < 0.01


def test_without_a_common_moment_nothing_is_guessed() -> None:
    found = timeline(observation(), Inside(log((10, "Found provisioning metadata in /dev/sr0"))))
    assert found.offset is None
    assert "no moment was seen by both" in found.unsaid
    assert all(row.side == "platform" for row in found.rows)


def test_a_log_that_lacks_a_report_is_no_clock() -> None:
    assert clock(observation(NOT_FOUND, READY), Inside(log((40, SENDING)))) is None


def test_a_disk_that_could_not_be_read_is_told() -> None:
    assert "it is gone" in timeline(observation(READY), Inside(problem="it is gone")).unsaid


def test_rows_are_in_order_and_the_key_is_told() -> None:
    rows = timeline(observation(READY, asks=True, latched=35.0), Inside()).rows
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert any(row.who == "agent" and "the key is latched" in row.what for row in rows)


def test_a_status_that_is_polled_is_told_once() -> None:
    seen = observation(READY, asks=True)
    seen = replace(seen, events=[seen.events[0]] * 50)
    (row,) = [row for row in timeline(seen, Inside()).rows if row.who == "agent"]
    assert row.what == "asks for its key's status: 200 (50 times in all)"


@given(st.text(max_size=300), st.text(max_size=300))
def test_logs_of_a_stranger_do_no_harm(one: str, other: str) -> None:
    inside = Inside(f"{log((40, SENDING))}{one}", agent_logs={"x": f"{other}\n2026-99-99T00:00:00Z [info] {one}"})
    assert len(timeline(observation(READY), inside).rows) <= MOST
