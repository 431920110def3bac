"""A guest that cannot be frozen: CRIU is to blame, or a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.vm import boot, cache, criu, frozen
from harness.vm.guest import Guest
from harness.vm.qemu import Refused


@pytest.fixture
def blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A guest whose CRIU fails; whom that is blamed on."""

    memory = tmp_path / "its memory"
    memory.write_bytes(b"something")

    @contextmanager
    def at_work(*_: object) -> Iterator[Any]:
        yield SimpleNamespace(process=None), None, memory

    def fail(*_: object) -> None:
        raise HarnessError("freeze a process by CRIU", "it does not work")

    told: list[str] = []
    monkeypatch.setattr(frozen, "_at_work", at_work)
    monkeypatch.setattr(frozen, "Monitor", lambda ends: SimpleNamespace(ask=lambda command: None))
    monkeypatch.setattr(boot, "initial", lambda machine, guest: b"")
    monkeypatch.setattr(criu, "freeze", fail)
    monkeypatch.setattr(criu, "distrust", told.append)
    return told


def save(place: Path) -> None:
    machine: Any = SimpleNamespace(memory=1)
    guest = Guest(Path("root"), Path("busybox"), "name")
    with frozen.save(machine, guest, "tcg", place, lambda running: None, ("criu",)):
        pass


def test_criu_is_not_trusted_any_more(tmp_path: Path, blamed: list[str]) -> None:
    with pytest.raises(Refused, match="it does not work"):
        save(tmp_path)
    assert ["it does not work" in why for why in blamed] == [True]


def test_not_for_a_disk_that_is_full(tmp_path: Path, blamed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "full", lambda: True)
    with pytest.raises(HarnessError, match="it does not work"):
        save(tmp_path)
    assert blamed == []
