"""Scratch directories: gone after the block, and after a kill with the next one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from harness.vm import scratch

ROOT = Path(__file__).resolve().parents[3]

CODE = (
    "import os, signal, sys\n"
    "from harness.vm import scratch\n"
    "with scratch.directory('test') as place:\n"
    "    print(place, flush=True)\n"
    "    sys.stdin.read()\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def test_what_a_killed_one_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "msp-harness-test-link").symlink_to("/nothing")
    with subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        with scratch.directory("test") as place:
            assert place != other
            assert other.is_dir()  # it is in use
        assert not place.exists()
        process.communicate("")
    assert other.is_dir()
    with scratch.directory("test"):
        assert not other.exists()


def test_many_that_begin_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has made and not yet locked, another takes for a leftover."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "from harness.vm import scratch\n"
        "for _ in range(300):\n"
        "    with scratch.directory('test') as place:\n"
        "        (place / 'file').touch()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "name"), [(os, "open"), (fcntl, "flock")])
def test_one_that_is_taken_away_before_it_has_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken: list[Path] = []
    own = getattr(module, name)

    def first_take(*arguments: object, **named: object) -> object:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        return own(*arguments, **named)

    monkeypatch.setattr(module, name, first_take)
    with scratch.directory("test") as place:
        assert place.is_dir()
        assert place not in taken
    assert len(taken) == 1
