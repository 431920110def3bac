"""The cache: an entry is whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import cache

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    return tmp_path / "vm" / "things"


def fill(work: Path) -> None:
    (work / "file").write_text("content")


def visible(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("."))


def test_an_entry_is_made_once(place: Path) -> None:
    entry = cache.kept("things", "one", fill)
    assert entry == place / "one"
    assert (entry / "file").read_text() == "content"
    assert cache.kept("things", "one", lambda work: pytest.fail("made again")) == entry


def test_what_fails_leaves_nothing(place: Path) -> None:
    def fail(work: Path) -> None:
        fill(work)
        raise HarnessError("make it", "it broke")

    with pytest.raises(HarnessError, match="it broke"):
        cache.kept("things", "one", fail)
    assert visible(place) == []
    assert not (place / ".one.unfinished").exists()
    assert (cache.kept("things", "one", fill) / "file").exists()


def test_what_a_killed_one_left_is_not_taken_for_whole(place: Path) -> None:
    code = (
        "import os, signal\n"
        "from harness.vm import cache\n"
        "def make(work):\n"
        "    (work / 'half').write_text('')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache.kept('things', 'one', make)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -9
    assert (place / ".one.unfinished" / "half").exists()
    assert visible(place) == []
    entry = cache.kept("things", "one", fill)
    assert visible(entry) == ["file"]


def test_a_full_disk_says_what_to_do() -> None:
    def fail(work: Path) -> None:
        raise OSError(28, "No space left on device", str(work))

    with pytest.raises(HarnessError, match="ENOSPC") as raised:
        cache.kept("things", "one", fail)
    assert "MSP_HARNESS_CACHE" in str(raised.value)
