"""bzImage and vmlinux: what is packed comes out, and no damaged file does harm."""

from __future__ import annotations

import shutil
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import bzimage, vmlinux
from tests.unit.vm import made

PACKERS = [
    pytest.param(name, marks=pytest.mark.skipif(name == "lz4" and shutil.which("lz4") is None, reason="no lz4 here"))
    for name in made.PACKERS
]
KERNEL = made.elf()


@pytest.mark.parametrize("pack", PACKERS)
def test_what_was_packed_comes_out(pack: str) -> None:
    image = made.bzimage(KERNEL, pack=pack)
    header = bzimage.setup(image)
    assert header is not None
    assert header.release == made.RELEASE
    assert bzimage.unpacked(image) == KERNEL


@pytest.mark.parametrize("pack", PACKERS)
def test_a_damaged_payload_is_refused(pack: str) -> None:
    """Its last 30 bytes are others: each packer's end, and the size behind it."""
    image = made.bzimage(KERNEL * 50, pack=pack)
    cut = image[: -len(b"after") - 30] + bytes(30) + b"after"
    with pytest.raises(HarnessError, match="damaged"):
        bzimage.unpacked(cut)


@pytest.mark.parametrize("pack", PACKERS)
def test_an_image_that_is_cut_off_is_refused(pack: str) -> None:
    with pytest.raises(HarnessError, match="cut off"):
        bzimage.unpacked(made.bzimage(KERNEL, pack=pack)[:-40])


@pytest.mark.parametrize("pack", [name for name in made.PACKERS if name != "lz4"])
def test_a_bomb_is_not_unpacked(pack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bzimage, "LARGEST", 1 << 20)
    with pytest.raises(HarnessError, match="more than 1 MiB"):
        bzimage.unpacked(made.bzimage(bytes(8 << 20), pack=pack))


def test_blocks_of_lz4_are_counted_before_lz4_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bzimage, "LARGEST", 16 << 20)
    monkeypatch.setattr(bzimage, "run", lambda *arguments, **options: pytest.fail("lz4 was run"))
    monkeypatch.setitem(
        made.PACKERS,
        "blocks",
        lambda data: b"\x02\x21\x4c\x18" + (struct.pack("<I", 4) + bytes(4)) * 9 + struct.pack("<I", 1),
    )
    with pytest.raises(HarnessError, match="more than 16 MiB"):
        bzimage.unpacked(made.bzimage(KERNEL, pack="blocks"))


def test_lz4_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = made.bzimage(KERNEL, pack="lz4") if shutil.which("lz4") else pytest.skip("no lz4 here")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HarnessError, match="there is no lz4"):
        bzimage.unpacked(image)


def test_what_is_no_bzimage() -> None:
    assert bzimage.setup(b"") is None
    assert bzimage.setup(KERNEL) is None
    with pytest.raises(HarnessError, match="no bzImage"):
        bzimage.unpacked(KERNEL)


def test_an_old_protocol_is_refused() -> None:
    image = bytearray(made.bzimage())
    struct.pack_into("<H", image, 0x206, 0x0204)
    with pytest.raises(HarnessError, match=r"boot protocol is 2\.04"):
        bzimage.setup(bytes(image))


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """The original with some bytes exchanged, cut off somewhere."""

    def damage(changes: list[tuple[int, int]], length: int) -> bytes:
        content = bytearray(original)
        for position, value in changes:
            content[position] = value
        return bytes(content[:length])

    positions = st.integers(0, len(original) - 1)
    changes = st.lists(st.tuples(positions, st.integers(0, 255)), max_size=8)
    return st.builds(damage, changes, st.integers(0, len(original)) | st.just(len(original)))


@given(damaged(made.bzimage(KERNEL)) | damaged(made.bzimage(KERNEL, pack="xz")) | st.binary(max_size=2000))
def test_any_image_gives_a_kernel_or_an_error(image: bytes) -> None:
    with suppress(HarnessError):
        assert len(bzimage.unpacked(image)) <= bzimage.LARGEST


def test_an_elf_file_that_qemu_starts() -> None:
    vmlinux.check(KERNEL)
    assert vmlinux.release(KERNEL) == made.RELEASE


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (made.elf(pvh=False), "no PVH entry"),
        (made.elf(machine=183), "AArch64"),
        (KERNEL[:4] + b"\1" + KERNEL[5:], "not ELF64"),
        (KERNEL[:-10], "cut off"),
        (KERNEL[:100], "program headers are damaged"),
        (b"text", "no ELF file"),
    ],
)
def test_an_elf_file_that_qemu_does_not_start(kernel: bytes, why: str) -> None:
    with pytest.raises(HarnessError, match=why):
        vmlinux.check(kernel)


def test_an_elf_file_that_is_no_kernel() -> None:
    with pytest.raises(HarnessError, match="no Linux kernel"):
        vmlinux.release(KERNEL.replace(b"Linux", b"Other"))


@given(damaged(KERNEL) | st.binary(max_size=400))
def test_any_elf_file_gives_an_answer(kernel: bytes) -> None:
    for ask in (vmlinux.check, vmlinux.release):
        with suppress(HarnessError):
            ask(kernel)
