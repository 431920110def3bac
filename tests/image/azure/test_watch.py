"""When watching ends, and how long it may last."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.image.azure import limits, watch
from harness.image.azure.observation import Observation
from harness.vm import cache as kept
from tests.image.azure.boots import NOT_FOUND, READY, observation

SETTLED = [
    (observation(), 500.0, False),  # nothing was reported
    (observation(READY, asks=True, latched=35.0), 40.5, False),
    (observation(READY, asks=True, latched=35.0), 42.0, True),  # ready, and latched: nothing more is to come
    (observation(READY, asks=True), 45.0, False),  # a key may be late
    (observation(READY, asks=True), 41.0 + limits.SETTLE, True),
    (observation(READY, asks=True, latched=50.0), 50.5, False),  # it was late, just now
    (observation(READY, asks=True, latched=50.0), 52.0, True),
    (observation(NOT_FOUND), 45.0, False),  # another report may follow
    (observation(NOT_FOUND, asks=True, latched=35.0), 45.0, False),
    (observation(NOT_FOUND), 41.0 + limits.SETTLE, True),
]


@pytest.mark.parametrize(("now", "elapsed", "over"), SETTLED)
def test_it_watches_until_nothing_more_is_to_come(now: Observation, elapsed: float, over: bool) -> None:
    assert watch._settled(now, elapsed) is over


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "directory", lambda: tmp_path)
    return tmp_path


def test_how_long_a_whole_boot_takes_is_the_middle_one_of_the_last(cache: Path) -> None:
    assert limits.expected("tcg") == 0
    limits.remember("tcg", 5.0)  # until its address: another thing
    assert limits.expected("tcg") == 0
    for seconds in (100.0, 300.0, 120.0):
        limits.remember("tcg", seconds, limits.WHOLE)
    assert limits.expected("tcg") == 120.0
    assert limits.measured("tcg") == [5.0]
    assert limits.expected("kvm") == 0


def test_a_limit_follows_what_was_measured(cache: Path) -> None:
    unmeasured = limits.silent("tcg")
    assert "no boot was measured" in unmeasured.origin
    for seconds in (20.0, 60.0, 30.0):
        limits.remember("tcg", seconds)
    assert limits.measured("tcg") == [20.0, 60.0, 30.0]
    assert limits.silent("tcg").seconds == 600.0
    assert limits.silent("kvm") == unmeasured  # of another accelerator nothing is known


def test_only_the_last_boots_count(cache: Path) -> None:
    for seconds in range(1, 20):
        limits.remember("tcg", float(seconds))
    assert limits.measured("tcg") == [float(seconds) for seconds in range(12, 20)]


@pytest.mark.parametrize("content", ["", "{}", "[-1]", '["x"]', "[1e9]"])
def test_a_damaged_memory_is_none(cache: Path, content: str) -> None:
    place = cache / "boots" / "azure-tcg.json"
    place.parent.mkdir()
    place.write_text(content)
    assert limits.measured("tcg") == []


def test_the_agent_s_own_wait_is_in_the_limit() -> None:
    """cloud-init waits 120 s for it, however fast the machine is."""
    assert limits.whole(1.0).seconds > limits.AGENT + 60
    assert limits.whole(100.0).seconds > limits.whole(10.0).seconds
