"""The corpus: each log of a real kernel reads as it was read when it was added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.verifier import complaints
from harness.verifier.parse import parse
from tests.verifier.corpus import cases, reading

CASES = list(cases())


def test_there_is_a_corpus() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(("path", "expected"), CASES, ids=[path.stem for path, _ in CASES])
def test_reading(path: Path, expected: dict[str, Any]) -> None:
    log = parse(path.read_bytes())
    found = complaints.find(log.complaint)
    assert found is not None
    assert found.row.id == expected["row"]
    assert reading(log) == {name: value for name, value in expected.items() if name not in ("kernel", "row")}
