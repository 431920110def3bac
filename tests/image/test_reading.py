"""What is not there and what was not read are two answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.image import elf_header, reading
from harness.image.image import Image
from harness.image.reading import Unread
from harness.image.tree import Entry, Kind, Tree
from tests.image import trees
from tests.image.trees import file, folder, link, unread

IMAGE = Image(
    "x",
    trees.DISK,
    Tree(
        {
            "/etc/fstab": file(
                "# a comment\n\nUUID=1 / ext4 rw 0 1\nUUID=2 /data ext4 rw\n"
                "tmpfs /tmp tmpfs rw\nUUID=3 /full xfs rw\nbad\n"
            ),
            "/data": folder(),
            "/tmp": folder(),
            "/full/x": file("x"),
            "/etc/big": unread(),
            "/etc/name": Entry(Kind.FILE, known=False),
            "/etc/link": link("gone"),
        }
    ),
)


def test_absent_is_absent_where_somebody_looked() -> None:
    assert reading.text(IMAGE, "/etc/none") is None
    assert not reading.exists(IMAGE, "/etc/none")
    assert reading.names(IMAGE, "/etc/none") == []
    assert reading.exists(IMAGE, "/etc/link")
    assert reading.text(IMAGE, "/full") is None
    assert not reading.exists(IMAGE, "/tmp/x")
    assert not reading.exists(IMAGE, "/full/y")


@pytest.mark.parametrize("path", ["/data/x", "/data/deep/y"])
def test_a_file_system_that_was_not_mounted_hides_what_is_on_it(path: str) -> None:
    with pytest.raises(Unread, match="/etc/fstab mounts UUID=2 on /data"):
        reading.exists(IMAGE, path)
    with pytest.raises(Unread):
        reading.text(IMAGE, path)


def test_what_could_not_be_read_is_told_with_the_reason() -> None:
    image = replace(IMAGE, unseen={"/srv": "input/output error"})
    with pytest.raises(Unread, match="/srv/a/b was not looked for: input/output error"):
        reading.exists(image, "/srv/a/b")
    assert not reading.exists(image, "/etc/none")
    for everywhere in ("/", "names", "depth"):
        with pytest.raises(Unread, match="cut"):
            reading.exists(replace(IMAGE, unseen={everywhere: "cut"}), "/etc/none")


def test_names_and_contents_are_two_things() -> None:
    with pytest.raises(Unread, match="the content of /etc/big was not read"):
        reading.data(IMAGE, "/etc/big")
    with pytest.raises(Unread, match="nothing but the name"):
        reading.known(IMAGE, "/etc/name")
    with pytest.raises(Unread):
        reading.texts(IMAGE, "/etc")
    assert list(reading.texts(IMAGE, "/etc", "fst*")) == ["/etc/fstab"]
    assert reading.first(IMAGE, "/none", "/full/x") == ("/full/x", "x")
    assert reading.known(IMAGE, "/none") is None


def test_the_rows_of_fstab() -> None:
    assert [row[1] for row in reading.mounts(IMAGE)] == ["/", "/data", "/tmp", "/full"]


@pytest.mark.parametrize(
    ("data", "machine", "interpreter"),
    [
        (trees.elf(62), "x86_64", ""),
        (trees.elf(183), "aarch64", ""),
        (trees.elf(9999), "ELF machine 9999", ""),
        (b"\x7fELF", "", ""),
        (b"#! /bin/sh -e\nexit\n", "", "/bin/sh -e"),
        (b"#!", "", ""),
        (b"", "", ""),
    ],
)
def test_the_head_of_a_program(data: bytes, machine: str, interpreter: str) -> None:
    assert elf_header.machine_of(data) == machine
    assert elf_header.interpreter_of(data) == interpreter
