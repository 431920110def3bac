"""The pages as a person meets them: by keyboard, without JavaScript, in light and dark, narrow, on paper."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from selenium.webdriver.common.keys import Keys

from harness.matrix import html
from harness.matrix.differences import differences
from harness.report import html as report_html
from tests.browser.conftest import Browser
from tests.report.samples import LOG, sample
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, matrix
from tests.unit.matrix.test_outputs import from_stranger

MIXED = matrix({"5.4 old": REFUSED, "5.10 bullseye": PASSED, "6.1 bookworm": PANIC}, ("plain", "hardened", "co_re.o"))
BEFORE = matrix({"5.4 old": PASSED, "5.10 bullseye": REFUSED}, ("plain", "hardened", "co_re.o"))
MATRIX = html.render(MIXED, differences(BEFORE, MIXED), "the baseline")
PAGES: Mapping[str, str] = {"matrix": MATRIX, "report": report_html.render(sample(), "redirection fails")}

OPEN_ALL = "for (const one of document.querySelectorAll('details')) one.open = true"

CONTRASTS = """
// Each text that is seen: its contrast with what is behind it (WCAG 2.2, 1.4.3), and the text.
const channel = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const colour = text => text.match(/[0-9.]+/g).map(Number);
const behind = element => {
	for (; element; element = element.parentElement) {
		const found = colour(getComputedStyle(element).backgroundColor);
		if (found.length === 3 || found[3] === 1) return found;
		if (found[3] !== 0) throw Error('half transparent: ' + element.className);
	}
	throw Error('nothing is behind');
};
const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
	const node = walker.currentNode, element = node.parentElement, range = document.createRange();
	range.selectNodeContents(node);
	if (!node.data.trim() || !range.getClientRects().length) continue;
	if (element.closest('.unseen, .skip, [data-test-hidden]')) continue;
	const style = getComputedStyle(element), one = light(colour(style.color)), other = light(behind(element));
	found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), node.data.trim().slice(0, 60)]);
}
return found;
"""


def contrasts(browser: Browser) -> list[tuple[float, str]]:
    found = browser.run(CONTRASTS)
    assert len(found) > 30
    return [(ratio, text) for ratio, text in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_stands_out(browser: Browser, name: str, scheme: str) -> None:
    browser.media(prefers_color_scheme=scheme)
    browser.open(PAGES[name])
    browser.run(OPEN_ALL)
    assert [one for one in contrasts(browser) if one[0] < 4.5] == []
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 3 * 128) is (scheme == "dark")


def test_text_that_does_not_stand_out_is_found(browser: Browser) -> None:
    browser.open(MATRIX)
    browser.run("document.querySelector('h1').style.color = '#ccc'")
    assert [text for ratio, text in contrasts(browser) if ratio < 4.5] == [
        "3 programs on 3 kernels: 3 of 9 pairs fail, 3 hold; 3 could not be found out"[:60]
    ]


FOCUSED = "const one = document.activeElement.closest('details.cell'); return one && [one.id, one.open]"


def test_every_cell_is_reached_by_tab_and_opened_by_enter(browser: Browser) -> None:
    browser.open(MATRIX)
    wanted = browser.run("return [...document.querySelectorAll('details.cell')].map(one => one.id)")
    assert len(wanted) == len(set(wanted)) == 9
    reached = []
    for _ in range(60):
        browser.press(Keys.TAB)
        cell = browser.run(FOCUSED)
        if cell is None:
            continue
        name, opened = cell
        if name in reached:
            break
        assert not opened
        assert browser.run("return document.activeElement.matches(':focus-visible')")
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press(Keys.ENTER)
        assert browser.run(FOCUSED) == [name, True]
        (evidence,) = browser.find(f"#{name} .evidence-of")
        assert evidence.is_displayed()
        browser.press(Keys.ENTER)
        assert browser.run(FOCUSED) == [name, False]
        reached.append(name)
    assert reached == wanted


def test_what_a_cell_opens_has_the_whole_width(browser: Browser) -> None:
    browser.open(MATRIX)
    before = [one.rect["x"] for one in browser.find("details.cell > summary")]
    browser.find("details.cell > summary")[1].click()
    (evidence,) = [one for one in browser.find(".evidence-of") if one.is_displayed()]
    (table,) = browser.find(".matrix")
    assert evidence.rect["width"] > 0.98 * table.rect["width"]
    assert [one.rect["x"] for one in browser.find("details.cell > summary")] == before  # no cell moved aside


def test_it_is_read_without_javascript(browser: Browser) -> None:
    with browser.without_javascript():
        browser.open("<title>no</title><p>x</p><script>document.title = 'scripts run'</script>")
        assert browser.driver.title == "no"
        browser.open(MATRIX)
        text = browser.driver.find_element("css selector", "body").text
        for part in (
            "3 of 9 pairs fail",
            "from 5.10 on: refused by 5.4 (old)",
            "Compared with the baseline",
            "no answer",
        ):
            assert part in text
        assert "not tried, since it does not load" not in [one.text for one in browser.find("details.cell")]
        browser.find("details.cell > summary")[0].click()
        (evidence,) = [one for one in browser.find(".evidence-of") if one.is_displayed()]
        assert "unknown func bpf_get_current_pid_tgid#14" in evidence.text
        assert "use a newer kernel" in evidence.text


def test_filters_work_by_keyboard_alone(browser: Browser) -> None:
    browser.open(MATRIX)
    browser.run("document.getElementById('show-all').focus()")
    browser.press(Keys.ARROW_RIGHT)  # the first of the outcomes: what failed
    seen = [one for one in browser.find("details.cell > summary") if one.is_displayed()]
    assert len(seen) == 3
    assert all("refused" in one.text for one in seen)
    browser.press(Keys.ARROW_LEFT)
    assert len([one for one in browser.find("details.cell > summary") if one.is_displayed()]) == 9


@pytest.mark.parametrize("pixels", [320, 720, 1280])
@pytest.mark.parametrize("name", [*PAGES, "hostile"])
def test_no_page_is_wider_than_its_window(browser: Browser, name: str, pixels: int) -> None:
    browser.width(pixels)
    browser.open(PAGES[name] if name in PAGES else html.render(from_stranger("long" * 100)))
    browser.run(OPEN_ALL)
    wide, window = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= window


def test_on_paper(browser: Browser) -> None:
    browser.media("print", prefers_color_scheme="dark")
    browser.open(MATRIX)
    assert [one for one in browser.find(".filters") if one.is_displayed()] == []
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.run(OPEN_ALL)
    assert [one for one in contrasts(browser) if one[0] < 4.5] == []


PAYLOADS = (
    "<script>window.obeyed = 1</script>",
    "<img src=x onerror='window.obeyed = 1'>",
    "</title></style><script>window.obeyed = 1</script>",
    '" autofocus onfocus="window.obeyed = 1" x="',
    "</pre></details><svg onload='window.obeyed = 1'></svg>",
    "</code><iframe srcdoc='<script>parent.obeyed = 1</script>'></iframe>",
    "<details open ontoggle='window.obeyed = 1'>",
    "<style>* { display: none }</style>",
    "<meta http-equiv=refresh content='0;url=about:blank'>",
    "<base href='x:'>",
)


@pytest.mark.parametrize("text", PAYLOADS)
def test_hostile_text_is_shown_and_nothing_of_it_is_run(browser: Browser, text: str) -> None:
    for page in (html.render(from_stranger(text)), report_html.render(from_stranger(text).cells[0].report, text)):
        browser.open(page)
        browser.run(OPEN_ALL)
        assert browser.run("return window.obeyed === undefined")
        assert (
            browser.run("return document.querySelectorAll('script, img, svg, iframe, style ~ style, base').length") == 0
        )
        assert text in browser.driver.find_element(
            "css selector", "h1, h2, h3, .sentence, dd"
        ).text or text in browser.run("return document.body.innerText")
        assert browser.complaints() == []


@pytest.mark.parametrize("policy", [False, True])
def test_what_would_be_run_is_noticed(browser: Browser, policy: bool) -> None:
    """The control: without our escaping it is obeyed, and with our policy not even then."""
    content = MATRIX.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert "style-src" in content
    head = f'<meta http-equiv="Content-Security-Policy" content="{content}">' if policy else ""
    browser.open(f"<!doctype html>{head}<p>x</p>{PAYLOADS[0]}")
    assert browser.run("return window.obeyed === undefined") is policy
    assert bool(browser.complaints()) is policy


def test_a_log_is_scrolled_by_keyboard(browser: Browser) -> None:
    browser.open(PAGES["report"])
    browser.run("document.querySelector('details.out-ERROR').open = true; document.querySelector('pre').focus()")
    assert LOG.splitlines()[-1] in browser.find("pre")[0].text
    browser.press(Keys.END)
    browser.cdp("Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True)
    assert browser.run("return document.activeElement.tagName") == "PRE"
