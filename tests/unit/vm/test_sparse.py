"""Checksums and copies of files with holes."""

from __future__ import annotations

import zlib
from pathlib import Path

from harness.vm import sparse

BLOCK = sparse.BLOCK


def written(path: Path, *blocks: bytes) -> Path:
    path.write_bytes(b"".join(block.ljust(BLOCK, b"\0") for block in blocks))
    return path


def test_what_is_zero_is_neither_read_nor_copied(tmp_path: Path) -> None:
    source = written(tmp_path / "source", b"one", b"two", b"", b"four", b"")
    with source.open("rb", buffering=0) as file, (tmp_path / "target").open("wb") as target:
        checksum, parts = sparse.copied(file.fileno(), target)
    assert parts == [(0, 2 * BLOCK), (3 * BLOCK, 4 * BLOCK)]
    content = source.read_bytes()
    assert checksum == zlib.crc32(content[: 2 * BLOCK] + content[3 * BLOCK : 4 * BLOCK])
    assert (tmp_path / "target").read_bytes() == content
    assert sparse.read(source) == (checksum, parts)


def test_a_changed_byte_changes_the_checksum(tmp_path: Path) -> None:
    source = written(tmp_path / "source", b"one", b"", b"three")
    checksum, parts = sparse.read(source)
    assert sparse.crc(source, parts) == checksum
    written(source, b"one", b"", b"threw")
    assert sparse.crc(source, parts) != checksum


def test_an_empty_file(tmp_path: Path) -> None:
    assert sparse.read(written(tmp_path / "source")) == (0, [])
