from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from harness.report import Outcome, Report, Result
from harness.report.console import console, progress, show
from tests.report.samples import LOG, reports, sample, with_text

TOP = Path(__file__).parents[2]


def shown(
    report: Report, verdict: str = "v", *, width: int = 100, verbose: bool = False, encoding: str = "utf-8"
) -> str:
    """What a pipe of this encoding gets."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    show(console(stream, width=width), report, verdict, verbose=verbose)
    return raw.getvalue().decode(encoding)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_the_page_from_top_to_bottom() -> None:
    lines = shown(sample(), "redirection fails on this kernel").splitlines()
    assert lines[0].startswith("msp-harness 0.1.0 · live kernel · kernel 6.1.0-25-amd64 · Debian")
    assert lines[1] == "program sha256:9f2c41d09f2c"
    heads = [re.split(" ─+ ", line) for line in lines if "──" in line]
    assert heads == [
        ["preflight", "1 passed"],
        ["redirect", "1 passed, 1 failed"],
        ["load", "1 error"],
        ["coverage", "1 warning, 1 skipped"],
        ["to look at", "1 failed, 1 error, 1 warning"],
    ]
    assert re.fullmatch(r"✓ PASS   redirect\.imds        goes to the proxy +12 ms", lines[7])
    assert re.fullmatch(r"– SKIP   coverage\.io_uring    ENOSYS: this kernel has no io_uring *", lines[14])
    attention = [line.split()[:3] for line in lines[18:] if line[:1] in "▲!✗" and line[:1]]
    assert attention[:-1] == [
        ["▲", "WARN", "coverage.v6"],
        ["!", "ERROR", "load.hardened"],
        ["✗", "FAIL", "redirect.wireserver"],
    ]
    assert lines[-1] == (
        "✗ redirection fails on this kernel · 2 passed, 1 failed, 1 error, 1 warning, 1 skipped · 3.4 s"
    )


def test_a_failure_has_its_evidence_and_what_to_do() -> None:
    text = shown(sample())
    details = text[text.index("✗ FAIL  redirect.wireserver  WireServer") :].splitlines()
    assert details[1:9] == [
        "    the client's SYN was seen on the veth",
        "      endpoint  168.63.129.16:80",
        "      audit     none",
        "      sides     client, capture",
        "    to do  Look what else is attached:",
        "             bpftool cgroup tree",
        "    guide  Connections are not redirected",
        "    code   MSP-A004",
    ]


def test_verbose_shows_all_evidence_and_what_was_observed() -> None:
    quiet, verbose = shown(sample()), shown(sample(), verbose=True)
    for part in ("45122", "4711", LOG.splitlines()[0]):
        assert part not in quiet
        assert part in verbose
    assert "(the last 8 of 201 lines; -v shows all)" in quiet
    assert "-v shows" not in verbose
    assert "sha256:" + "9f2c41d0" * 8 in verbose


def test_a_warning_shows_its_evidence_only_when_asked() -> None:
    report = sample(Result("a.b", "", Outcome.WARN, "look at it", {"fact": "evidence"}, remedy="do this"))
    assert "evidence" not in shown(report)
    assert "do this" in shown(report)
    assert "evidence" in shown(report, verbose=True)


def test_much_evidence_is_cut() -> None:
    result = Result("a.b", "", Outcome.FAIL, "x", {f"fact {number}": "y" * 500 for number in range(12)})
    text = shown(sample(result))
    assert "fact 7" in text
    assert "fact 8" not in text
    assert "(4 more; -v shows all)" in text
    assert text.count("… (-v shows all)") == 8


def test_all_is_well() -> None:
    text = shown(sample(Result("a.b", "", Outcome.PASS, "fine"), Result("a.c", "", Outcome.SKIP, "no BTF")), "it holds")
    assert text.splitlines()[-1] == "✓ it holds · 1 passed, 1 skipped · 3.4 s"
    assert "to look at" not in text
    assert "no BTF" in text


@settings(max_examples=40)
@given(st.sampled_from([1, 5, 20, 40, 69, 70, 100, 200]), reports, st.booleans())
def test_no_line_is_wider_than_the_console(width: int, report: Report, verbose: bool) -> None:
    lines = shown(report, "it holds", width=width, verbose=verbose).split("\n")
    if width >= 20:
        assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [40, 100, 200])
def test_lines_are_not_padded(width: int) -> None:
    assert [line for line in shown(sample(), width=width, verbose=True).splitlines() if line.endswith(" ")] == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_lost_at_any_width(width: int) -> None:
    words = re.sub(r"\s+", "", shown(sample(), "it holds", width=width))
    for result in sample().results:
        for text in (result.id, result.summary, result.remedy or ""):
            pieces = [text] if width >= 80 else text.split()
            assert all(re.sub(r"\s+", "", piece) in words for piece in pieces)


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[link=http://x]y[/link]", ":smile:", "[bold", "\\[x]"])
def test_markup_is_text(text: str) -> None:
    assert shown(with_text(text)).count(text) > 10


@pytest.mark.parametrize("char", ["\x1b", "\x9b", "\x07", "\x00", "\r", "\x08", "\u202e", "\udc80", "\x7f"])
def test_control_characters_are_shown(char: str) -> None:
    text = shown(with_text(f"a{char}b"), f"a{char}b", verbose=True)
    assert char not in text
    assert "a" + char.encode("unicode_escape").decode() + "b" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
@settings(max_examples=20)
@given(report=reports)
def test_terminals_without_unicode(encoding: str, report: Report) -> None:
    shown(report, "holds → here", encoding=encoding, verbose=True)


def test_ascii() -> None:
    text = shown(sample(), "a → b", encoding="ascii")
    assert "x FAIL   redirect.wireserver" in text
    assert "redirect ----" in text
    assert text.splitlines()[-1].startswith("x a -> b - 2 passed")


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_closed_pipe_is_the_caller_s_business() -> None:
    with pytest.raises(BrokenPipeError):
        show(console(Closed()), sample(), "v")


def test_progress_says_nothing_when_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with progress(console(stream), 2) as told:
        told.starting("a.b", "title")
        told.finished(sample().results[0])
    assert stream.getvalue() == ""


def test_verbose_progress_tells_each_result() -> None:
    stream = io.StringIO()
    with progress(console(stream), 2, verbose=True) as told:
        told.finished(sample().results[1])
        told.finished(Result("a.b", "", Outcome.SKIP, "\x1b[31m"))
    assert stream.getvalue() == "PASS  redirect.imds: goes to the proxy (12 ms)\nSKIP  a.b: \\x1b[31m (<1 ms)\n"


def test_progress_on_a_terminal_is_one_line_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with progress(console(stream, width=100), 2) as told:
        told.starting("redirect.imds", "IMDS is redirected")
        told.starting("redirect.evil", "\x1b[31m\n")
        told.finished(sample().results[1])
        told.finished(Result("redirect.evil", "", Outcome.PASS, ""))
    paintings = stream.getvalue().split("\r\x1b[2K")
    assert paintings[0] == paintings[-1] == ""
    assert "0/2" in paintings[1]
    assert "redirect.imds: IMDS is redirected" in paintings[1]
    assert "redirect.imds, redirect.evil" in paintings[2]
    assert "1/2" in paintings[3]
    assert r"redirect.evil: \x1b[31m\n" in paintings[3]
    assert "━" * 20 in paintings[4]
    assert "\n" not in stream.getvalue()


def test_an_aside_does_not_stand_behind_what_is_painted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(console(sys.stdout, width=100), 2) as told:
        monkeypatch.setattr(sys, "stderr", sys.stdout)  # one terminal for both
        told.starting("redirect.imds", "IMDS is redirected")
        told.aside("58 s: \x1b[31m")
    paintings = capsys.readouterr().out.split("\r\x1b[2K")
    assert "0/2" in paintings[1]
    assert paintings[2] == "58 s: \\x1b[31m\n"
    assert "0/2" in paintings[3]
    assert paintings[-1] == ""


@pytest.mark.parametrize("width", [1, 10, 40, 60, 100])
def test_progress_fits_the_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    told = progress(console(io.StringIO(), width=width), 200)
    for number in range(30):
        told.starting(f"coverage.日本語{number}", "x")
        assert cell_len(told.line()) <= max(width - 1, 1)


def test_progress_survives_a_terminal_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(console(Closed()), 1) as told:
        told.starting("a.b", "title")


SCRIPT = """
from harness.report.console import console, progress, show
from tests.report.samples import sample
screen = console()
with progress(screen, 6) as told:
    for result in sample().results:
        told.starting(result.id, result.title)
        told.finished(result)
show(screen, sample(), "it fails")
"""


def on_a_terminal(**environment: str) -> str:
    """What the script prints on a pseudo-terminal."""
    main, side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=TOP,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
    ) as process:
        os.close(side)
        output = b""
        try:
            while data := os.read(main, 65536):
                output += data
        except OSError:  # EIO: the other side is closed
            pass
        os.close(main)
        assert process.wait(30) == 0
    return output.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_progress() -> None:
    text = on_a_terminal(COLUMNS="90")
    assert "\r\x1b[2K" in text
    assert "\x1b[32m✓ PASS\x1b[0m" in text
    assert "\x1b[1;31m✗ FAIL\x1b[0m" in text


def test_no_color() -> None:
    text = on_a_terminal(COLUMNS="90", NO_COLOR="1")
    assert "✗ FAIL" in text
    assert re.findall(r"\x1b\[[0-9;]*3[0-9](?:;[0-9]+)*m", text) == []


def test_a_dumb_terminal_gets_no_escapes() -> None:
    assert "\x1b" not in on_a_terminal(COLUMNS="90", TERM="dumb")


@pytest.mark.parametrize("width", [40, 90, 200])
def test_columns_is_honoured(width: int) -> None:
    page = on_a_terminal(COLUMNS=str(width)).rpartition("\r\x1b[2K")[2]
    rules = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", page).splitlines() if "──" in line]
    assert rules
    assert {cell_len(rule) for rule in rules} == {width}


def test_rich_is_imported_only_when_something_is_shown() -> None:
    code = "import harness.report.console, sys; print([name for name in sys.modules if name.startswith('rich')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP)
    assert done.stdout == "[]\n"
