"""Archives on their way into the appliance: whole, damaged, endless, unwanted; and a directory as one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import zstandard

from harness.errors import HarnessError
from harness.image import pack, stream
from harness.vm import archives
from harness.vm.appliance import Appliance
from tests.image.systems import tree


class Stub:
    """An appliance that reads so much of what it is given; nothing: it does not even open it."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self.got = b""

    def complaints(self) -> int:
        return 0

    def ask(self, command: str, seconds: float = 0) -> list[str]:
        if self._most != 0:
            with Path(command.split('"')[1]).open("rb") as file:
                self.got = file.read(-1 if self._most is None else self._most)
        return []


def sent(stub: Stub, place: Path, writer: Callable[[BinaryIO], None]) -> bytes:
    assert stream.unpack(cast(Appliance, stub), place, writer, "/") == ""
    assert not list(place.glob("stream"))
    return stub.got


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
END = bytes(stream.BLOCK)
every_packer = pytest.mark.parametrize("packer", PACKERS)


@every_packer
def test_all_of_an_archive_arrives(packer: str, tmp_path: Path) -> None:
    content = os.urandom(3 << 20) + END
    (tmp_path / "a.tar").write_bytes(PACKERS[packer](content))
    assert sent(Stub(), tmp_path, stream.copying(tmp_path / "a.tar")) == content


@every_packer
@pytest.mark.parametrize("padding", [0, 4, 3 << 20])
def test_packers_that_write_several_streams(packer: str, padding: int, tmp_path: Path) -> None:
    """As pbzip2 and pixz do; xz pads with zeros between them."""
    content = os.urandom(1 << 20) + END
    between = bytes(padding) if packer in (".xz", ".bz2") else b""
    parts = (content[:1000], content[1000:1000], content[1000:])
    (tmp_path / "a.tar").write_bytes(between.join(PACKERS[packer](part) for part in parts))
    assert sent(Stub(), tmp_path, stream.copying(tmp_path / "a.tar")) == content


@pytest.mark.parametrize("most", [0, 100])
def test_who_does_not_read_on_is_not_waited_for(tmp_path: Path, most: int) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(8 << 20))
    assert sent(Stub(most), tmp_path, stream.copying(tmp_path / "a.tar")) == bytes(most)


@every_packer
@pytest.mark.parametrize("left", [1, 8, 100, 500_000, -20_000, -1024])
def test_an_archive_that_is_cut_off_is_an_error(packer: str, left: int, tmp_path: Path) -> None:
    whole = PACKERS[packer](os.urandom(1 << 20) + END)
    (tmp_path / "a.tar").write_bytes(whole[:left])
    with pytest.raises(HarnessError, match=r"cut off|damaged|too early"):
        sent(Stub(), tmp_path, stream.copying(tmp_path / "a.tar"))


def test_an_archive_without_its_end_is_an_error_for_tar_says_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(3):
            tar.add(__file__, arcname=f"{number}")
        end = tar.offset
    os.truncate(archive, end)
    assert subprocess.run(["tar", "-tf", archive], capture_output=True).returncode == 0
    with pytest.raises(HarnessError, match="cut off"):
        sent(Stub(), tmp_path, stream.copying(archive))


@pytest.mark.parametrize(
    ("said", "is_error"),
    [
        ("tar: Unexpected EOF in archive tar: Error is not recoverable: exiting now", True),
        ("tar: Skipping to next header tar: Exiting with failure status due to previous errors", True),
        ("tar: dev/null: Cannot mknod: Operation not permitted", False),
    ],
)
def test_what_tar_left_out_is_an_error(said: str, is_error: bool, tmp_path: Path) -> None:
    class Complaining(Stub):
        def complaints(self) -> int:
            return len(self.got)

        def said(self) -> str:
            return said

    (tmp_path / "a.tar").write_bytes(END)
    unpack = partial(stream.unpack, cast(Appliance, Complaining()), tmp_path, stream.copying(tmp_path / "a.tar"), "/")
    if not is_error:
        assert unpack() == said
        return
    with pytest.raises(HarnessError, match="tar: ") as caught:
        unpack()
    assert caught.value.remedy


def test_an_archive_that_does_not_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", 1 << 20)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(HarnessError, match="unpacks to more than"):
        sent(Stub(), tmp_path, stream.copying(tmp_path / "bomb.tar.gz"))


def packed(directory: Path, *, everything: bool = False) -> tuple[dict[str, tarfile.TarInfo], bytes, dict[str, str]]:
    unseen: dict[str, str] = {}
    target = io.BytesIO()
    pack.write(directory, target, unseen, everything=everything)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        return {member.name: member for member in tar}, target.getvalue(), unseen


def test_a_directory_is_packed_with_the_contents_that_are_looked_at(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"home/private": b"of no interest" * 1000}, hostile=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
    members, content, unseen = packed(root)
    assert members["etc/hostname"].size == 5
    assert b"of no interest" not in content
    assert members["home/private"].size == 14_000  # a sparse file
    assert members["srv"].size == 10 << 30
    assert members["etc/out"].linkname == "../../../../../etc/passwd"
    assert members["etc/pipe"].isfifo()
    assert members[os.fsdecode(b"etc/\xff\xfe")].size == 7
    assert "socket" not in members
    assert "directories lie one in the other" in unseen["depth"]
    assert len(content) < 4 << 20


def test_everything_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content" * 100)
    assert b"content" * 100 in packed(tmp_path, everything=True)[1]


def test_no_more_names_than_are_bearable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_NAMES", 10)
    for number in range(20):
        (tmp_path / str(number)).touch()
    members, _, unseen = packed(tmp_path)
    assert len(members) == 10
    assert "more than 10 names" in unseen["names"]


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "root")
    whole = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if str(path).endswith("hostname"):
            raise PermissionError(13, "no")
        return whole(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    members, _, unseen = packed(root)
    assert "EACCES" in unseen["/etc/hostname"]
    assert "etc/hostname" not in members
    assert "etc/fstab" in members


def test_a_file_that_fails_half_way_leaves_the_archive_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "root")
    whole = pack._Exactly.read

    def failing(self: pack._Exactly, size: int = -1) -> bytes:
        if self._left == len("test\n"):
            self._file.close()
            self._file = cast(BinaryIO, Broken())
        return whole(self, size)

    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "bad sector")

    monkeypatch.setattr(pack._Exactly, "read", failing)
    members, _, unseen = packed(root)
    assert "EIO" in unseen["/etc/hostname"]
    assert members["etc/hostname"].size == 5
    assert "var/lib/waagent/provisioned" in members
