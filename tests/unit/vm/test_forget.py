"""Entries that nobody asks for go, the least recently used first."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from harness.vm import cache, forget


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    place = tmp_path / "vm" / "things"
    for age, name in enumerate(("newest", "middle", "oldest")):
        (place / name).mkdir(parents=True)
        (place / name / cache.USED).touch()
        os.utime(place / name / cache.USED, (1000 - age, 1000 - age))
    return place


def test_the_oldest_goes(place: Path) -> None:
    forget.all_but(2, "things")
    assert [entry.name for entry in cache.entries("things")] == ["middle", "newest"]


def test_what_somebody_uses_stays(place: Path) -> None:
    descriptor = os.open(place / "oldest", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        forget.all_but(1, "things")
    finally:
        os.close(descriptor)
    assert [entry.name for entry in cache.entries("things")] == ["newest", "oldest"]
