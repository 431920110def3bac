"""Disk images before libguestfs sees them; the whole way is in tests/vm."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import appliance, disk_kernel, spec
from tests.unit.vm import made

pytestmark = pytest.mark.usefixtures("own_cache")


def qcow2(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    header = b"QFI\xfb" + struct.pack(">IQI", version, backing, 0) + bytes(52)
    return header + struct.pack(">Q", features) + bytes(4096)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (qcow2(), "qcow2"),
        (b"vhdxfile" + bytes(600), "vhdx"),
        (bytes(2048) + b"conectix" + bytes(504), "vpc"),
        (b"conectix" + bytes(2048), "vpc"),
        (bytes(510) + b"\x55\xaa" + bytes(2 << 20), "raw"),
        (bytes(0x438) + b"\x53\xef" + bytes(4000), "raw"),
        (b"XFSB" + bytes(4000), "raw"),
        (b"", ""),
        (b"text", ""),
        (bytes(510) + b"\x55\xaa", ""),  # a boot sector alone
    ],
)
def test_what_a_disk_image_is(content: bytes, form: str, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    target.write_bytes(content)
    assert disk_kernel.form(target) == form


def test_a_kernel_is_no_disk(tmp_path: Path) -> None:
    """A bzImage begins with a boot sector as well."""
    target = tmp_path / "vmlinuz"
    target.write_bytes(made.bzimage() + bytes(2 << 20))
    with pytest.raises(HarnessError, match=r"modules of 9\.9\.0-test are missing"):
        spec.resolve(str(target))


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        (qcow2(backing=4096), "an overlay"),
        (qcow2(version=2, backing=4096), "an overlay"),
        (qcow2(features=4), "data are in another file"),
        (b"QFI\xfb\0\0", "header is damaged"),
    ],
)
def test_an_image_that_names_files_of_this_machine_is_refused(
    disk: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_kernel, "Appliance", lambda *arguments: pytest.fail("libguestfs was started"))
    target = tmp_path / "disk.qcow2"
    target.write_bytes(disk)
    with pytest.raises(HarnessError, match=why):
        spec.resolve(str(target))


def test_without_guestfish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    target = tmp_path / "disk.qcow2"
    target.write_bytes(qcow2())
    with pytest.raises(HarnessError, match="there is no guestfish; install"):
        spec.resolve(str(target))


@given(st.text())
def test_no_word_gets_out_of_its_quotes(word: str) -> None:
    """guestfish reads a word in double quotes up to the next one that has no backslash before it."""
    if "\n" in word:
        with pytest.raises(HarnessError):
            appliance.quoted(word)
        return
    quoted = appliance.quoted(word)
    inside, position = "", 1
    while position < len(quoted) - 1:
        assert quoted[position] != '"'
        position += quoted[position] == "\\"
        inside += quoted[position]
        position += 1
    assert inside == word
