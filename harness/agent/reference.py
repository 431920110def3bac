"""The reference agent: small, typed, for laboratories; no replacement for Microsoft's.

    listener ── redirector ── key keeper (polls for ever) ── monitor (writes status.json for ever)

Each part says on a board how it is; status.json and provisioning are read off the board.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine
from typing import Any

from harness import __version__
from harness.agent.config import Config
from harness.agent.gate import Gate
from harness.agent.host import Host
from harness.agent.key_folder import KeyFolder, KeyUnusable
from harness.agent.key_status import KeyStatus
from harness.agent.keys import KeyKeeper, Step
from harness.agent.log import Log
from harness.agent.provisioning import NOTIFY, PATH, TICK, Provisioning
from harness.agent.proxy import Proxy
from harness.agent.redirector import NotStarted, Redirector, layout_text
from harness.agent.status import RUNNING, STOPPED, Board, write_whole
from harness.errors import HarnessError, errno_text
from harness.lab.http import Headers, Request, Response, origin_form, plain
from harness.msp.messages import REDIRECTOR_PREFIX, Form
from harness.program import maps

_JSON: Headers = (("Content-Type", "application/json; charset=utf-8"),)


class ReferenceAgent:
    """One agent. start() returns once every part was tried; then run() goes on for ever."""

    def __init__(self, config: Config):
        self.config = config
        self.board = Board()
        self.log = Log(config.log_file)
        self.folder = KeyFolder(config.key_folder)
        self.host = Host(config)
        self.keeper = KeyKeeper(self.host, self.folder, config.times, told=self._step, applied=self._apply)
        self.redirector = Redirector(config)
        self.provisioning = Provisioning(config, self.board, lambda: self.keeper.ready)
        self.gate = Gate(lambda: self.keeper.key, self.board, self._own, self.log)
        self.proxy: Proxy | None = None
        self._logged = ""  # the key's message that the log has last

    async def start(self) -> None:
        self.log(f"reference agent {__version__} of msp-harness, for laboratories; {layout_text()}")
        try:
            self.folder.prepare()
        except KeyUnusable as error:
            self.log(f"cannot prepare the key folder: {error}", "error")
        self.board.set("monitorStatus", RUNNING, "the monitor writes status.json")
        await self._listen()
        await self._redirect()

    async def run(self) -> None:
        """Poll and monitor until cancelled. Raises what a part raises."""
        self.board.set("keyLatchStatus", RUNNING, "the key status is polled", self.keeper.states())
        parts: list[Coroutine[Any, Any, None]] = [self.keeper.run(), self._monitor(), self._introduce()]
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)

    async def stop(self) -> None:
        """When it returns nothing of the agent is left in kernel or network; the files stay."""
        if self.proxy:
            await self.proxy.stop()
        self.redirector.stop()
        for name in self.board.modules:
            self.board.set(name, STOPPED, "the agent was asked to end")
        self._write_status()
        self.log("ended")

    # --- parts ---------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        port = self.config.port
        try:
            listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        except OSError as error:
            message = f"cannot listen on 127.0.0.1:{port}: {errno_text(error.errno or 0)}"
            self.board.set("proxyListenerStatus", STOPPED, message)
            self.log(message, "error")
            return
        self.proxy = Proxy(listener, self._lookup, self.config.nonce, endpoints=self.config.endpoints, gate=self.gate)
        await self.proxy.start()
        self.board.set("proxyListenerStatus", RUNNING, f"listens on 127.0.0.1:{port}")

    async def _redirect(self) -> None:
        if not self.config.redirect:
            self.board.set("ebpfProgramStatus", RUNNING, "switched off in the configuration: nothing is redirected")
            return

        def failed(trouble: NotStarted) -> None:
            self.board.set("ebpfProgramStatus", STOPPED, REDIRECTOR_PREFIX + str(trouble))
            self.log(REDIRECTOR_PREFIX + str(trouble), "error")

        if await self.redirector.start(failed):
            self.board.set("ebpfProgramStatus", RUNNING, f"connect4 is attached at {self.redirector.root}")
            self.log(f"connect4 is attached at {self.redirector.root}")
        else:
            self.log(Form.GAVE_UP.value, "error")

    async def _monitor(self) -> None:
        while True:
            self._write_status()
            try:
                self.provisioning.write()
            except HarnessError as error:
                self.log(str(error), "error")
            await asyncio.sleep(self.config.times.monitor)

    async def _introduce(self) -> None:
        """Once, when the key is there: what the agent reads for its telemetry."""
        await self.keeper.was_ready.wait()
        trouble = await self.host.introduce(self.keeper.key)
        self.board.set("telemetryLoggerStatus", RUNNING, trouble or "goal state, shared config and instance were read")

    def _write_status(self) -> None:
        try:
            write_whole(self.config.status_file, self.board.text())
        except HarnessError as error:
            self.log(str(error), "error")

    # --- what the parts ask ----------------------------------------------------------------------------------------

    def _lookup(self, port: int) -> maps.AuditRecord | None:
        self.board.connections += 1
        return self.redirector.audit(port)

    def _step(self, step: Step) -> None:
        self.board.set("keyLatchStatus", RUNNING, step.message, self.keeper.states())
        if step.before is not step.after or step.message != self._logged:
            self._logged = step.message
            self.log(f"key: {step.before} - {step.event} - {step.after}: {step.message}")

    def _apply(self, status: KeyStatus) -> None:
        self.gate.items = status.items
        try:
            for line in self.redirector.apply(status.items):
                self.log(line)
        except (NotStarted, HarnessError) as trouble:
            self.board.set("ebpfProgramStatus", STOPPED, str(trouble))
            self.log(str(trouble), "error")

    def _own(self, request: Request) -> Response | None:
        path = (origin_form(request.target) or "").partition("?")[0]
        if request.method != "GET" or path not in (PATH, "/status"):
            return None
        if path == "/status":
            return Response(200, _JSON, self.board.text().encode("utf-8", "replace"))
        tick = request.header(TICK) or ""
        if (request.header("metadata") or "").lower() != "true" or not (tick.isascii() and tick.isdigit()):
            return plain(400, f"400 Bad Request: {PATH} needs the headers Metadata: true and {TICK} with a number")
        if (request.header(NOTIFY) or "").lower() == "true":
            self.keeper.wake()
        return Response(200, _JSON, self.provisioning.answer().text().encode())


async def serve(config: Config) -> None:
    """Run an agent until SIGTERM or SIGINT."""
    agent = ReferenceAgent(config)
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    try:
        await agent.start()
        await agent.run()
    except asyncio.CancelledError:
        pass
    finally:
        await agent.stop()
