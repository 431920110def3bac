"""The corpus of evidence: a folder a case, with the evidence in bundle/ and the verdict it must get in expected.json.

expected.json: verdict and code; also: codes that must stand beside it; contradictions: exactly these; never: codes
that must not appear anywhere (near misses); about: why the case is there; now: the moment of the diagnosis.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.diagnose import intake
from harness.diagnose.verdict import Verdict, diagnose

FOLDER = Path(__file__).parents[2] / "corpus" / "evidence"
TOOLS = FOLDER.parent / "readers"
"""Outputs of real tools, with the verdicts of its folders and files in verdicts.json."""
NOW = datetime(2026, 11, 25, tzinfo=UTC)
_MEMBERS = {"about", "verdict", "code", "also", "contradictions", "never", "now"}


@dataclass(frozen=True)
class Case:
    name: str
    expected: dict[str, Any]

    @property
    def bundle(self) -> Path:
        return FOLDER / self.name / "bundle" if "/" not in self.name else TOOLS / self.name

    def verdict(self) -> Verdict:
        now = datetime.fromisoformat(self.expected["now"]) if "now" in self.expected else NOW
        return diagnose(intake.read([self.bundle]), now)


def cases() -> Sequence[Case]:
    """Every case, by name. Raises ValueError for an expected.json of another form."""
    found = []
    for path in sorted(FOLDER.glob("*/expected.json")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        if unknown := set(expected) - _MEMBERS:
            raise ValueError(f"{path}: unknown members {sorted(unknown)}")
        found.append(Case(path.parent.name, expected))
    return found


def of_tools() -> Sequence[Case]:
    """The verdicts on what real tools printed, by folder or file of TOOLS."""
    rows = json.loads((TOOLS / "verdicts.json").read_text(encoding="utf-8"))
    return [Case(name, {"verdict": verdict, "code": code, **more}) for name, (verdict, code, more) in rows.items()]


def problems(case: Case, found: Verdict) -> list[str]:
    """In what a verdict is not the expected one; empty: in nothing."""
    expected = case.expected
    beside = {row.code.id for row in (*found.also, *found.findings[1:])}
    contradictions = {row.code.id for row in found.contradictions}
    everything = beside | contradictions | {found.code.id}
    rows = []
    if (found.kind.value, found.code.id) != (expected["verdict"], expected["code"]):
        wanted = f"{expected['verdict']} {expected['code']}"
        rows.append(f"{wanted} is right, not {found.kind.value} {found.code.id}: {found.summary}")
    if missing := set(expected.get("also", ())) - beside:
        rows.append(f"{sorted(missing)} should stand beside it")
    if contradictions != set(expected.get("contradictions", ())):
        rows.append(f"contradictions {sorted(contradictions)}, not {expected.get('contradictions', [])}")
    if wrong := set(expected.get("never", ())) & everything:
        rows.append(f"{sorted(wrong)} must not be found")
    return rows
