"""Reading what is to be explained."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.verifier import source


def test_a_file_and_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"R0 !read_ok\n")
    assert source.read(str(path)) == b"R0 !read_ok\n"
    assert source.read("-", io.BytesIO(b"x")) == b"x"


def test_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x")
    os.close(writing)
    try:
        assert source.read(f"/proc/self/fd/{reading}") == b"x"
    finally:
        os.close(reading)


def test_of_a_very_large_file_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LARGEST", 10)
    path = tmp_path / "log"
    path.write_bytes(b"0123456789abc")
    assert source.read(str(path)) == b"3456789abc"
    assert source.read("-", io.BytesIO(b"0123456789abc")) == b"3456789abc"


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_cannot_be_read_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=f"cannot read .*{name}.*E(NOENT|ISDIR)"):
        source.read(str(tmp_path / name))
