"""Chromium without a window, for tests that open the HTML pages; without it they are skipped, and say why."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.kernel import packages

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROGRAMS = {"chromium": packages.CHROMIUM, "chromedriver": packages.CHROMEDRIVER}
WORDS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--window-size=1280,1000")  # fmt: skip


def _cannot_look() -> str:
    missing = [need for program, need in PROGRAMS.items() if shutil.which(program) is None]
    return packages.install_hint(missing) if missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _cannot_look()
    for item in items:
        if reason and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


class Browser:
    """A page in Chromium. Scripts that a test runs are the test's own: the page's are what it may forbid."""

    def __init__(self, driver: Chrome, directory: Path) -> None:
        self.driver = driver
        self._directory = directory

    def open(self, page: str) -> None:
        path = self._directory / "page.html"
        path.write_text(page)
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def find(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def press(self, key: str) -> None:
        self.driver.switch_to.active_element.send_keys(key)

    def media(self, media: str = "", **features: str) -> None:
        """As on paper (`print`), or with prefers-color-scheme and the like (with _ for -)."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", media=media, features=wanted)

    def width(self, pixels: int) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=False)

    @contextmanager
    def without_javascript(self) -> Iterator[None]:
        """Pages opened meanwhile run nothing."""
        self.cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.cdp("Emulation.setScriptExecutionDisabled", value=False)

    def complaints(self) -> list[str]:
        """What Chromium logged: refused scripts, resources that are not there."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in (*WORDS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(word)
    with Chrome(options=options, service=ChromeService(shutil.which("chromedriver"))) as driver:
        yield driver


@pytest.fixture
def browser(chromium: Chrome, tmp_path: Path) -> Iterator[Browser]:
    one = Browser(chromium, tmp_path)
    one.width(1280)
    yield one
    one.media()
    one.complaints()
