"""Which CRIU is used: one that brought a process back in a trial here; none in other cases, which is told with why."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.kernel import facts
from harness.vm import cache, criu

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="CRIU is for root")


@pytest.fixture
def works() -> tuple[str, ...]:
    found = criu.command()
    if not found:
        pytest.skip(f"no CRIU works here: {json.loads((cache.directory() / 'criu.json').read_text())['why']}")
    return found


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing was asked yet."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "vm")
    return tmp_path / "vm"


def test_one_that_works_passes_the_trial_and_others_do_not(works: tuple[str, ...], tmp_path: Path) -> None:
    assert criu._fault(works) == ""
    assert "freeze a process" in criu._fault(("false",))
    pretender = tmp_path / "pretender"  # freezes in earnest, and brings nothing back
    pretender.write_text('#!/bin/sh\n[ "$1" = restore ] && exit 1\nexec ' + " ".join(works) + ' "$@"\n')
    pretender.chmod(0o755)
    assert "no process comes back" in criu._fault((str(pretender),))


def test_nothing_is_left_on_this_machine(works: tuple[str, ...]) -> None:
    """CRIU keeps what it finds out about a kernel in /run, and the tmpfs that is there for it is called criu."""

    def left() -> list[str]:
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - tmpfs criu " in line]
        return [*mounts, *map(str, Path("/run").glob("criu*"))]

    before = left()
    assert criu._fault(works) == ""
    assert left() == before


def test_where_none_can_be_had_that_is_told_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tell: object) -> tuple[str, ...]:
        raise HarnessError("fetch packages", "no registry")

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(criu, "_unpacked", refuse)
    told: list[str] = []
    assert criu.command(told.append) == ()
    assert ["no registry" in line for line in told] == [True]
    assert criu.command(told.append) == ()
    assert len(told) == 1


def test_the_answer_is_for_this_boot(own_cache: Path, works: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    criu._remember(works, "")
    assert criu.command() == works
    monkeypatch.setattr(facts, "boot_id", lambda: "another boot")
    monkeypatch.setattr(criu, "_found", lambda tell: ((), "asked again"))
    assert criu.command() == ()


def test_a_garbled_answer_is_asked_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu, "_found", lambda tell: (("found",), ""))
    for content in ("", "[]", '{"asked": 1}', json.dumps({"asked": criu._asked(), "command": None})):
        own_cache.mkdir(exist_ok=True)
        (own_cache / "criu.json").write_text(content)
        assert criu.command() == ("found",)
