"""`msp-harness matrix`: usage, exit codes, files; with kernels and guests that are invented."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.cli import matrix
from harness.matrix import json as matrix_json
from harness.matrix import run, store
from harness.matrix.question import KERNELS
from harness.report import Report, Result
from harness.vm import spec
from harness.vm.job import Job
from harness.vm.machine import Machine
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, report
from tests.unit.matrix.test_run import kernel

Ask = Callable[..., int]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Sequence[Result]]:
    """What guests answer, by program; the others pass."""
    found: dict[str, Sequence[Result]] = {}

    def guest(machine: Machine, job: Job) -> Report:
        return report(found.get(job.arguments[-1], PASSED), machine.kernel.release)

    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spec, "resolve", kernel)
    monkeypatch.setattr(store, "harness_digest", lambda: "code")
    monkeypatch.setattr(run, "perform", lambda: guest)
    return found


@pytest.fixture
def ask(answers: dict[str, Sequence[Result]]) -> Ask:
    def asked(*words: str) -> int:
        parser = argparse.ArgumentParser()
        matrix.add(parser.add_subparsers())
        options = parser.parse_args(["matrix", *words])
        status: int = options.command(options)
        return status

    return asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--checks", "nonsense"), "cannot run the checks nonsense: there are none of that name"),
        (("--programs", "mine"), "cannot use the programs mine: there are none of that name"),
        (("--programs", "none"), "cannot make a matrix: it has no program"),
        (("--objects", "/nonexistent.o"), "ENOENT"),
        (("--baseline", "/nonexistent.json"), "ENOENT"),
        (("--jobs", "0"), "--jobs and --timeout want numbers above 0"),
        (("--timeout", "-1"), "--jobs and --timeout want numbers above 0"),
    ],
)
def test_usage(words: tuple[str, ...], said: str, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(*words) == 2
    assert said in capsys.readouterr().err


def test_the_kernels_of_the_help_are_those_that_are_used() -> None:
    assert ", ".join(KERNELS) == matrix._DEFAULT_KERNELS


def test_a_comma_in_a_spec_that_parts_nothing(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    words = ("--kernels", "./vmlinuz,modules=lib,bookworm", "--programs", "plain", "--json", str(path))
    assert ask(*words) == 0
    assert [row.spec for row in matrix_json.read(str(path)).rows] == ["vmlinuz,modules=lib", "bookworm"]


WORDS = ("--kernels", "bookworm,bullseye")


def test_exit_codes(answers: dict[str, Sequence[Result]], ask: Ask, tmp_path: Path) -> None:
    assert ask(*WORDS) == 0
    baseline = str(tmp_path / "baseline.json")
    answers["hardened"] = REFUSED
    assert ask(*WORDS, "--no-cache", "--write-baseline", baseline) == 1
    assert ask(*WORDS, "--no-cache", "--baseline", baseline) == 0  # it fails as before
    answers["plain"] = PANIC
    assert ask(*WORDS, "--no-cache", "--baseline", baseline) == 1
    answers.clear()
    assert ask(*WORDS, "--no-cache", "--baseline", baseline) == 0


def test_the_last_run_is_remembered(
    answers: dict[str, Sequence[Result]], ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "m.html"
    ask(*WORDS, "--html", str(page))
    assert "compared with" not in capsys.readouterr().out
    assert "Compared with" not in page.read_text()
    answers["hardened"] = REFUSED
    ask(*WORDS, "--no-cache", "--html", str(page))
    out = capsys.readouterr().out
    assert "compared with the last run, " in out
    assert "worse   bookworm × hardened load.connect4: the verifier refused it" in out
    assert "Compared with the last run" in page.read_text()
    ask("--kernels", "bookworm")  # another question
    assert "compared with" not in capsys.readouterr().out


def test_json_on_stdout_is_nothing_but_json(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(*WORDS, "--json", "-") == 0
    caught = capsys.readouterr()
    assert len(matrix_json.load(caught.out).cells) == 4
    assert "all 4 hold" in caught.err


def test_a_file_that_cannot_be_written_is_told(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(*WORDS, "--html", "/nonexistent/m.html") == 3
    caught = capsys.readouterr()
    assert "ENOENT" in caught.err
    assert "all 4 hold" in caught.out
