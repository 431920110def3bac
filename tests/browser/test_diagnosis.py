"""A diagnosis page in Chromium: nothing that evidence holds runs, is fetched or breaks the page."""

from __future__ import annotations

import pytest

from harness.diagnose import render
from tests.browser.conftest import Browser
from tests.unit.diagnose import made
from tests.unit.diagnose.evidence_corpus import cases

NASTY = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><b id=owned>x</b>"


def test_html_in_evidence_is_text_in_the_page(browser: Browser) -> None:
    found = made.read(status_json=made.status(f"Failed to open cgroup '{NASTY}' with error: {NASTY}"))
    browser.open(render.to_html(found))
    assert browser.run("return document.title").startswith("cause found: ")
    assert browser.find("script, img, #owned") == []
    assert "<script>document.title='owned'</script>" in browser.run("return document.body.innerText")
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    "name", ["attach-guide", "win-core-signature-german", "load-whole-in-the-log", "healthy-linux"]
)
def test_a_page_fits_its_window_and_says_its_verdict_first(browser: Browser, name: str, width: int) -> None:
    case = next(case for case in cases() if case.name == name)
    browser.width(width)
    browser.open(render.to_html(case.verdict()))
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert case.verdict().code.title in browser.find("h1")[0].text
    assert browser.complaints() == []
