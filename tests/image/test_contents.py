"""What comes out of the appliance, bounded: too many names, damaged archives, complaints of find and tar."""

from __future__ import annotations

import base64
import io
import secrets
import tarfile
import zlib
from typing import cast

import pytest

from harness.errors import HarnessError
from harness.image import contents
from harness.image.tree import Kind
from harness.vm.appliance import Appliance

ROOT = b"d 755 0 0 1 .\0\0"


def names(*paths: str) -> bytes:
    return b"".join(f"f 644 0 0 1 ./{path}".encode() + b"\0\0" for path in paths)


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.pax_headers = {"SCHILY.xattr.security.selinux": "label\0"}
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


class Stub:
    """An appliance that answers with what it was made of; asked holds the scripts."""

    def __init__(
        self, listed: bytes, first: bytes = b"", files: bytes = b"", found: str = "", tarred: str = ""
    ) -> None:
        self.asked: list[str] = []
        self._listed, self._first, self._files = listed, first, files
        self._found, self._tarred = found, tarred

    def shell(self, script: str, seconds: float = 0) -> str:
        self.asked.append(script)
        if "tar --create" in script:
            said, packed = self._tarred, self._files
        elif " find " in script:
            said, packed = self._found, self._first if self._first and " find . " not in script else self._listed
        else:
            return ""
        self._packed = zlib.compress(packed, wbits=31)
        return "\n".join(base64.b64encode(each).decode() for each in (said.encode(), self._packed[: contents.FIRST]))

    def put(self, data: bytes, path: str) -> None:
        self.asked.append(path)

    def content(self, path: str, largest: int, seconds: float = 0) -> bytes:
        assert path == "/tmp/packed"
        return self._packed


def read(stub: Stub) -> contents.Contents:
    return contents.contents(cast(Appliance, stub))


def test_names_and_contents() -> None:
    found = read(Stub(ROOT + names("etc/hosts", "home/x"), files=archive({"etc/hosts": b"h"})))
    entry = found.tree.entry("/etc/hosts")
    assert entry is not None
    assert (entry.data, entry.attributes) == (b"h", {"security.selinux": b"label\0"})
    assert found.tree.is_file("/home/x")
    assert not found.unseen


def test_of_too_many_names_those_that_matter_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_NAMES", 50)
    stub = Stub(ROOT + names(*(f"home/{number}" for number in range(1000))), first=names("etc/hosts"))
    found = read(stub)
    assert found.tree.is_file("/etc/hosts")
    assert "more than 50 names" in found.unseen["names"]
    assert sum(entry.kind is Kind.FILE for _, entry in found.tree.below("/")) == 49  # the root is one of them


def test_a_list_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_NAMES", 1 << 20)
    found = read(Stub(ROOT + names(*(f"home/{number:0100}" for number in range(20_000))), first=names("etc/hosts")))
    assert "1 MiB of names" in found.unseen["names"]
    assert found.tree.is_file("/etc/hosts")


def test_what_find_and_tar_complain_of_is_told() -> None:
    stub = Stub(
        ROOT + names("etc/hosts", "etc/bad", "etc/gone"),
        files=archive({"etc/hosts": b"h", "etc/bad": bytes(1)}),
        found="find: './lost': Input/output error\n",
        tarred="tar: etc/bad: Read error at byte 0, while reading 1 byte: Input/output error\n",
    )
    found = read(stub)
    assert found.unseen == {
        "/lost": "Input/output error",
        "/etc/bad": "Read error at byte 0, while reading 1 byte: Input/output error",
        "/etc/gone": "it could not be read",
    }
    assert found.tree.data("/etc/bad") is None  # tar pads with zeros what it cannot read


@pytest.mark.parametrize("keep", [0, 100, 700, 1600])
def test_an_archive_that_was_cut_off(keep: int) -> None:
    files = archive({"etc/a": b"a" * 600, "etc/b": b"b" * 600})
    found = read(Stub(ROOT + names("etc/a", "etc/b"), files=files[:keep]))
    assert "/etc/b" in found.unseen
    assert found.tree.data("/etc/b") is None


def test_much_comes_in_several_answers() -> None:
    many = {f"etc/{number:05}{secrets.token_hex(100)}": b"" for number in range(3000)}
    stub = Stub(ROOT + names(*many), files=archive(many))
    found = read(stub)
    assert sum(entry.data == b"" for _, entry in found.tree.below("/etc")) == 3000
    assert "/tmp/given" in stub.asked


def test_no_names_at_all_is_an_error() -> None:
    with pytest.raises(HarnessError, match="find in the appliance gave none"):
        read(Stub(b""))
