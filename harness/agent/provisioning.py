"""Provisioning: when it is finished, the files that say so, and `--status --wait` as cloud-init calls it.

Finished means: redirector, listener and key are as they should be; or the time is up, and then each part that is not
is told. Files lie beside the keys: provisioned.tag once finished, status.tag empty for success, else a line a part.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.agent.config import Config
from harness.agent.status import JUDGED, RUNNING, Board, write_whole

LINE_END = "\r\n"
PATH = "/provision"
TICK = "x-ms-azure-time-tick"
NOTIFY = "x-ms-azure-notify"
_TICKS = 10_000_000  # of 100 ns in a second


@dataclass(frozen=True)
class Answer:
    """What /provision answers."""

    finished: bool
    message: str = ""

    def text(self) -> str:
        return json.dumps({"finished": self.finished, "errorMessage": self.message})


class Provisioning:
    """key_ready tells whether the key is latched, or not wanted."""

    def __init__(self, config: Config, board: Board, key_ready: Callable[[], bool]):
        self._config = config
        self._board = board
        self._key_ready = key_ready
        self._until = time.monotonic() + config.times.provision
        self._written: str | None = None

    def answer(self) -> Answer:
        lines = list(self._lines())
        if not lines:
            return Answer(True)
        return Answer(True, LINE_END.join(lines)) if time.monotonic() >= self._until else Answer(False)

    def write(self) -> None:
        """Write the files when finished, and status.tag again when what it says has changed. Raises HarnessError."""
        answer = self.answer()
        if not answer.finished or answer.message == self._written:
            return
        text = answer.message + LINE_END if answer.message else ""
        write_whole(self._config.key_folder / "status.tag", text)
        if self._written is None:
            write_whole(
                self._config.key_folder / "provisioned.tag", time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime())
            )
        self._written = answer.message

    def _lines(self) -> Iterator[str]:
        for name in JUDGED:
            module = self._board.modules[name]
            good = self._key_ready() if name == "keyLatchStatus" else module.status == RUNNING
            if not good:
                yield f"{name} - {module.message}"


def ask(port: int, *, first: bool, seconds: float = 5.0) -> Answer:
    """Ask an agent on this machine. Raises OSError, HTTPException or ValueError for anything but an answer."""
    headers = {"Metadata": "true", TICK: str(time.time_ns() * _TICKS // 1_000_000_000)}
    if first:
        headers[NOTIFY] = "true"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", PATH, headers=headers)
        response = connection.getresponse()
        body = response.read(1 << 20)
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    told = json.loads(body)
    if not isinstance(told, dict) or not isinstance(told.get("finished"), bool):
        raise ValueError("the answer is not of the known form")
    message = told.get("errorMessage")
    return Answer(told["finished"], message if isinstance(message, str) else "")


def wait(config: Config, seconds: float) -> tuple[int, str]:
    """`--status --wait N`: ask until provisioning is finished, or for so long; the exit code, and what to tell.

    0: finished, and nothing wrong. 1: finished with trouble, not finished in time, or no agent answers.
    """
    deadline = time.monotonic() + seconds
    first, last = True, ""
    while True:
        try:
            answer = ask(config.port, first=first)
            first = False
            last = f"provisioning is not finished after {seconds:g} s"
            if answer.finished:
                return (1, answer.message) if answer.message else (0, "provisioned")
        except (OSError, http.client.HTTPException, ValueError) as error:
            last = f"no answer from the agent on 127.0.0.1:{config.port}: {error}"
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return 1, last
        time.sleep(min(config.times.ask, remaining))


def tag(folder: Path) -> str | None:
    """What status.tag says: empty for success; None while there is none."""
    try:
        return (folder / "status.tag").read_bytes().decode()
    except OSError:
        return None
