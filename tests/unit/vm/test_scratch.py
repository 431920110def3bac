"""Scratch directories: gone after the block, and after a kill with the next one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

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
