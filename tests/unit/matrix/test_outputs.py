"""A matrix as JSON, JUnit, Markdown and HTML: whole, valid, and nothing from outside obeyed."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.errors import HarnessError
from harness.matrix import html, junit, markdown, summary
from harness.matrix import json as matrix_json
from harness.matrix.differences import differences
from harness.matrix.model import Cell, Matrix, Program, Row, exit_code, headline
from harness.report import Outcome, Report
from harness.report import html as report_html
from harness.report import json as report_json
from harness.report.console import console
from harness.report.text import visible
from tests.report.samples import reports, sample, texts, with_text
from tests.report.test_junit import junit_schema as junit_schema
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, matrix

MIXED = matrix({"5.4 old": REFUSED, "5.10 bullseye": PASSED, "6.1 bookworm": PANIC}, ("plain", "co_re.o"))
BEFORE = matrix({"5.4 old": REFUSED, "5.10 bullseye": REFUSED, "6.1 bookworm": PASSED}, ("plain", "co_re.o"))


def from_stranger(text: str) -> Matrix:
    """The same text wherever one may come from outside."""
    row, program = Row(text, text, text, text, text), Program(text, text)
    cell = Cell(row.name, text, text, with_text(text))
    return Matrix([row], [program], [text], [cell], text, text, text, 1.0)


matrices = st.builds(
    lambda found, spec: Matrix(
        [Row(spec, "", one.kernel, one.target, "") for one in [found]],
        [Program("plain")],
        [],
        [Cell(spec, "plain", "key", found)],
        "0.1.0",
        found.started,
        found.ended,
        1.0,
    ),
    reports,
    texts.filter(lambda text: not text.endswith(" ")),
)

# --- JSON ---


@pytest.fixture(scope="session")
def validator() -> jsonschema.Draft202012Validator:
    found = report_json.schema()
    registry: referencing.Registry[Any] = referencing.Registry().with_resource(
        found["$id"], referencing.Resource.from_contents(found)
    )
    jsonschema.Draft202012Validator.check_schema(matrix_json.schema())
    return jsonschema.Draft202012Validator(matrix_json.schema(), registry=registry)


def test_it_is_as_its_schema_has_it(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(json.loads(matrix_json.dump(MIXED)))
    broken = json.loads(matrix_json.dump(MIXED))
    del broken["cells"][0]["report"]["kernel"]
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_every_member_is_described(validator: jsonschema.Draft202012Validator) -> None:
    text = json.dumps(matrix_json.schema())
    for word in (*matrix_json._TOP, *matrix_json._CELL, *matrix_json._ROW, *matrix_json._RUN):
        assert f'"{word}"' in text


def same(one: Matrix, other: Matrix) -> bool:
    return matrix_json.dump(one) == matrix_json.dump(other)


def test_it_comes_back() -> None:
    again = matrix_json.load(matrix_json.dump(MIXED))
    assert same(again, MIXED)
    assert again.rows == MIXED.rows
    assert [cell.report for cell in again.cells] == [cell.report for cell in MIXED.cells]


@given(matrices)
@settings(max_examples=50)
def test_any_matrix_comes_back(made: Matrix) -> None:
    assert same(matrix_json.load(matrix_json.dump(made)), made)


DAMAGES = {
    "no JSON": lambda top: "{",
    "a list": lambda top: "[]",
    "nested": lambda top: "[" * 100_000,
    "another schema": lambda top: json.dumps(top | {"schema": "x/9"}),
    "a member more": lambda top: json.dumps(top | {"x": 1}),
    "no kernels": lambda top: json.dumps({name: value for name, value in top.items() if name != "kernels"}),
    "kernels as text": lambda top: json.dumps(top | {"kernels": "x"}),
    "a kernel as a number": lambda top: json.dumps(top | {"kernels": [1]}),
    "one cell": lambda top: json.dumps(top | {"cells": top["cells"][:1]}),
    "a cell twice": lambda top: json.dumps(top | {"cells": [top["cells"][0]] * len(top["cells"])}),
    "seconds as text": lambda top: json.dumps(top | {"run": top["run"] | {"seconds": "1"}}),
    "reused as numbers": lambda top: json.dumps(top | {"run": top["run"] | {"reused": [1]}}),
    "a digest as a number": lambda top: json.dumps(top | {"programs": [{"name": "plain", "digest": 1}]}),
    "an outcome that is another": lambda top: json.dumps(
        top | {"cells": [top["cells"][0] | {"outcome": "PASS"}, *top["cells"][1:]]}
    ),
    "a report of another layout": lambda top: json.dumps(
        top | {"cells": [top["cells"][0] | {"report": {}}, *top["cells"][1:]]}
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_anything_else_is_refused(name: str) -> None:
    text = DAMAGES[name](json.loads(matrix_json.dump(MIXED)))  # type: ignore[no-untyped-call]
    with pytest.raises(HarnessError, match="cannot read the matrix"):
        matrix_json.load(text)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(HarnessError, match="ENOENT"):
        matrix_json.read("/nonexistent/matrix.json")


# --- JUnit ---


def test_a_ci_server_accepts_it(junit_schema: Any) -> None:
    junit_schema.validate(junit.render(MIXED))


def test_a_suite_for_each_kernel() -> None:
    text = junit.render(MIXED)
    assert re.findall('<testsuite name="([^"]*)"', text) == ["old", "bullseye", "bookworm"]
    assert 'classname="msp-harness.co_re_o.load" name="co_re.o: load.connect4"' in text
    assert text.count("<error ") == 2
    assert text.count("<failure ") == 2


@given(matrices)
@settings(max_examples=50)
def test_any_matrix_is_xml(made: Matrix) -> None:
    import xml.etree.ElementTree as ET

    ET.fromstring(junit.render(made))  # our own text


# --- Markdown ---


def test_markdown() -> None:
    text = markdown.render(MIXED, differences(BEFORE, MIXED), "the last run")
    assert text.startswith("## ❌ 2 programs on 3 kernels: 2 of 6 pairs fail, 2 hold; 2 could not be found out\n")
    assert "| `old` | 5.4.0-1-amd64 | ❌ **refused**" in text
    assert "💥 **no answer**" in text
    assert "<sub>link ✓ multi ✓ override ✓ single ✓</sub>" in text
    assert "### Compared with the last run: 2 worse, 2 fixed" in text
    assert "refused by 5.4 \\(old\\)" in text or "refused by 5.4 (old)" in text
    assert "unknown func bpf\\_get\\_current" in text or "unknown func bpf_get_current" in text


class Tags(HTMLParser):
    """The elements, attributes and text of a page; whether every element that is opened is closed."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


MARKDOWN_TAGS = {"h2", "h3", "h4", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "br",
                 "details", "summary", "sub", "ul", "li"}  # fmt: skip


@given(texts.filter(str.strip))
@settings(max_examples=50)
def test_markdown_obeys_nobody(text: str) -> None:
    made = from_stranger(text)
    rendered = markdown.render(made, differences(from_stranger("before"), made), text)
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(rendered)
    assert Tags(parsed).tags <= MARKDOWN_TAGS


def test_a_summary_that_is_too_long_says_so() -> None:
    log = {"log": "\n".join(["x" * 4000] * 60)}
    huge = [replace(REFUSED[1], evidence=log) for _ in range(10)]
    text = markdown.render(matrix({"5.4 old": huge, "5.10 a": huge}))
    assert len(text.encode()) < 1 << 20
    assert "more is left out here" in text


# --- HTML ---

PAGE_TAGS = {"html", "head", "meta", "title", "style", "body", "a", "div", "header", "p", "h1", "h2", "h3", "h4",
             "span", "dl", "dt", "dd", "main", "section", "input", "label", "code", "strong", "details", "summary",
             "ul", "li", "table", "caption", "thead", "tbody", "tr", "th", "td", "footer", "pre"}  # fmt: skip
PAGE_ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "href", "id", "type", "checked", "role",
                   "for", "aria-label", "aria-hidden", "open", "tabindex", "title", "scope"}  # fmt: skip

HOSTILE = [
    "<script>alert(1)</script>", "</title><script>alert(1)</script>", "</style><script>1</script>", '"><img src=x>',
    "' onclick='x", "&lt;script&gt;", "{{ 7 * 7 }}", "{% raw %}", "\x1b[31mred", "\u202e", "\udc80", "<!--", "]]>",
    "javascript:x", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_shows_hostile_text_and_obeys_none(text: str) -> None:
    made = from_stranger(text)
    page = html.render(made, differences(from_stranger("before"), made), text)
    found = Tags(page)
    assert found.open == []
    assert found.tags <= PAGE_TAGS
    assert found.attributes <= PAGE_ATTRIBUTES
    assert found.text.count(visible(text)) >= 10
    assert "\x1b" not in page
    assert "\u202e" not in page


@given(texts.filter(str.strip))
@settings(max_examples=40)
def test_any_text_on_a_page(text: str) -> None:
    for page in (html.render(from_stranger(text)), report_html.render(with_text(text), text)):
        found = Tags(page)
        assert found.open == []
        assert found.tags <= PAGE_TAGS
        assert found.attributes <= PAGE_ATTRIBUTES


@given(reports)
@settings(max_examples=40)
def test_any_report_is_a_page(made: Report) -> None:
    found = Tags(report_html.render(made, "v"))
    assert found.open == []
    assert found.tags <= PAGE_TAGS


def test_a_page_needs_nothing_else() -> None:
    for page in (html.render(MIXED), report_html.render(sample(), "v")):
        assert "http://" not in page
        assert "https://" not in page
        assert re.findall(r'\b(?:src|href)="([^"]*)"', page) == ["#content"]
        assert "<script" not in page
        assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_the_page_has_it_all() -> None:
    text = Tags(html.render(MIXED, differences(BEFORE, MIXED), "the baseline")).text
    for part in (
        "2 programs on 3 kernels: 2 of 6 pairs fail, 2 hold; 2 could not be found out",
        "from 5.10 on: refused by 5.4 (old), accepted by 5.10 (bullseye)",
        "5.15",
        "Compared with the baseline",
        "2 worse, 2 fixed",
        "unknown func bpf_get_current_pid_tgid#14",
        "the kernel panicked: no init",
        "not known: not tried, since it does not load",
    ):
        assert part in text


def test_a_log_of_100_000_lines_is_cut_at_its_beginning() -> None:
    log = "\n".join(f"{number}: (bf) r6 = r1" for number in range(100_000)) + "\nthe end"
    page = html.render(matrix({"5.4 old": [replace(REFUSED[1], evidence={"log": log})]}))
    assert len(page) < 100_000
    assert "the end" in page
    assert "lines are left out; the JSON report has them" in page


# --- the whole in a sentence ---


@pytest.mark.parametrize(
    ("found", "outcome", "said", "status"),
    [
        ({"6.1 b": PASSED}, Outcome.PASS, "1 program on 1 kernel: it holds", 0),
        ({"6.1 b": PASSED, "6.2 c": PASSED}, Outcome.PASS, "1 program on 2 kernels: all 2 hold", 0),
        ({"6.1 b": REFUSED, "6.2 c": PASSED}, Outcome.FAIL, "1 program on 2 kernels: 1 of 2 pairs fail, 1 hold", 1),
        ({"6.1 b": PANIC}, Outcome.ERROR, "1 program on 1 kernel: 1 of 1 pair could not be found out", 1),
    ],
)
def test_headline(found: Any, outcome: Outcome, said: str, status: int) -> None:
    made = matrix(found)
    assert headline(made) == (outcome, said)
    assert exit_code(made) == status


def shown(made: Matrix, **more: Any) -> str:
    stream = io.StringIO()
    screen = console(stream, width=200)
    for line in summary.lines(screen, made, more.get("found"), "the baseline", more.get("is_baseline", False)):
        screen.print(line, soft_wrap=True)
    return stream.getvalue()


def test_the_end_of_what_is_printed() -> None:
    lines = shown(MIXED).splitlines()
    assert lines[-1].startswith(
        "✗ 2 programs on 3 kernels: 2 of 6 pairs fail, 2 hold; 2 could not be found out · 1 min"
    )
    assert "FAIL old × plain: load.connect4: the verifier refused it: unknown func" in lines
    assert any(line.startswith("plain loads: from 5.10 on: refused by 5.4 (old)") for line in lines)


def test_with_a_baseline_the_last_line_is_about_it() -> None:
    found = differences(MIXED, MIXED)
    assert (
        shown(MIXED, found=found, is_baseline=True)
        .splitlines()[-1]
        .startswith("✓ nothing changed compared with the baseline; 2 programs")
    )
    found = differences(BEFORE, MIXED)
    assert shown(MIXED, found=found, is_baseline=True).splitlines()[-1].startswith("✗ 2 worse, 2 fixed")


def test_kept_cells_are_told() -> None:
    made = replace(MIXED, cells=[replace(cell, reused=True) for cell in MIXED.cells])
    assert "6 of 6 kept from before" in shown(made)
