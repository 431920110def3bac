from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from markdown_it import MarkdownIt

from harness.report import Outcome, Result
from harness.report.markdown import code, escape, render
from harness.report.text import visible
from tests.report.samples import sample, texts, with_text

TAGS = {
    "h2",
    "h3",
    "p",
    "strong",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "pre",
    "br",
    "details",
    "summary",
}


class Shown(HTMLParser):
    """What a reader sees of a page, and the tags it is made of."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.text = ""
        self._in_cell = False
        self.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.cells[-1] += data


def test_a_reader_sees_the_verdict_the_table_and_what_failed() -> None:
    shown = Shown(render(sample(), "redirection fails on this kernel"))
    lines = shown.text.splitlines()
    assert lines[0] == "❌ redirection fails on this kernel"
    assert (
        "2 passed, 1 failed, 1 error, 1 warning, 1 skipped in 3.4 s · live kernel · kernel 6.1.0-25-amd64" in lines[1]
    )
    assert len(shown.cells) == 4 * 6
    assert shown.cells[8:12] == ["❌ FAIL", "redirect.wireserver", "the client's SYN was seen on the veth", "14 ms"]
    assert "⏭️ SKIP" in shown.cells
    assert "ENOSYS: this kernel has no io_uring" in shown.cells
    details = shown.text[shown.text.index("❌ FAIL redirect.wireserver: WireServer") :]
    for part in ("What to do:\nLook what else is attached:\n", "  bpftool cgroup tree", "endpoint: 168.63.129.16:80"):
        assert part in details
    assert shown.tags <= TAGS


def test_the_worst_comes_first_and_what_passed_has_no_details() -> None:
    text = render(sample(), "v")
    assert re.findall("^### .. ?(\\w+) ", text, re.MULTILINE) == ["FAIL", "ERROR", "WARN"]


def test_a_long_log_is_cut_at_its_beginning() -> None:
    text = render(sample(), "v")
    assert "(the first 141 lines are left out; the JSON report has them)" in text
    assert "R1 invalid mem access" in text


def test_nothing_failed() -> None:
    text = render(sample(Result("a.b", "", Outcome.PASS, "fine")), "holds")
    assert text.startswith("## ✅ holds\n")
    assert "###" not in text


SAMPLES = [
    "a|b", "`x` ``y``", "`", "|", "\\|", "<script>alert(1)</script>", "&lt;", "*a* _b_ __c__", "[l](http://x)",
    "a_b_c", "~~x~~", "# h", "a\nb", "\x1b[31m", "\u202e", "\udc80", "$x$", "-->",
    "</details>", "```", "~~~", "1. x", "- x", "![i](x)",
]  # fmt: skip


@pytest.mark.parametrize("text", SAMPLES)
def test_text_from_a_stranger_is_shown_and_does_nothing(text: str) -> None:
    shown = Shown(render(with_text(text), text))
    assert shown.tags <= TAGS
    seen = " ".join(visible(text).split())
    assert len(shown.cells) == 4 * 5
    assert {" ".join(cell.split()) for cell in shown.cells[1::4]} == {seen}
    assert {" ".join(cell.split()) for cell in shown.cells[2::4]} == {seen}
    assert shown.text.splitlines()[0] == f"❌ {visible(text)}"


@given(texts.filter(str.strip))
def test_any_text(text: str) -> None:
    shown = Shown(render(with_text(text), "v"))
    assert shown.tags <= TAGS
    assert len(shown.cells) == 4 * 5
    # Markdown joins spaces in code, and a reader sees no difference.
    assert {" ".join(cell.split()) for cell in shown.cells[1::4]} == {" ".join(visible(text).split())}
    assert {" ".join(cell.split()) for cell in shown.cells[2::4]} == {" ".join(visible(text).split())}


def test_a_log_cannot_end_its_block() -> None:
    shown = Shown(render(sample(Result("a.b", "", Outcome.FAIL, "x", {"log": "1\n```\n<i>**2**</i>"})), "v"))
    assert "log:\n  1\n  ```\n  <i>**2**</i>" in shown.text
    assert shown.tags <= TAGS


def test_escape_and_code() -> None:
    assert escape("a_b | <b> `c`") == r"a_b \| &lt;b&gt; \`c\`"
    assert code("a`b") == "``a`b``"
    assert code("`") == "`` ` ``"
    assert code("a|b") == r"`a\|b`"
