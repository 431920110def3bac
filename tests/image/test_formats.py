"""Headers of disk images: what QEMU writes is read, what is damaged is a ValueError, and nothing else comes of it."""

from __future__ import annotations

import struct
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.command import run
from harness.image import partitions, qcow2, vhd, vhdx
from harness.image.image import Partition
from tests.image.headers import LINUX, MIB, gpt, made, mbr, needs_qemu_img, reader, vhd_footer


@needs_qemu_img
@pytest.mark.parametrize(("subformat", "kind"), [("fixed", "fixed"), ("dynamic", "dynamic")])
def test_a_vhd_of_qemu(tmp_path: Path, subformat: str, kind: str) -> None:
    data = made(tmp_path, "vpc", f"subformat={subformat},force_size").read_bytes()
    found = vhd.footer(data[-512:])
    assert (found.kind, found.current_size, found.checksum_right) == (kind, 9 * MIB, True)


def test_a_footer_with_one_byte_wrong_has_a_wrong_checksum() -> None:
    block = bytearray(vhd_footer(9 * MIB))
    assert vhd.footer(bytes(block)).checksum_right
    block[50] ^= 1
    assert not vhd.footer(bytes(block)).checksum_right


@needs_qemu_img
def test_a_vhdx_of_qemu(tmp_path: Path) -> None:
    data = made(tmp_path, "vhdx", size=64 * MIB).read_bytes()
    assert vhdx.parse(reader(data)) == vhdx.Vhdx(64 * MIB, has_parent=False)
    without = bytearray(data)
    for table in (192 << 10, 256 << 10):
        without[table : table + 4] = bytes(4)
    with pytest.raises(ValueError, match="region tables"):
        vhdx.parse(reader(bytes(without)))


@needs_qemu_img
def test_a_qcow2_of_qemu(tmp_path: Path) -> None:
    base = made(tmp_path, "qcow2")
    assert qcow2.header(base.read_bytes()) == qcow2.Header(3, 9 * MIB)
    overlay = tmp_path / "overlay.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay])
    found = qcow2.header(overlay.read_bytes())
    assert (found.backing, found.backing_format) == (str(base), "qcow2")
    outside = made(tmp_path / "", "qcow2", f"data_file={tmp_path / 'data'}")
    found = qcow2.header(outside.read_bytes())
    assert found.external_data
    assert found.data_file == str(tmp_path / "data")


@given(st.binary(max_size=700))
def test_no_bytes_are_more_than_a_value_error(data: bytes) -> None:
    for begin in (b"", vhd.COOKIE, qcow2.MAGIC, qcow2.MAGIC + b"\0\0\0\3", vhdx.IDENTIFIER):
        whole = begin + data
        for parse in (vhd.footer, qcow2.header, lambda given: vhdx.parse(reader(given))):
            with suppress(ValueError):
                parse(whole)


@given(st.binary(min_size=128, max_size=2048), st.integers(0, 2047), st.binary(max_size=64))
def test_no_vhdx_tables_are_more_than_a_value_error(table: bytes, count: int, item: bytes) -> None:
    region = b"regi" + bytes(4) + struct.pack("<II", 1, 0)
    region += uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le + struct.pack("<QII", 1 << 20, 1 << 16, 1)
    data = bytearray(2 * MIB)
    data[:8], data[192 << 10 : (192 << 10) + len(region)] = vhdx.IDENTIFIER, region
    metadata = b"metadata" + bytes(2) + struct.pack("<H", count) + bytes(20) + table
    data[MIB : MIB + len(metadata)] = metadata
    data[MIB + 65536 : MIB + 65536 + len(item)] = item
    with suppress(ValueError):
        vhdx.parse(reader(bytes(data)))


def test_a_master_boot_record() -> None:
    data = mbr((0x80, 0x83, 2048, 4096), (0, 0x82, 6144, 10))
    found = partitions.table(reader(data))
    first, second = Partition(1, MIB, 2 * MIB, "83", bootable=True), Partition(2, 3 * MIB, 5120, "82")
    assert found == partitions.Table("mbr", (first, second))


def test_logical_partitions_are_followed_and_a_circle_of_them_ends() -> None:
    extended = mbr((0, 0x83, 63, 100), (0, 5, 200, 100))
    last = mbr((0, 0x83, 63, 30))
    data = bytearray(mbr((0, 0x0F, 2048, 1000)).ljust(MIB, b"\0") + extended.ljust(200 * 512, b"\0") + last)
    found = partitions.table(reader(bytes(data)))
    assert [(each.number, each.start) for each in found.partitions] == [
        (5, (2048 + 63) * 512),
        (6, (2048 + 200 + 63) * 512),
    ]
    data[MIB + 200 * 512 :] = mbr((0, 0x83, 63, 30), (0, 5, 0, 100))
    found = partitions.table(reader(bytes(data)))
    assert found.troubles == ("the chain of logical partitions has no end",)


def test_a_gpt() -> None:
    data = gpt((partitions.ESP, 2048, 4095), (LINUX, 4096, 8191))
    found = partitions.table(reader(data))
    assert [each.kind for each in found.partitions] == [partitions.ESP, LINUX]
    assert (found.partitions[1].start, found.partitions[1].size) == (2 * MIB, 2 * MIB)
    assert not found.troubles


@pytest.mark.parametrize(
    ("at", "trouble"), [(512 + 24, "the GPT header has a wrong"), (1024 + 40, "entries have a wrong"), (512, "missing")]
)
def test_a_damaged_gpt_is_told(at: int, trouble: str) -> None:
    data = bytearray(gpt((LINUX, 2048, 4095)))
    data[at] ^= 1
    assert trouble in partitions.table(reader(bytes(data))).troubles[0]


@pytest.mark.parametrize(
    ("data", "boots"),
    [
        (mbr((0, 0x83, 2048, 8), code=b"\xeb\x63GRUB \0"), True),
        (mbr((0, 0x83, 2048, 8)), False),
        (mbr((0, 0x83, 2048, 8), code=b"\xfa parted's own code"), False),
        (mbr((0x80, 0x83, 1, 8), code=b"\xfa parted's own code") + b"boot sector".ljust(512), True),
        (mbr((0x80, 0x83, 1, 8), code=b"\xfa parted's own code") + bytes(512), False),
        (b"GRUB" + gpt((partitions.BIOS_BOOT, 2048, 4095))[4:], True),
        (b"GRUB" + gpt((LINUX, 2048, 4095))[4:], False),
        (b"", False),
    ],
)
def test_what_a_bios_boots(data: bytes, boots: bool) -> None:
    assert partitions.table(reader(data)).bios is boots


@given(st.binary(max_size=512), st.binary(max_size=1024))
def test_no_table_raises(record: bytes, rest: bytes) -> None:
    for begin in (record, record.ljust(510, b"\0")[:510] + b"\x55\xaa", mbr((0, 0xEE, 1, 9)), mbr((0, 5, 1, 9))):
        partitions.table(reader(begin + rest))
        partitions.table(reader(begin + b"EFI PART" + rest))
