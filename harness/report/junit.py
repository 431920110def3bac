"""A Report as JUnit XML, as CI servers read it (Jenkins' junit-10.xsd; GitLab and the reporters of GitHub take it too).

A group of checks is a testsuite, a Result a testcase. FAIL is a failure, ERROR an error, SKIP skipped; JUnit knows no
warning, so WARN passes and says what it found in system-out.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from harness.report.model import Outcome, Report, Result
from harness.report.text import facts

_FORBIDDEN = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""All but the characters of XML 1.0, 2.2 (Char); a carriage return counts, since a parser would not give it back."""

_ELEMENT = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}


def render(report: Report) -> str:
    """The whole document, ASCII, with a newline at the end."""
    top = ET.Element("testsuites", _attributes(name="msp-harness", **_totals(list(report.results), report.seconds)))
    for number, (group, results) in enumerate(report.groups().items()):
        top.append(_suite(report, number, group, results))
    ET.indent(top)
    body = ET.tostring(top, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def xml_text(text: str) -> str:
    r"""The text with each character that XML 1.0 does not allow shown as an escape (`\x1b`)."""
    return _FORBIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def _attributes(**values: str) -> dict[str, str]:
    return {name: xml_text(value) for name, value in values.items()}


def _totals(results: list[Result], seconds: float) -> dict[str, str]:
    outcomes = [result.outcome for result in results]
    return {
        "tests": str(len(results)),
        "failures": str(outcomes.count(Outcome.FAIL)),
        "errors": str(outcomes.count(Outcome.ERROR)),
        "time": f"{seconds:.3f}",
    }


def _suite(report: Report, number: int, group: str, results: list[Result]) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        _attributes(
            name=group,
            id=str(number),
            timestamp=report.started,
            skipped=str(sum(result.outcome is Outcome.SKIP for result in results)),
            **_totals(results, sum(result.seconds for result in results)),
        ),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("target", report.target),
        ("kernel", report.kernel),
        ("distribution", report.distribution),
        ("harness_version", report.harness_version),
        ("program", report.program or ""),
        ("run", report.run),
    ):
        ET.SubElement(properties, "property", _attributes(name=name, value=value))
    suite.extend(_case(result) for result in results)
    return suite


def _case(result: Result) -> ET.Element:
    case = ET.Element(
        "testcase",
        _attributes(classname=f"msp-harness.{result.group}", name=result.id, time=f"{result.seconds:.3f}"),
    )
    if name := _ELEMENT.get(result.outcome):
        attributes = _attributes(message=result.summary, type=result.code or result.outcome.value)
        ET.SubElement(case, name, attributes).text = xml_text(_details(result))
    elif result.outcome is Outcome.WARN:
        ET.SubElement(case, "system-out").text = xml_text(f"WARN: {result.summary}\n{_details(result)}")
    return case


def _details(result: Result) -> str:
    rows = [("what", result.title), ("what to do", result.remedy), ("guide", result.guide), ("code", result.code)]
    lines = [f"{name}: {text}" for name, text in rows if text]
    lines += [f"{name}: {text}" for name, text in facts({**result.evidence, **result.observed})]
    return "\n".join(lines)
