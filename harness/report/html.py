"""A Report as one self-contained HTML page: the verdict first, then what needs attention, then everything."""

from __future__ import annotations

from harness.report import page
from harness.report.model import Outcome, Report, exit_code


def render(report: Report, verdict: str) -> str:
    """The page; ends with a newline. The verdict is one short sentence about the whole."""
    outcome = page.worst(report) if exit_code(report) else Outcome.PASS
    return page.render("report.html", report=report, verdict=verdict, outcome=outcome)
