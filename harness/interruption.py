"""Ctrl-C, SIGTERM and SIGHUP as one exception, so that everything a run made is undone on the way out.

Python may run a signal's handler inside a destructor or a fork hook, where an exception is printed and lost; so the
signal is remembered as well, and check() raises again at the next safe place.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_received: list[signal.Signals] = []


class Interrupted(BaseException):
    """The run is to end now. Not an Exception: no handler of errors may take it for one."""

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell has it."""
        return 128 + self.signal


def install() -> None:
    """From here on the signals raise Interrupted in the main thread: once, for the undoing must not be interrupted."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _raise)
    sys.unraisablehook = _unraisable


def check() -> None:
    """Raise Interrupted when a signal came whose exception was lost."""
    if _received:
        raise Interrupted(_received[0])


def _raise(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _received.append(signal.Signals(number))
    check()


def _unraisable(lost: UnraisableHookArgs) -> None:
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)
