"""What a file is, told by its content; and what is not opened."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from harness.command import run
from harness.errors import HarnessError
from harness.image.source import identify
from tests.image.headers import LINUX, MIB, encrypted, gpt, made, mbr, needs_qemu_img, vhd_footer

SIZE = 9 * MIB


def raw(size: int = SIZE) -> bytes:
    return mbr((0x80, 0x83, 2048, 4096)).ljust(size, b"\0")


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("etc/hosts"))
    return stream.getvalue()


DISKS = {
    "mbr": (raw(), "raw", "raw", SIZE),
    "gpt": (gpt((LINUX, 2048, 4095)).ljust(SIZE, b"\0"), "raw", "raw", SIZE),
    "ext4": (bytes(0x438) + b"\x53\xef" + bytes(MIB), "raw", "raw", 0x43A + MIB),
    "xfs": (b"XFSB" + bytes(MIB), "raw", "raw", MIB + 4),
    "luks": (b"LUKS\xba\xbe" + bytes(MIB), "raw", "raw", MIB + 6),
    "lvm": (bytes(512) + b"LABELONE" + bytes(MIB), "raw", "raw", MIB + 520),
    "fixed": (raw() + vhd_footer(SIZE), "vhd-fixed", "raw", SIZE),
    "old": (raw() + vhd_footer(SIZE)[:511], "vhd-fixed", "raw", SIZE),
    "tar": (tar(), "tar", "", 0),
    "tar.gz": (gzip.compress(tar()), "tar", "", 0),
}


@pytest.mark.parametrize("kind", DISKS)
def test_by_content(kind: str, tmp_path: Path) -> None:
    data, form, qemu, size = DISKS[kind]
    image = tmp_path / "named.iso"
    image.write_bytes(data)
    found = identify(str(image))
    assert (found.format, found.qemu, found.virtual_size) == (form, qemu, size)
    assert not found.troubles


@needs_qemu_img
@pytest.mark.parametrize(
    ("form", "options", "told"),
    [
        ("qcow2", (), "qcow2"),
        ("vpc", ("subformat=fixed,force_size",), "vhd-fixed"),
        ("vpc", ("subformat=dynamic,force_size",), "vhd-dynamic"),
        ("vhdx", (), "vhdx"),
    ],
)
def test_what_qemu_makes(form: str, options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    found = identify(str(made(tmp_path, form, *options)))
    assert (found.format, found.virtual_size, found.troubles) == (told, SIZE, ())


@pytest.mark.parametrize(
    ("data", "trouble"),
    [
        (raw() + vhd_footer(SIZE)[:200], "cut off: 200 of 512 bytes"),
        (raw() + bytes(512), "lie where a VHD's footer is"),
        (raw() + vhd_footer(SIZE)[:100] + b"!" + vhd_footer(SIZE)[101:], "a wrong checksum"),
        (raw() + vhd_footer(SIZE + MIB), f"says {SIZE + MIB} bytes, but {SIZE} lie before it"),
    ],
)
def test_a_damaged_footer_is_told(data: bytes, trouble: str, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(data)
    assert any(trouble in each for each in identify(str(image)).troubles)


@needs_qemu_img
def test_a_dynamic_vhd_without_its_footer(tmp_path: Path) -> None:
    image = made(tmp_path, "vpc", "subformat=dynamic,force_size")
    os.truncate(image, image.stat().st_size - 300)
    assert "missing or cut off" in identify(str(image)).troubles[0]


@pytest.mark.parametrize(
    ("data", "happened"),
    [
        (b"", "it is empty"),
        (b"no image at all", "of no form that is known"),
        (bytes(4096), "of no form that is known"),
        (b"QFI\xfb\0\0\0\3", "qcow2 header is damaged or cut off"),
        (b"QFI\xfb\0\0\0\x09" + bytes(100), "qcow2 of version 9"),
        (b"vhdxfile" + bytes(100), "region tables are damaged"),
        (b"conectix" + bytes(20), "footer has 512 bytes"),
        (raw() + vhd_footer(SIZE, 4), "there is no header of such a disk"),
        (vhd_footer(SIZE, 4) + raw(), "differencing VHD"),
        (gzip.compress(raw()), "what is packed in it is of no form"),
        (gzip.compress(raw())[:40], "ends too early|damaged|ended before"),
    ],
)
def test_what_is_no_image_is_an_error_with_a_reason(data: bytes, happened: str, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(data)
    with pytest.raises(HarnessError, match=happened):
        identify(str(image))


def test_special_files_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, happened in (
            (pipe, "a pipe"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
            (tmp_path / "none", "ENOENT"),
        ):
            with pytest.raises(HarnessError, match=happened):
                identify(str(path))


def test_directories(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="neither etc/os-release nor usr"):
        identify(str(tmp_path))
    (tmp_path / "usr").mkdir()
    assert identify(str(tmp_path)).format == "directory"
    (tmp_path / "oci-layout").touch()
    (tmp_path / "index.json").touch()
    assert identify(str(tmp_path)).format == "oci"


@needs_qemu_img
class TestBackingFiles:
    def overlay(self, place: Path, backing: str, *, form: str = "qcow2", name: str = "overlay.qcow2") -> Path:
        image = place / name
        run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", form, "-b", backing, image, str(SIZE)])
        return image

    def test_refused_unless_allowed(self, tmp_path: Path) -> None:
        made(tmp_path, "qcow2")
        image = self.overlay(tmp_path, "image.qcow2")
        with pytest.raises(HarnessError, match=r"its content is in another file, 'image\.qcow2'"):
            identify(str(image))
        assert identify(str(image), allow_backing=True).chain == (str(tmp_path / "image.qcow2"),)

    @pytest.mark.parametrize(
        ("backing", "happened"),
        [
            ("nbd://127.0.0.1/x", "no plain file name"),
            ("json:{}", "no plain file name"),
            ("/dev/zero", "no regular file"),
            ("not-there.qcow2", "ENOENT"),
        ],
    )
    def test_only_regular_files(self, backing: str, happened: str, tmp_path: Path) -> None:
        image = self.overlay(tmp_path, backing)
        with pytest.raises(HarnessError, match=happened):
            identify(str(image), allow_backing=True)

    def test_an_endless_chain_ends(self, tmp_path: Path) -> None:
        image = self.overlay(tmp_path, "overlay.qcow2")
        with pytest.raises(HarnessError, match="more than 8 backing files"):
            identify(str(image), allow_backing=True)

    def test_what_is_behind_what_is_behind_is_looked_at(self, tmp_path: Path) -> None:
        self.overlay(tmp_path, "/dev/zero", name="between.qcow2")
        with pytest.raises(HarnessError, match="no regular file"):
            identify(str(self.overlay(tmp_path, "between.qcow2")), allow_backing=True)

    def test_external_data_are_refused_even_then(self, tmp_path: Path) -> None:
        image = made(tmp_path, "qcow2", f"data_file={tmp_path / 'data'}")
        with pytest.raises(HarnessError, match="its data are in another file"):
            identify(str(image), allow_backing=True)

    def test_encryption_is_told(self, tmp_path: Path) -> None:
        assert identify(str(encrypted(tmp_path))).encryption == "LUKS"


def test_a_link_to_an_image_is_that_image(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(raw())
    (tmp_path / "link").symlink_to(image)
    assert identify(str(tmp_path / "link")).format == "raw"
