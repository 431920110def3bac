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
    top = ET.Element("testsuites", attributes(name="msp-harness", **totals(list(report.results), report.seconds)))
    for number, (group, results) in enumerate(report.groups().items()):
        top.append(_suite(report, number, group, results))
    return document(top)


def xml_text(text: str) -> str:
    r"""The text with each character that XML 1.0 does not allow shown as an escape (`\x1b`)."""
    return _FORBIDDEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def attributes(**values: str) -> dict[str, str]:
    """An element's attributes, their values made fit for XML."""
    return {name: xml_text(value) for name, value in values.items()}


def totals(results: list[Result], seconds: float) -> dict[str, str]:
    """What a testsuite counts."""
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
        attributes(
            name=group,
            id=str(number),
            timestamp=report.started,
            skipped=str(sum(result.outcome is Outcome.SKIP for result in results)),
            **totals(results, sum(result.seconds for result in results)),
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
        ET.SubElement(properties, "property", attributes(name=name, value=value))
    suite.extend(case(result, f"msp-harness.{result.group}", result.id) for result in results)
    return suite


def case(result: Result, classname: str, name: str) -> ET.Element:
    """A Result as a testcase."""
    found = ET.Element("testcase", attributes(classname=classname, name=name, time=f"{result.seconds:.3f}"))
    if element := _ELEMENT.get(result.outcome):
        told = attributes(message=result.summary, type=result.code or result.outcome.value)
        ET.SubElement(found, element, told).text = xml_text(_details(result))
    elif result.outcome is Outcome.WARN:
        ET.SubElement(found, "system-out").text = xml_text(f"WARN: {result.summary}\n{_details(result)}")
    return found


def document(top: ET.Element) -> str:
    """The whole document, ASCII, with a newline at the end."""
    ET.indent(top)
    body = ET.tostring(top, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _details(result: Result) -> str:
    rows = [("what", result.title), ("what to do", result.remedy), ("guide", result.guide), ("code", result.code)]
    lines = [f"{name}: {text}" for name, text in rows if text]
    lines += [f"{name}: {text}" for name, text in facts({**result.evidence, **result.observed})]
    return "\n".join(lines)
