"""`msp-harness diagnose` as a user runs it: exit codes, files, standard input, garbage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from harness.cli import main
from harness.diagnose import render

EVIDENCE = Path(__file__).parents[1] / "corpus" / "evidence"


def bundle(name: str) -> str:
    return str(EVIDENCE / name / "bundle")


@pytest.mark.parametrize(
    ("name", "status"),
    [("healthy-linux", 0), ("not-enforced", 0), ("attach-hybrid-ubuntu", 1), ("attach-guide", 1), ("nothing-known", 1)],
)
def test_the_exit_code_is_the_verdicts(name: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", bundle(name)]) == status
    assert "MSP-" in capsys.readouterr().out


def test_wrong_usage_is_2_and_a_path_that_is_not_there_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose"]) == 2
    assert main(["diagnose", "--here", "x"]) == 2
    assert main(["diagnose", "/does/not/exist"]) == 3
    assert "/does/not/exist" in capsys.readouterr().err


def test_files_are_written_in_every_form_and_json_keeps_its_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {form: str(tmp_path / f"page.{form}") for form in ("json", "markdown", "html")}
    arguments = [word for form, name in names.items() for word in (f"--{form}", name)]
    assert main(["diagnose", bundle("key-refused-but-success"), *arguments]) == 1
    whole = json.loads(Path(names["json"]).read_text())
    jsonschema.validate(whole, render.schema())
    assert whole["code"] == "MSP-K102"
    assert "MSP-K102" in Path(names["markdown"]).read_text()
    assert "MSP-K102" in Path(names["html"]).read_text()
    assert "MSP-K102" in capsys.readouterr().out


def test_a_paste_on_standard_input_and_markdown_on_standard_output() -> None:
    text = (EVIDENCE / "attach-guide" / "bundle" / "status.txt").read_bytes()
    command = [sys.executable, "-m", "harness", "diagnose", "-", "--markdown", "-"]
    done = subprocess.run(command, input=text, capture_output=True)
    assert done.returncode == 1
    assert done.stdout.decode().startswith("## Cannot tell: ")
    assert not done.stderr


def test_a_reader_that_goes_away_and_garbage_end_quietly() -> None:
    command = [sys.executable, "-m", "harness", "diagnose", "-"]
    garbage = bytes(range(256)) * 400 + b"\x1b[2J" * 50
    done = subprocess.run(command, input=garbage, capture_output=True)
    assert done.returncode == 1
    assert b"MSP-E191" in done.stdout
    assert b"\x1b" not in done.stdout
    assert b"Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, input=garbage, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert gone.returncode in (1, 3)
    assert b"Traceback" not in gone.stderr


def test_the_rules_are_listed_and_why_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--list-rules"]) == 0
    assert "setup.attach.not-mounted" in capsys.readouterr().out
    assert main(["diagnose", bundle("attach-hybrid-ubuntu"), "--why"]) == 1
    assert "=> MSP-A103" in capsys.readouterr().out
