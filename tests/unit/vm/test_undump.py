"""A process that is written down, and goes on in another: here with this machine's kernel, which has a vDSO."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.vm import undump

ROOT = Path(__file__).resolve().parents[3]

# The vDSO is left where it is, and what goes on asks for no time, which is all that it is for.
PROCESS = """
import os, signal, sys
from harness.vm import undump
{before}
undump._VDSO = "none"
undump._KERNELS += ("[vdso]",)
heard, kept = [], [str(number) * 3 for number in range(100_000)]
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
first = os.getpid()
if undump.write(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), sys.argv[1]):
    os.write(1, b"written")
    os._exit(0)
os.kill(os.getpid(), signal.SIGUSR1)
grown = [bytes(1000) for _ in range(50_000)]  # more than was there: malloc asks the kernel
told = first != os.getpid(), heard, kept[-1], len(grown), signal.getsignal(signal.SIGPIPE).name
os.write(1, repr(told).encode())
os._exit(7)
"""


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """With the layout of memory that every process has that was started so."""
    command = ["setarch", "-R", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def write(path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    return start(sys.executable, "-c", PROCESS.format(before=before), path)


def made_executable(path: Path) -> Path:
    head = path.with_name("head")
    head.write_bytes(path.read_bytes()[: undump.HEAD])
    head.chmod(0o755)
    return head


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """With all that was in memory, with how it handles signals, and with more memory to be had as before."""
    path = tmp_path / "written"
    done = write(path)
    assert (done.returncode, done.stdout) == (0, "written"), done.stderr
    done = start(made_executable(path))
    assert (done.returncode, done.stdout) == (7, "(True, [10], '999999999999999', 50000, 'SIG_IGN')"), done.stderr


def test_not_where_what_was_written_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "written"
    write(path)
    head = made_executable(path)
    path.unlink()
    assert start(head).returncode < 0


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("undump._TID += 8", "where its C library has its number is"),
        ("undump._CALLS |= {'kill': 39}", "it is in system call 62, not in kill"),
        ("undump._LOWEST = 1 << 46", "there is no room for a copy of its stack"),
        ("undump.HEAD = 256", "what is to start it has"),
    ],
)
def test_what_is_not_as_expected_is_not_written_down(tmp_path: Path, before: str, said: str) -> None:
    done = write(tmp_path / "written", before)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_vdso_is_told(tmp_path: Path) -> None:
    """The kernel's own code would not be there in another kernel."""
    script = "import sys; from harness.vm import undump; undump.write(1, '')"
    done = start(sys.executable, "-c", script)
    assert done.returncode == 1
    assert "it has a vDSO" in done.stderr
    assert "vdso=0" in done.stderr


def test_nothing_is_left_of_what_could_not_be_written(tmp_path: Path) -> None:
    script = """
import os, sys
from harness.vm import undump
try:
    undump.write(1, "")
except Exception:
    pass
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    os._exit(9)
"""
    assert start(sys.executable, "-c", script).returncode == 9
