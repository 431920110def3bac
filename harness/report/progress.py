"""What a person sees while checks run: one line that is painted over, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from harness.report.model import Result
from harness.report.text import duration, visible

if TYPE_CHECKING:
    from rich.console import Console

_ERASE = "\r\x1b[2K"
_BAR = 20  # columns
_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"


class Progress:
    """Tells what runs and how much is done. May be called from several threads at once.

    The line moves when a check starts or ends and not by itself: a thread for the spinner would forbid the process to
    enter other namespaces (setns and unshare refuse some of them to a process with threads) and make fork unsafe.
    Where stdout is no terminal nothing is shown, unless verbose: then a line for each Result that is there.
    A terminal that goes away does not end the run.
    """

    def __init__(self, console: Console, total: int, *, verbose: bool = False) -> None:
        self._console = console
        self._total = total
        self._verbose = verbose
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}
        self._done = 0
        self._frame = 0
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._erase()

    def starting(self, id: str, title: str) -> None:
        """A check begins."""
        with self._lock:
            self._running[id] = title
            self._paint()

    def finished(self, result: Result) -> None:
        """A Result is there. A check with several cases may give Results whose start was never told."""
        with self._lock:
            self._running.pop(result.id, None)
            self._done += 1
            if self._verbose:
                self._erase()
                self._tell(result)
            self._paint()

    def aside(self, text: str) -> None:
        """A line on standard error, which may be the same terminal: what is painted there gives way to it."""
        with self._lock:
            self._erase()
            with contextlib.suppress(OSError):
                print(visible(text), file=sys.stderr, flush=True)
            self._paint()

    def line(self) -> str:
        """What is on the line now, as wide as fits."""
        ascii_only = self._console.options.ascii_only
        spinner, full, rest = (_ASCII_SPINNER, "#", ".") if ascii_only else (_SPINNER, "━", "─")
        filled = round(_BAR * self._done / self._total) if self._total else 0
        bar = full * min(filled, _BAR) + rest * (_BAR - filled)
        names = list(self._running)
        what = f"{names[0]}: {self._running[names[0]]}" if len(names) == 1 else ", ".join(names)
        parts = [spinner[self._frame % len(spinner)], f"{self._done}/{self._total}", duration(self._elapsed()), what]
        if self._console.width >= 60:
            parts.insert(1, bar)
        return _cut(visible("  ".join(parts), self._console.encoding), self._console.width - 1)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _paint(self) -> None:
        if self._live:
            self._frame += 1
            self._write(_ERASE + self.line())

    def _erase(self) -> None:
        if self._live:
            self._write(_ERASE)

    def _tell(self, result: Result) -> None:
        text = f"{result.outcome:5} {result.id}: {result.summary} ({duration(result.seconds)})"
        self._write(visible(text, self._console.encoding) + "\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.file.write(text)
            self._console.file.flush()


def _cut(text: str, width: int) -> str:
    """The text's beginning, at most so many columns wide."""
    from rich.cells import set_cell_size

    return set_cell_size(text, max(width, 1)).rstrip()
