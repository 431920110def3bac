from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.report.write import write


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def refused(path: str | Path) -> HarnessError:
    with pytest.raises(HarnessError) as error:
        write(path, "text\n")
    assert str(path) in error.value.attempted
    assert error.value.remedy
    return error.value


def test_a_new_file_gets_what_the_umask_leaves(tmp_path: Path, umask: None) -> None:
    write(tmp_path / "report", "→\n")
    assert (tmp_path / "report").read_bytes() == "→\n".encode()
    assert (tmp_path / "report").stat().st_mode & 0o7777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["report"]


def test_a_file_that_is_there_keeps_its_mode_and_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("a long text that was there before\n")
    path.chmod(0o600)
    with path.open() as reader:
        write(path, "new\n")
        assert reader.read() == "a long text that was there before\n"  # nobody sees half of a report
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", "x\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x\n"


def test_surrogates_are_escaped(tmp_path: Path) -> None:
    write(tmp_path / "report", "\udc80\n")
    assert (tmp_path / "report").read_text() == "\\udc80\n"


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    write(fifo, "x" * 200_000)
    reader.join(10)
    assert read == ["x" * 200_000]
    assert fifo.is_fifo()


def test_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print("before")
    write("-", "→\n")
    write("/dev/stdout", "again\n")
    assert capfdbinary.readouterr().out == "before\n→\nagain\n".encode()


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_that_is_a_file_is_appended_to(tmp_path: Path, path: str) -> None:
    code = f"from harness.report.write import write; print('before'); write({path!r}, 'text\\n'); print('after')"
    out = tmp_path / "out"
    with out.open("w") as stdout:
        subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True, cwd=Path(__file__).parents[2])
    assert out.read_text() == "before\ntext\nafter\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_descriptor_that_is_not_open() -> None:
    assert "EBADF" in refused("/dev/fd/987654").happened


def test_a_stdout_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    write("-", "→\n")
    assert capsys.readouterr().out == "→\n"


def test_dev_full_is_not_replaced() -> None:
    error = refused("/dev/full")
    assert error.errno == errno.ENOSPC
    assert "ENOSPC" in error.happened
    assert "space" in str(error.remedy)
    assert Path("/dev/full").is_char_device()


def test_a_directory(tmp_path: Path) -> None:
    assert "EISDIR" in refused(tmp_path).happened


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    error = refused(tmp_path / "none" / "report")
    assert "ENOENT" in error.happened
    assert error.remedy == "make the directory first"


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "ENOTDIR" in refused(tmp_path / "file" / "report").happened


@pytest.mark.parametrize("path", ["a\0b", "", "x" * 300, "/proc/report"])
def test_other_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(HarnessError, match="cannot write the report to"):
        write(path, "")


def test_nothing_is_left_when_the_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "replace", fail)
    assert "EACCES" in refused(tmp_path / "report").happened
    assert list(tmp_path.iterdir()) == []


def test_interrupted_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int, data: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "report", "x")
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import ctypes, os, pathlib, sys
from harness.errors import HarnessError
from harness.report.write import write

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    if function(*arguments):
        number = ctypes.get_errno()
        print("cannot", function.__name__, os.strerror(number)); sys.exit(77)
call(libc.unshare, CLONE_NEWNS)
call(libc.mount, b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
call(libc.mount, b"tmpfs", sys.argv[1].encode(), b"tmpfs", ctypes.c_ulong(0), b"size=64k")
report = pathlib.Path(sys.argv[1]) / "report"
write(report, "old")
try:
    write(report, "x" * 200_000)
except HarnessError as error:
    print(error.happened)
print([(file.name, file.read_text()) for file in report.parent.iterdir()])
"""


def test_a_full_disk_leaves_the_old_report_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode == 77:
        pytest.skip(f"a file system of 64 KiB wants root: {done.stdout}")
    assert done.stderr == ""
    happened, left = done.stdout.splitlines()
    assert happened.startswith("ENOSPC")
    assert left == "[('report', 'old')]"
    assert list(tmp_path.iterdir()) == []
