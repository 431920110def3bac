"""The corpus: each log of a real kernel reads as it was read when it was added."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness.msp import guide
from harness.verifier import complaints
from harness.verifier.explain import explain_text
from harness.verifier.explanation import ticket
from harness.verifier.parse import parse
from tests.verifier.corpus import ROOT, cases, reading

CASES = list(cases())
HASHES = {
    "load-failed.txt": "ef30777a9a4eb5b92412468197bbcacddad65feda189d753b628299a417ef70b",
    "attach-failed.txt": "0a522e45c86d6947139414bb625b34f8b7937c5adf6158a7bff99a42c21da8f4",
}


def test_there_is_a_corpus() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(("path", "expected"), CASES, ids=[path.stem for path, _ in CASES])
def test_reading(path: Path, expected: dict[str, Any]) -> None:
    log = parse(path.read_bytes())
    found = complaints.find(log.complaint)
    assert found is not None
    assert found.row.id == expected["row"]
    assert reading(log) == {name: value for name, value in expected.items() if name not in ("kernel", "row")}


PASTED = sorted((ROOT.parent / "explain").glob("*.json"))


@pytest.mark.parametrize("path", PASTED, ids=[path.stem for path in PASTED])
def test_explanation(path: Path) -> None:
    """What was pasted, and beside it what explain must say of it."""
    expected = json.loads(path.read_text())
    explained = explain_text(path.with_suffix("").read_bytes())
    assert [row.code.id for row in explained] == expected["code"]
    assert [row.subject for row in explained] == expected["subject"]
    assert explained[0].kernel == expected["kernel"]
    text = ticket(explained)
    assert [word for word in expected["says"] if word not in text] == []
    assert [word for word in expected.get("absent", []) if word in text] == []
    if expected["lines"] is not None:
        assert list(explained[0].lines) == expected["lines"]


@pytest.mark.parametrize("name", guide.EXCERPTS)
def test_the_guides_excerpts_are_in_the_corpus_byte_for_byte(name: str) -> None:
    assert (ROOT.parent / "explain" / f"guide-{name}").read_bytes() == guide.excerpt_bytes(name)


def test_the_guides_excerpts_are_those_of_the_guide() -> None:
    """Their hashes, taken from the guide's file: an editor that trims or re-encodes them is noticed."""
    hashes = {name: hashlib.sha256(guide.excerpt_bytes(name)).hexdigest() for name in guide.EXCERPTS}
    assert hashes == HASHES
