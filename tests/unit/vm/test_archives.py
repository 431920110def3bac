"""Packages are read, and nothing in them happens."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.vm import archives, unpacked_kernel
from tests.unit.vm import made


def contents(path: Path) -> dict[str, bytes]:
    read = archives.deb_files if path.suffix == ".deb" else archives.tar_files
    return {file.name.removeprefix("./"): file.content.read() for file in read(path)}


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_a_package_gives_its_files(tmp_path: Path) -> None:
    package = made.deb(tmp_path, made.FILES, name="linux-image")
    assert contents(package) == dict(made.FILES)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names(form: int, tmp_path: Path) -> None:
    name = "/".join(["directory"] * (15 if form == tarfile.USTAR_FORMAT else 40)) + "/file"
    assert contents(tar(tmp_path / "a.tar", (file(name), b"1"), (file("b"), b"2"), form=form)) == {
        name: b"1",
        "b": b"2",
    }


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar",
        (link("lib/modules", "/etc"), b""),
        (link("hard", "/etc/passwd", tarfile.LNKTYPE), b""),
        (link("device", "", tarfile.CHRTYPE), b""),
        (file("lib/modules/file"), b"content"),
    )
    assert contents(path) == {"lib/modules/file": b"content"}


@pytest.mark.parametrize(
    "name", ["../boot/vmlinuz-1", "boot/../../vmlinuz-1", "lib/modules/1/../../../x.ko", "./lib/modules/../etc/passwd"]
)
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", (file(name), b"content"))
    with pytest.raises(HarnessError, match="do not trust"):
        unpacked_kernel.collect(archives.tar_files(path), tmp_path / "place", "a.tar")
    assert [each.name for each in tmp_path.iterdir()] == ["a.tar"]


def test_what_is_no_part_of_a_kernel_stays_out(tmp_path: Path) -> None:
    names = ["etc/passwd", "boot/vmlinuz-1/deeper", "lib/modules/../x", "/lib/modules/-x/a.ko", "lib/modules/1/a.txt"]
    wanted = ["boot/vmlinuz-1", "usr/lib/modules/1/kernel/a.ko.xz", "/lib/modules/1/modules.builtin"]
    members = [(file(name), b"1") for name in (*names[:2], *names[3:], *wanted)]
    unpacked_kernel.collect(archives.tar_files(tar(tmp_path / "a.tar", *members)), tmp_path / "place", "a.tar")
    found = {str(path.relative_to(tmp_path / "place")) for path in (tmp_path / "place").rglob("*") if path.is_file()}
    assert found == {"boot/vmlinuz-1", "lib/modules/1/kernel/a.ko.xz", "lib/modules/1/modules.builtin"}


def test_a_file_where_a_directory_is_needed(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", (file("lib/modules/1/a.ko"), b"1"), (file("lib/modules/1/a.ko/b.ko"), b"2"))
    with pytest.raises(HarnessError, match="is a file and a directory"):
        unpacked_kernel.collect(archives.tar_files(path), tmp_path / "place", "a.tar")


def test_a_package_that_goes_on_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = made.deb(tmp_path, {"big": bytes(4 << 20)}, name="big")
    monkeypatch.setattr(archives, "LARGEST", 1 << 20)
    with pytest.raises(HarnessError, match="unpacks to more than"):
        contents(package)


def test_more_files_than_a_kernel_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_kernel, "_FILES", 2)
    path = tar(tmp_path / "a.tar", *[(file(str(number)), b"") for number in range(3)])
    with pytest.raises(HarnessError, match="more than 2 files"):
        unpacked_kernel.collect(archives.tar_files(path), tmp_path / "place", "a.tar")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    small = {"lib/modules/1/a.ko": b"content" * 20, "boot/vmlinuz-1": b"kernel"}
    return made.deb(tmp_path_factory.mktemp("deb"), small, name="small").read_bytes()


@given(st.data())
def test_a_damaged_package_gives_files_or_an_error(package: bytes, data: st.DataObject) -> None:
    content = bytearray(package)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]), archives.deb_files)


@given(st.data())
def test_a_damaged_tar_gives_files_or_an_error(data: st.DataObject) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a" * 150, "lib/modules/1/b.ko"):
            member = file(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"12345"))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]), archives.tar_files)


@given(st.binary(max_size=500), st.sampled_from([archives.DEB_MAGIC, archives.RPM_MAGIC + bytes(92)]))
def test_what_only_begins_like_a_package(content: bytes, magic: bytes) -> None:
    check(magic + content, archives.deb_files)
    check(magic + content, archives.rpm_files)
    check(magic + content, archives.rpm_tags)


def check(content: bytes, read: Callable[[Path], object]) -> None:
    """Reading gives files, or a HarnessError."""
    with NamedTemporaryFile() as target:
        target.write(content)
        target.flush()
        with suppress(HarnessError):
            found = read(Path(target.name))
            for each in () if isinstance(found, archives.RpmTags) else cast(Iterable[archives.File], found):
                each.content.read()


def test_a_file_that_no_kernel_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_kernel, "_LARGEST", 100)
    path = tar(tmp_path / "a.tar", (file("etc/large"), bytes(200)), (file("lib/modules/1/modules.order"), bytes(200)))
    with pytest.raises(HarnessError, match=r"modules\.order in it is larger"):
        unpacked_kernel.collect(archives.tar_files(path), tmp_path / "place", "a.tar")
