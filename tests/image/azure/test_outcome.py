"""The model of the platform's outcome, and the row of the guide's table that a boot was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image.azure import outcome, table
from harness.image.azure.health import HealthReport
from harness.image.azure.inside import Inside
from harness.image.azure.observation import Asked
from harness.image.azure.outcome import Arrived, End, judged
from harness.image.predict import ROWS
from tests.image.azure.boots import NOT_FOUND, READY, UNHEALTHY, observation


def arrived(*rows: tuple[float, HealthReport]) -> list[Arrived]:
    return [Arrived(at, report) for at, report in rows]


def test_ready_after_the_key_is_provisioned() -> None:
    found = judged(True, arrived((50.0, READY)), 48.0)
    assert (found.end, found.portal, found.margin) == (End.PROVISIONED, "", 2.0)


def test_ready_before_the_key_is_not_recorded() -> None:
    found = judged(True, arrived((50.0, READY)), 51.0)
    assert found.end is End.NOT_RECORDED
    assert found.margin == -1.0
    assert all(line in found.portal for line in ROWS[0].failure.splitlines())  # the guide's words


def test_ready_without_a_key_is_not_recorded() -> None:
    found = judged(True, arrived((50.0, READY)), None)
    assert (found.end, found.margin) == (End.NOT_RECORDED, None)


def test_without_msp_ready_is_enough() -> None:
    assert judged(False, arrived((50.0, READY)), None).end is End.PROVISIONED


def test_a_failure_says_its_own_reason_and_the_guide_s_words() -> None:
    found = judged(True, arrived((50.0, NOT_FOUND)), None)
    assert found.end is End.REPORTED
    assert ROWS[1].failure in found.portal


def test_the_first_report_decides() -> None:
    found = judged(True, arrived((50.0, NOT_FOUND), (60.0, READY)), 40.0)
    assert (found.end, found.ready_at) == (End.REPORTED, 60.0)


def test_nothing_reported_is_a_timeout() -> None:
    assert judged(True, [], 30.0).code == outcome.TIMED_OUT


@given(st.booleans(), st.lists(st.sampled_from([READY, NOT_FOUND, UNHEALTHY]), max_size=3), st.none() | st.floats(0, 9))
def test_every_course_has_one_end(msp: bool, reports: list[HealthReport], latched: float | None) -> None:
    found = judged(msp, [Arrived(float(at), report) for at, report in enumerate(reports)], latched)
    assert (found.end is End.PROVISIONED) == (not found.portal)


ROW_CASES = [
    (1, observation(READY), Inside()),
    (1, observation(READY), Inside(problem="not read")),
    (2, observation(NOT_FOUND), Inside()),
    (3, observation(READY, asks=True), Inside(agent="/usr/sbin/azure-proxy-agent")),
    (3, observation(READY), Inside(agent="/usr/sbin/azure-proxy-agent")),
    (4, observation(UNHEALTHY, asks=True), Inside(agent="/usr/sbin/azure-proxy-agent")),
    (0, observation(HealthReport("NotReady", description="failure to obtain DHCP lease")), Inside()),
    (0, observation(), Inside()),
    (0, observation(READY, asks=True, latched=10.0), Inside()),
]


@pytest.mark.parametrize(("number", "seen", "inside"), ROW_CASES)
def test_the_row_is_told_by_what_happened(number: int, seen: object, inside: Inside) -> None:
    from harness.image.azure.observation import Observation

    assert isinstance(seen, Observation)
    end = judged(seen.msp, seen.reports, seen.latched_at)
    found = table.happened(seen, inside, end)
    assert found.number == number
    assert found.why
    assert (found.code is None) == (number == 0)


def test_a_version_decides_nothing() -> None:
    """The same events with another version in the requests are the same row."""
    seen = observation(READY)
    other = replace(seen, asked=[replace(row, headers=[("User-Agent", "Cloud-Init/99.1")]) for row in seen.asked])
    ends = [judged(row.msp, row.reports, row.latched_at) for row in (seen, other)]
    assert {table.happened(row, Inside(), end).number for row, end in zip((seen, other), ends, strict=True)} == {1}


LOGGED = (
    "2026-11-24 23:06:26,137 - azure.py[ERROR]: Azure datasource failure occurred: result=error|reason={}|exit_code=1\n"
)


@pytest.mark.parametrize(
    ("log", "number"),
    [(LOGGED.format("azure-proxy-agent status failure"), 4), (LOGGED.format("read timeout querying IMDS"), 0), ("", 0)],
)
def test_a_report_that_the_platform_refused_stands_in_the_log(log: str, number: int) -> None:
    seen = observation()
    asked = Asked(50.0, "wireserver", "GET", "/machine/?comp=goalstate", 403, [("User-Agent", "Cloud-Init/25.1.4")])
    seen = replace(seen, asked=[asked])
    found = table.happened(seen, Inside(log), judged(True, seen.reports, 45.0))
    assert found.number == number
    assert "refused" in found.why
