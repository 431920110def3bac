"""The cache: an entry is whole or not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


USER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from harness.vm import cache\n"
    "assert cache.hold(Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@contextmanager
def user(entry: Path) -> Iterator[None]:
    """Another process that uses an entry."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, entry], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate(b"")


def made_by_another(name: str) -> Path:
    """An entry that this process does not hold."""
    code = f"from harness.vm import cache\ncache.kept('things', {name!r}, lambda work: (work / 'file').touch())\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return cache.directory() / "things" / name


def test_what_is_used_is_not_removed(place: Path) -> None:
    entry = made_by_another("one")
    with user(entry):
        assert cache.in_use(entry)
        assert not cache.remove("things", "one")
        assert (entry / "file").exists()
    assert not cache.in_use(entry)
    assert cache.remove("things", "one")
    assert list(place.iterdir()) == []  # nor its lock


def test_what_is_being_made_is_not_removed(place: Path) -> None:
    code = (
        "import sys\n"
        "from harness.vm import cache\n"
        "def make(work):\n"
        "    (work / 'half').touch()\n"
        "    print('making', flush=True)\n"
        "    sys.stdin.read()\n"
        "cache.kept('things', 'one', make)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"making\n"
        assert cache.unfinished("things") == ["one"]
        assert cache.is_locked("things", "one")
        assert not cache.remove("things", "one")
        process.communicate(b"")
    assert (place / "one" / "half").exists()


def test_a_holder_of_what_was_removed_takes_the_next_one(place: Path) -> None:
    entry = cache.kept("things", "one", fill)
    shutil.rmtree(entry)  # by hand
    assert not cache.hold(entry)
    assert cache.kept("things", "one", fill) == entry
    assert cache.in_use(entry)


def test_a_damaged_entry_is_replaced(place: Path) -> None:
    entry = cache.kept("things", "one", fill)
    (entry / "file").write_text("bad")

    def damage(path: Path) -> str:
        return "bad" if (path / "file").read_text() == "bad" else ""

    with user(entry):  # whoever uses it keeps what it has open
        assert cache.kept("things", "one", fill, damage) == entry
    assert (entry / "file").read_text() == "content"
    assert visible(place) == ["one"]


def test_a_cache_that_cannot_be_written_still_serves_what_it_has(tmp_path: Path) -> None:
    """In a mount namespace of its own, as a file system that is read only; a new entry says what to do."""
    made_by_another("one")
    code = (
        "from harness.vm import cache\n"
        "from harness.errors import HarnessError\n"
        "print(cache.kept('things', 'one', lambda work: None).name)\n"
        "try:\n"
        "    cache.kept('things', 'two', lambda work: None)\n"
        "except HarnessError as error:\n"
        "    print(error)\n"
    )
    script = f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,ro,bind "{tmp_path}" && exec "$0" -c "$1"'
    said = mounted(script, sys.executable, code)
    assert said[0] == "one"
    assert "EROFS" in said[1]
    assert "MSP_HARNESS_CACHE" in said[1]


@pytest.mark.parametrize("how", ["write", "command"])
def test_a_disk_that_is_really_full(tmp_path: Path, how: str) -> None:
    """On a tmpfs of 2 MB: by a write of our own, and by a program whose error is not ours."""
    fill = {
        "write": "(work / 'file').write_bytes(bytes(4 << 20))",
        "command": "run(['dd', 'if=/dev/zero', f'of={work}/file', 'bs=1M', 'count=4'])",
    }[how]
    code = (
        "import os\n"
        "from harness.command import run\n"
        "from harness.errors import HarnessError\n"
        "from harness.vm import cache\n"
        f"def make(work):\n    {fill}\n"
        "try:\n"
        "    cache.kept('things', 'one', make)\n"
        "except HarnessError as error:\n"
        "    print(error)\n"
        "print(sorted(name for name in os.listdir(cache.directory() / 'things') if name[0] != '.'))\n"
        "print([name for name in os.listdir(cache.directory() / 'things') if 'unfinished' in name])\n"
    )
    script = f'mount -t tmpfs -o size=2m full "{tmp_path}" && exec "$0" -c "$1"'
    said = mounted(script, sys.executable, code)
    assert "ENOSPC" in said[0]
    assert "MSP_HARNESS_CACHE" in said[0]
    assert said[1:] == ["[]", "[]"]


def mounted(script: str, *arguments: str) -> list[str]:
    """What a shell script prints in a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    words = ["unshare", "--mount", "sh", "-c", script, *arguments]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def test_whoever_may_not_write_to_the_machines_cache_has_one_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MSP_HARNESS_CACHE")
    monkeypatch.setattr("harness.program.headers.CACHE", tmp_path / "machine")
    assert cache.directory() == tmp_path / "machine" / "vm" == cache.shared()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache.directory() == tmp_path / "own" / "msp-harness" / "vm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is to be ignored, by the specification of base directories
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / ".cache" / "msp-harness" / "vm"


def test_a_file_of_two_entries_takes_its_room_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "file").write_bytes(bytes(1 << 20))
    alone = cache.size(one)
    other.mkdir()
    empty = cache.size(other)
    (other / "file").hardlink_to(one / "file")
    assert cache.size(one) + cache.size(other) == alone + empty
    assert alone >= 1 << 20
