"""The command line: what each command prints, and with which exit code it ends."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.msp import codes, guide


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.interruption.install", lambda: None)


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as ended:  # argparse's own way for --help and wrong usage
        return int(ended.code or 0)


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    output = capsys.readouterr().out
    assert all(command in output for command in ("verify", "reproduce", "explain", "codes", "clean"))


def test_unknown_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--only", "redirecting") == 2
    assert "no check is named redirecting" in capsys.readouterr().err


def test_list_of_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--list") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[0] == "preflight"
    assert {"load", "attach", "redirect", "untouched", "audit", "removal", "chain", "census", "selftest"} <= set(names)


def test_list_of_failures_has_places_in_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reproduce", "--list") == 0
    output = capsys.readouterr().out
    assert guide.LOAD_FAILED in output
    assert guide.ATTACH_FAILED in output
    assert guide.NOT_APPLIED in output


def test_unknown_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reproduce", "attach-tmpf") == 2
    assert "attach-tmpfs" in capsys.readouterr().err


def test_codes_are_listed_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("codes") == 0
    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert ids == sorted(set(ids))
    assert set(ids) == set(codes.all_codes())


def test_one_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("codes", "msp-a101") == 0
    output = capsys.readouterr().out
    assert codes.NOT_CGROUP2.cause in output
    assert codes.NOT_CGROUP2.remedy in output
    assert run("codes", "MSP-Z999") == 2


def test_explain_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(guide.excerpt_bytes(guide.LOAD_EXCERPT))
    assert run("explain", str(path), "--ticket") == 0
    output = capsys.readouterr().out
    assert "bpf_get_current_pid_tgid" in output
    assert "5.7" in output


def test_explain_standard_input_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.TextIOWrapper(io.BytesIO(guide.excerpt_bytes(guide.ATTACH_EXCERPT)))
    monkeypatch.setattr(sys, "stdin", stream)
    assert run("explain", "-", "--json", "-") == 0
    (explained,) = json.loads(capsys.readouterr().out)
    assert explained["code"].startswith("MSP-A")
    assert {question["command"] for question in explained["questions"]} >= set(guide.CGROUP_QUESTIONS)


def test_explain_here_answers_its_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(guide.excerpt_bytes(guide.ATTACH_EXCERPT))
    assert run("explain", str(path), "--here", "--json", "-") == 0
    (explained,) = json.loads(capsys.readouterr().out)
    answered = {question["command"] for question in explained["questions"] if question["answer"] is not None}
    assert {"uname -r", "grep cgroup /proc/filesystems", "findmnt -t cgroup2"} <= answered


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"{" * 100_000, b"hello\n"])
def test_explain_garbage_says_that_it_is_none(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)
    assert run("explain", str(path)) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


def test_explain_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", str(tmp_path / "none")) == 3
    assert "ENOENT" in capsys.readouterr().err


def test_explain_without_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain") == 2
    assert "FILE" in capsys.readouterr().err
