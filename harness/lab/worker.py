"""A process of the lab: forked, in namespaces and a cgroup of its own, serving calls until the run ends.

Calls and replies are JSON in packets of a Unix socket, with descriptors beside them. A worker dies with its parent,
however the parent dies, so that a killed run leaves no process behind and, with the processes, no namespace.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import inspect
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from harness.errors import HarnessError
from harness.kernel import processes
from harness.lab.patience import SLOWNESS

_SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h
_PACKET = 1 << 20  # bytes; a longer reply is a defect
_DESCRIPTORS = 16
_PATIENCE = 10.0 * SLOWNESS  # seconds until a worker that does not answer is given up

Handler = Callable[..., Any]
"""Takes the call's arguments by name, and `descriptors` when it has such a parameter; gives JSON, or a Reply."""


class Reply:
    """A handler's answer with descriptors, which are closed once sent."""

    def __init__(self, value: Any, descriptors: Sequence[int] = ()):
        self.value = value
        self.descriptors = descriptors


class Worker:
    """The parent's end. start is run in the child and gives the calls that it serves, by name."""

    def __init__(self, name: str, start: Callable[[], Mapping[str, Handler]], *, asynchronous: bool = False):
        self.name = name
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _PACKET)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = processes.fork_child()
        if self.pid == 0:
            ours.close()
            _live(parent, theirs, start, asynchronous)
        theirs.close()
        self._socket = ours
        self._socket.settimeout(_PATIENCE)

    def call(self, function: str, /, descriptors: Sequence[int] = (), **arguments: Any) -> Any:
        """Call a handler and give its answer."""
        return self.call_with_descriptors(function, descriptors, **arguments)[0]

    def call_with_descriptors(
        self, function: str, /, descriptors: Sequence[int] = (), **arguments: Any
    ) -> tuple[Any, list[int]]:
        """Call a handler and give its answer and the descriptors that came with it.

        Raises HarnessError with what the handler raised, or when the worker is gone or does not answer.
        """
        self.post(function, descriptors, **arguments)
        return self.reply(function)

    def post(self, function: str, /, descriptors: Sequence[int] = (), **arguments: Any) -> None:
        """Call a handler, whose answer is to be fetched by reply(): other workers can be called meanwhile."""
        try:
            socket.send_fds(self._socket, [json.dumps([function, arguments]).encode()], list(descriptors))
        except TimeoutError as error:
            raise HarnessError(self._attempted(function), f"not taken within {_PATIENCE:g} s") from error
        except OSError as error:
            raise HarnessError(self._attempted(function), f"its process is gone ({error.strerror})") from error

    def _attempted(self, function: str) -> str:
        return f"have the lab's {self.name} do `{function}`"

    def reply(self, function: str) -> tuple[Any, list[int]]:
        """The answer to post(), as call_with_descriptors() gives it."""
        attempted = self._attempted(function)
        try:
            packet, received, flags, _ = socket.recv_fds(self._socket, _PACKET, _DESCRIPTORS)
        except TimeoutError as error:
            raise HarnessError(attempted, f"no answer within {_PATIENCE:g} s") from error
        except OSError as error:
            raise HarnessError(attempted, f"its process is gone ({error.strerror})") from error
        if not packet:
            raise HarnessError(attempted, "its process is gone")
        if flags & socket.MSG_CTRUNC:
            for number in received:
                os.close(number)
            raise HarnessError(
                attempted, "EMFILE: its descriptors did not arrive", "raise `ulimit -n`", errno=errno.EMFILE
            )
        answer = json.loads(packet)
        if "error" in answer:
            error_text = answer["error"]
            raise HarnessError(attempted, error_text["message"], detail=error_text["detail"], errno=error_text["errno"])
        return answer["value"], list(received)

    def close(self) -> None:
        """End the worker and wait for it."""
        self._socket.close()
        end(self.pid)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end(pid: int) -> None:
    """Kill a child of this process and reap it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _live(parent: int, control: socket.socket, start: Callable[[], Mapping[str, Handler]], asynchronous: bool) -> None:
    """The child: never returns."""
    status = 1
    try:
        processes.die_with_parent(parent)
        _keep_only(control.fileno())
        if asynchronous:
            asyncio.run(_serve_asynchronously(control, start))
        else:
            handlers = start()
            gc.freeze()  # what is there stays where it is, shared with the children that are forked from here
            _serve(control, handlers)
        status = 0
    except Exception as error:
        # The first call, or the one under way, learns why; a parent that has gone learns nothing, and needs not to.
        with suppress(OSError):
            control.setblocking(True)
            if socket.recv_fds(control, _PACKET, _DESCRIPTORS)[0]:
                _send(control, error)
    finally:
        os._exit(status)


def _keep_only(descriptor: int) -> None:
    """Close what the parent had open: above all its run's lock, which must not outlive it."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 1 << 20)


def _serve(control: socket.socket, handlers: Mapping[str, Handler]) -> None:
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, _PACKET, _DESCRIPTORS)
        if not packet:
            return
        _send(control, _attempt(handlers, packet, list(descriptors)))


async def _serve_asynchronously(control: socket.socket, start: Callable[[], Mapping[str, Handler]]) -> None:
    """One call after the other, each in the turn of the loop in which it comes, unless it has to wait."""
    handlers = start()
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    waiting: set[asyncio.Task[None]] = set()

    def serve() -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(control, _PACKET, _DESCRIPTORS)
            if not packet:
                loop.remove_reader(control)
                ended.set_result(None)
                return
            answer = _attempt(handlers, packet, list(descriptors))
            if isinstance(answer, Awaitable):
                loop.remove_reader(control)
                waiting.add(loop.create_task(finish(answer)))
            else:
                reply(answer)
        except BlockingIOError:
            pass
        except Exception as error:
            fail(error)

    async def finish(answer: Awaitable[Any]) -> None:
        try:
            value = await answer
        except Exception as error:
            value = error
        try:
            reply(value)
            loop.add_reader(control, serve)
        except Exception as error:
            fail(error)

    def reply(answer: Any) -> None:
        control.setblocking(True)
        _send(control, answer)
        control.setblocking(False)

    def fail(error: Exception) -> None:
        loop.remove_reader(control)
        if not ended.done():
            ended.set_exception(error)

    loop.add_reader(control, serve)
    await ended


@functools.cache
def _takes_descriptors(handler: Handler) -> bool:
    return "descriptors" in inspect.signature(handler).parameters


def _attempt(handlers: Mapping[str, Handler], packet: bytes, descriptors: list[int]) -> Any:
    try:
        name, arguments = json.loads(packet)
        handler = handlers[name]
        if _takes_descriptors(handler):
            arguments["descriptors"] = descriptors
        else:
            for number in descriptors:
                os.close(number)
        return handler(**arguments)
    except Exception as error:
        return error


def _send(control: socket.socket, answer: Any) -> None:
    descriptors: Sequence[int] = ()
    if isinstance(answer, Reply):
        answer, descriptors = answer.value, answer.descriptors
    if isinstance(answer, Exception):
        detail = "".join(traceback.format_exception(answer))
        number = getattr(answer, "errno", 0) or 0
        message = {"error": {"message": f"{answer}" or type(answer).__name__, "detail": detail, "errno": number}}
    else:
        message = {"value": answer}
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))
    for number in descriptors:
        os.close(number)


def wait_until(deadline: float, condition: Callable[[], bool], pause: float = 0.002) -> bool:
    """Ask again and again until condition holds or the monotonic clock reaches deadline; whether it held."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
