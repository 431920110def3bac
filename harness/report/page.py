"""Pages: one self-contained HTML file each, without a script, for people who were sent a report.

A page extends base.html and uses macros.html, both in templates/ beside this file, and has all style in itself. It
works without JavaScript (details/summary, filters by CSS), in light and dark, on paper and on narrow screens. Its
content security policy lets nothing be run or fetched, so that even a mistake in a template could not run what a log
says. Whatever a template prints is first made visible (harness.report.text) and then escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.report.console import MARKS
from harness.report.model import Json, Outcome, Report, Result
from harness.report.text import counts, duration, facts, took, visible_lines

if TYPE_CHECKING:
    from jinja2 import Environment

OWN = "harness.report"

WORDS = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.ERROR: "could not find out",
    Outcome.WARN: "warns",
    Outcome.SKIP: "skipped",
}
ATTENTION = (Outcome.FAIL, Outcome.ERROR, Outcome.WARN)  # the worst first: a page is read from its top

_LINES, _CHARACTERS = 300, 4000  # of one fact, and of one line of it: a verifier log may have 100,000 lines


def render(template: str, package: str = OWN, *, style: str = "", **context: object) -> str:
    """The page that a template makes of the context; templates of the package come before those here.

    style is CSS of the page's own, on top of that of all pages: ours, never text from outside.
    """
    from markupsafe import Markup

    environment = _environment(package)
    whole = environment.get_template("style.css").render() + style
    digest = base64.b64encode(hashlib.sha256(whole.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template(template).render(style=Markup(whole), policy=policy, **context) + "\n"


def template(name: str, package: str = OWN) -> str:
    """What a template without variables holds: a page's own style."""
    return _environment(package).get_template(name).render()


def worst(results: list[Result] | Report) -> Outcome:
    """The outcome that stands for all of them: FAIL, ERROR, WARN, PASS, or SKIP where nothing else is there."""
    found = {result.outcome for result in (results.results if isinstance(results, Report) else results)}
    return next((outcome for outcome in (*ATTENTION, Outcome.PASS) if outcome in found), Outcome.SKIP)


@functools.cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        """What is printed: markup of our own as it is, anything else as text on which nothing is obeyed."""
        return value if isinstance(value, Markup) else "\n".join(visible_lines(str(value)))

    loaders = [PackageLoader(name, "templates") for name in dict.fromkeys((package, OWN))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        marks=MARKS,
        words=WORDS,
        attention=ATTENTION,
        Outcome=Outcome,
        counts=counts,
        worst=worst,
        facts=_facts,
    )
    environment.filters["duration"] = duration
    environment.filters["took"] = took
    return environment


def _facts(known: Mapping[str, Json]) -> list[tuple[str, str, bool]]:
    """Name, text, and whether the text is a block of its own: a log, or a list of things that are no words."""
    rows: list[tuple[str, str, bool]] = []
    for name, value in known.items():
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value) and _long(value):
            rows.append((name, _shortened("\n".join(value)), True))
        elif isinstance(value, dict) and value and not any(isinstance(item, (dict, list)) for item in value.values()):
            rows.append((name, _shortened("\n".join(f"{key}: {text}" for key, text in facts(value))), True))
        else:
            text = facts({name: value})[0][1]
            rows.append((name, _shortened(text), "\n" in text.strip("\n")))
    return rows


def _long(items: list[str]) -> bool:
    return sum(map(len, items)) > 60 or any("\n" in item for item in items) or (len(items) > 1 and " " in items[0])


def _shortened(text: str) -> str:
    """A long text's end, where a log says what went wrong."""
    lines = text.rstrip("\n").split("\n")
    kept = [line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]} …" for line in lines[-_LINES:]]
    if len(kept) < len(lines):
        kept.insert(0, f"(the first {len(lines) - len(kept)} lines are left out; the JSON report has them)")
    return "\n".join(kept)
