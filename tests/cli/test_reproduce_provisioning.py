"""`reproduce provisioning-…` on the command line: apart from all the others, and never among `all` in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli, failures
from harness.image import provisioning
from harness.report import Outcome, Result


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.interruption.install", lambda: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command asked for; nothing is booted."""
    found: list[dict[str, Any]] = []

    def reproduce(names: list[str], progress: object = None, **more: Any) -> Iterator[Result]:
        found.append({"names": names, "races": more["races"]})
        more["tell"]("37 s: it has an address")
        yield Result("reproduce.provisioning-race", "The race", Outcome.PASS, "reproduced in 2 of 3 boots")

    monkeypatch.setattr(provisioning, "reproduce", reproduce)
    return found


def test_the_list_has_every_row_and_says_that_they_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "--list"]) == 0
    output = capsys.readouterr().out
    lines = {line.split()[0]: line for line in output.splitlines() if not line.startswith(" ")}
    assert {recipe.name for recipe in provisioning.RECIPES} <= set(lines)
    assert output.count("minutes, not among all") == len(provisioning.RECIPES)


def test_it_is_told_while_it_goes_and_reported(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    assert cli.main(["reproduce", "provisioning-race", "--repeat", "5", "--json", str(report)]) == 0
    captured = capsys.readouterr()
    assert asked == [{"names": ["provisioning-race"], "races": 5}]
    assert "it has an address" in captured.err
    assert "reproduced in 2 of 3 boots" in captured.out
    assert json.loads(report.read_text())["results"][0]["id"] == "reproduce.provisioning-race"


WRONG = [
    (["provisioning-foo"], "did you mean provisioning-"),
    (["provisioning-race", "attach-tmpfs"], "name it alone"),
    (["provisioning-race", "--repeat", "-1"], "--repeat N"),
    (["provisioning-race", "--binary", "/bin/true"], "none of the options of the others"),
    (["attach-tmpfs", "--repeat", "3"], "--repeat goes with provisioning-race"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_wrong_usage(words: list[str], says: str, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", *words]) == 2
    assert says in capsys.readouterr().err
    assert asked == []


def test_all_says_what_it_leaves_out(
    asked: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[list[str]] = []

    def reproduce(names: list[str], *more: object) -> Iterator[Result]:
        named.append(names)
        yield from ()

    monkeypatch.setattr(failures, "reproduce", reproduce)
    assert cli.main(["reproduce", "all"]) == 0
    assert "`reproduce provisioning` brings them about" in capsys.readouterr().err
    assert asked == []
    assert named == [["all"]]
