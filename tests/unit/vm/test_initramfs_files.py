"""An initramfs is read: archives one behind the other, the last packed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import archives
from harness.vm.archives import UnknownForm
from harness.vm.initramfs import Archive
from tests.unit.vm import made

MICROCODE = "kernel/x86/microcode/AuthenticAMD.bin"
DRIVER = "usr/lib/modules/9.9.0/kernel/drivers/scsi/hv_storvsc.ko.xz"


def cpio(name: str, content: bytes = b"content") -> bytes:
    archive = Archive()
    archive.file(name, content)
    return archive.finished()


def names(content: bytes) -> list[str]:
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return [each.name for each in archives.initramfs_files(Path(file.name))]


@pytest.mark.parametrize("pack", ["gzip", "bzip2", "xz", "zstd"])
def test_behind_the_microcode_lies_what_is_packed(pack: str) -> None:
    packed = made.PACKERS[pack](cpio(DRIVER))
    assert names(cpio(MICROCODE) + bytes(512) + packed + bytes(300)) == [MICROCODE, DRIVER]
    assert names(packed) == [DRIVER]


def test_one_that_is_not_packed_and_several_of_them() -> None:
    assert names(b"".join(cpio(name) + bytes(8) for name in ("a", "b", DRIVER))) == ["a", "b", DRIVER]
    assert names(b"") == []


@pytest.mark.parametrize("pack", ["lz4", "lzma"])
def test_a_form_that_is_not_known(pack: str) -> None:
    with pytest.raises(UnknownForm, match="in no form that is read here"):
        names(cpio(MICROCODE) + bytes(4) + made.PACKERS[pack](cpio(DRIVER)))


@pytest.mark.parametrize("pack", ["gzip", "bzip2", "xz", "zstd"])
def test_one_that_is_cut_off_is_refused(pack: str) -> None:
    packed = made.PACKERS[pack](cpio(DRIVER, bytes(range(256)) * 40))
    with pytest.raises(HarnessError, match=r"damaged|too early") as raised:
        names(cpio(MICROCODE) + packed[: len(packed) // 2])
    assert not isinstance(raised.value, UnknownForm)


def test_zeros_without_end_are_not_read() -> None:
    with pytest.raises(HarnessError, match="zeros"):
        names(bytes(2 << 20) + cpio(DRIVER))


@given(st.data())
def test_a_damaged_one_gives_files_or_an_error(data: st.DataObject) -> None:
    pack = data.draw(st.sampled_from(["gzip", "xz", "zstd"]))
    content = bytearray(cpio(MICROCODE) + bytes(4) + made.PACKERS[pack](cpio(DRIVER)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(HarnessError):
        names(bytes(content))
