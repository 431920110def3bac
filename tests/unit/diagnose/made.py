"""Evidence made in memory, for tests of rules and pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from harness.diagnose import facts as f
from harness.diagnose import intake
from harness.diagnose.facts import Evidence, Fact, Source
from harness.diagnose.verdict import Verdict, diagnose

NOW = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)


def source(text: str = "line", document: str = "made.txt", line: int = 1) -> Source:
    return Source(document, line, text)


def evidence(*facts: Fact) -> Evidence:
    return Evidence(facts, (f.Document("made.txt", 1, ("made",)),))


def verdict(*facts: Fact) -> Verdict:
    return diagnose(evidence(*facts), NOW)


def read(**documents: str) -> Verdict:
    """The verdict on documents by name (`status_json`: status.json)."""
    found: list[Fact] = []
    for name, text in documents.items():
        found += intake.read_bytes(text.encode(), name.replace("_", ".")).facts
    return diagnose(evidence(*found), NOW)


def status(message: str, part: str = "ebpfProgramStatus", state: str = "STOPPED") -> str:
    """A status.json of which one part says this."""
    parts = {name: {"status": "RUNNING", "message": ""} for name in ("keyLatchStatus", "ebpfProgramStatus")}
    parts[part] = {"status": state, "message": message}
    whole = {"timestamp": "2026-11-24T17:59:00Z", "proxyAgentStatus": {"version": "1.0.30", "status": "ERROR", **parts}}
    return json.dumps(whole)
