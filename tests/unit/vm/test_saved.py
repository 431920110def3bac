"""A saved guest's files: whether they are what was saved."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.vm import saved, sparse
from harness.vm.saved import Saved

FILES = {"memory": bytes(1 << 16) + b"something", "devices": b"more"}


@pytest.fixture
def guest(tmp_path: Path) -> Saved:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    record = {
        "sizes": {name: len(content) for name, content in FILES.items()},
        "checksums": {name: sparse.read(tmp_path / name) for name in FILES},
        "statuses": {name: saved._status(tmp_path / name) for name in FILES},
    }
    (tmp_path / "saved.json").write_text(json.dumps(record))
    return Saved(tmp_path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read."""
    names: list[str] = []
    before = sparse.crc

    def crc(path: Path, parts: sparse.Parts) -> int:
        names.append(path.name)
        return before(path, parts)

    monkeypatch.setattr(sparse, "crc", crc)
    return names


def test_what_nobody_wrote_to_is_not_read(guest: Saved, read: list[str]) -> None:
    assert guest.check() == ""
    assert read == []
    assert guest.check(everything=True) == ""
    assert read == ["memory", "devices"]


def test_what_was_written_to_is_read_and_its_damage_found(guest: Saved, read: list[str]) -> None:
    """Also when its time of change was set back: that of its status cannot be."""
    path = guest.entry / "memory"
    before = path.stat()
    path.write_bytes(FILES["memory"].replace(b"some", b"same"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert guest.check() == "memory is not what was saved"
    assert read == ["memory"]


def test_what_was_put_in_its_place_is_read(guest: Saved, read: list[str]) -> None:
    other = guest.entry / "other"
    other.write_bytes(FILES["devices"])
    other.rename(guest.entry / "devices")
    assert guest.checking().result() == ""
    assert read == ["devices"]


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"checksums": {"gone": [0, []]}, "statuses": {}}'])
def test_a_record_that_says_nothing_is_damage(guest: Saved, record: str) -> None:
    (guest.entry / "saved.json").write_text(record)
    assert guest.check()
    assert guest.check(everything=True)
