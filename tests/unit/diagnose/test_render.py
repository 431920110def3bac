"""The page on a terminal, as Markdown, JSON and HTML; a stranger's text is shown and never obeyed."""

from __future__ import annotations

import io
import json
import re

import jsonschema
import pytest

from harness.diagnose import page, render
from harness.diagnose.verdict import Verdict
from harness.report import console
from tests.unit.diagnose import made
from tests.unit.diagnose.evidence_corpus import Case, cases

NASTY = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script> **bold** [x](javascript:alert(1)) \u202egnp \x9b31m | `tick`"


def shown(verdict: Verdict) -> str:
    stream = io.StringIO()
    render.show(console.console(stream), verdict)
    return stream.getvalue()


@pytest.fixture(scope="module")
def nasty() -> Verdict:
    return made.read(status_json=made.status(f"Failed to open cgroup '/sys/{NASTY}' with error: {NASTY}"))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_case_renders_in_every_form_and_its_json_is_valid(case: Case) -> None:
    found = case.verdict()
    text = shown(found)
    assert found.code.id in text
    assert found.code.id in render.to_markdown(found)
    whole = json.loads(render.dump(found))
    jsonschema.validate(whole, render.schema())
    assert whole["verdict"] == case.expected["verdict"]
    assert "\x1b" not in text


def test_a_page_quotes_its_evidence_with_file_and_line_and_names_the_guide() -> None:
    case = next(case for case in cases() if case.name == "attach-hybrid-ubuntu")
    text = shown(case.verdict())
    assert re.search(r"status\.json:\d+: ebpfProgramStatus STOPPED: .*bpf_link_create", text)
    assert re.search(r"mount\.txt:3: cgroup2 on /sys/fs/cgroup/unified", text)
    assert "Failed to attach cgroup program for redirection" in text
    assert "sudo update-grub" in text
    assert "Reboot" in text


def test_a_page_fits_on_one_page() -> None:
    """Sixty lines: what a person reads without turning."""
    long = {case.name: len(shown(case.verdict()).splitlines()) for case in cases()}
    assert {name: count for name, count in long.items() if count > 60} == {}


def test_terminal_escapes_never_reach_the_terminal(nasty: Verdict) -> None:
    text = shown(nasty)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "<script>" in text  # shown as it is: on a terminal it is only text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", "\n".join(page.why(nasty)))


def test_markdown_of_evidence_is_text(nasty: Verdict) -> None:
    text = render.to_markdown(nasty)
    outside = re.sub(r"(`+).*?\1", "", text)
    assert "<script" not in outside
    assert "**bold**" not in outside
    assert not re.search(r"(?<!\\)\]\(javascript", outside)


def test_html_of_evidence_is_escaped(nasty: Verdict) -> None:
    text = render.to_html(nasty)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"(?:src|href)=[\"']?https?:", text)


def test_a_command_to_copy_holds_a_strangers_path_quoted() -> None:
    found = made.read(
        status_json=made.status("Failed to open cgroup '/x; touch /owned' with error: No such file or directory")
    )
    assert any("ls -ld '/x; touch /owned'" in step for step in found.findings[0].remedy)


def test_why_leads_from_the_evidence_to_the_verdict() -> None:
    case = next(case for case in cases() if case.name == "key-refused-but-success")
    lines = list(page.why(case.verdict()))
    assert any(line.startswith("setup.key.refused: ") for line in lines)
    assert any("status.json" in line and "403" in line for line in lines)
    assert any("=> MSP-K102" in line for line in lines)
    assert lines[-1] == "Verdict: cause: MSP-K102 The platform refuses to give a key"
    assert any(line.startswith("  service.linux.stopped: no UnitState") for line in lines)
