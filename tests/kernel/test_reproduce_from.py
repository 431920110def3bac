"""reproduce --from BUNDLE: what a customer's evidence shows, brought about here, with the customer's message."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main

EVIDENCE = Path(__file__).parents[1] / "corpus" / "evidence"

pytestmark = pytest.mark.kernel


def test_the_customers_message_comes_about_here(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["reproduce", "--from", str(EVIDENCE / "attach-exclusive" / "bundle")])
    text = " ".join(capsys.readouterr().out.split())
    assert status == 0
    assert "failure: attach-exclusive-same-link" in text
    assert "the message equals the customer's" in text


def test_a_failure_that_is_not_of_a_kernel_is_not_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["reproduce", "--from", str(EVIDENCE / "unit-inactive" / "bundle")])
    assert status == 0
    assert "no recipe brings about MSP-P312" in " ".join(capsys.readouterr().out.split())


def test_from_and_a_name_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--from", str(EVIDENCE), "attach-tmpfs"]) == 2
    assert "give no NAME" in capsys.readouterr().err
