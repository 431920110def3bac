"""CRIU's image of mappings: shared ones become private, all else stays, garbage is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import criu_images

HEAD = bytes.fromhex("19435654 20284957")  # IMG_COMMON_MAGIC, MM_MAGIC (criu/include/magic.h), as they lie
SHARED, PRIVATE = (0x1, 0x81), (0x2, 0x41)  # flags and status of a file's mapping


def number(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + number(value >> 7) if value > 0x7F else bytes([value])


def field(name: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(name << 3) + number(value)
    return number(name << 3 | 2) + number(len(value)) + value


def mapping(begin: int, flags: int, status: int) -> bytes:
    """A vma_entry: start, end, pgoff, shmid, prot, flags, status, fd."""
    values = (begin, begin + 4096, 0, 4, 3, flags, status, (1 << 64) - 1)
    return field(14, b"".join(field(name, value) for name, value in enumerate(values, 1)))


def image(*mappings: bytes) -> bytes:
    """With fields around the mappings, as mm_entry has them: numbers, and bytes (the auxiliary vector)."""
    message = field(1, 0x400000) + b"".join(mappings) + field(13, bytes(range(40)))
    return HEAD + len(message).to_bytes(4, "little") + message


def changed(tmp_path: Path, content: bytes) -> tuple[int, bytes]:
    path = tmp_path / "mm-7.img"
    path.write_bytes(content)
    return criu_images.map_privately(tmp_path), path.read_bytes()


def test_only_files_that_are_shared_become_private(tmp_path: Path) -> None:
    others = [mapping(0x1000, 0x22, 0x201), mapping(0x7F0000000000, 0x2, 0x41)]  # anonymous; a file, private already
    count, content = changed(tmp_path, image(others[0], mapping(0x5000, *SHARED), others[1]))
    # A number that got shorter keeps its bytes: the last of them are zeros then.
    private = mapping(0x5000, *PRIVATE).replace(field(7, PRIVATE[1]), number(7 << 3) + b"\xc1\x00")
    assert count == 1
    assert private not in image(*others)
    assert [part in content for part in (*others, private[4:])] == [True, True, True]
    assert changed(tmp_path, content) == (0, content)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_one_that_is_cut_off_is_an_error(tmp_path: Path, cut: int) -> None:
    with pytest.raises(HarnessError, match="no image of mappings"):
        changed(tmp_path, image(mapping(0x5000, *SHARED))[:-cut])


def test_no_image_and_two_are_errors(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="images of 0 processes"):
        criu_images.map_privately(tmp_path)
    for pid in (1, 2):
        (tmp_path / f"mm-{pid}.img").write_bytes(image())
    with pytest.raises(HarnessError, match="images of 2 processes"):
        criu_images.map_privately(tmp_path)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_image_or_an_error(tmp_path_factory: pytest.TempPathFactory, message: bytes) -> None:
    place = tmp_path_factory.mktemp("images")
    content = HEAD + len(message).to_bytes(4, "little") + message
    try:
        assert len(changed(place, content)[1]) == len(content)
    except HarnessError as error:
        assert "no image of mappings" in str(error)  # noqa: PT017
