"""A job on a machine: resumed where there is a saved guest, else booted; a Report in any case."""

from __future__ import annotations

import base64
import datetime
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import harness
from harness.errors import HarnessError
from harness.report import Report, Result, json
from harness.vm import accelerator, boot, failed, guest, initramfs, interpreter, limits, qemu, saved
from harness.vm.failed import Failed
from harness.vm.guest import Guest
from harness.vm.job import Job
from harness.vm.limits import Limit
from harness.vm.machine import Machine
from harness.vm.qemu import Refused, Running
from harness.vm.saved import Saved

_PROGRAMS = ".programs"
_COMPILED = ("verify", "reproduce", "agent")  # commands that load programs of ours
_PREPARED_FOR = (("verify", "--compare", "--self-test"), ("reproduce",))
"""Commands whose programs a saved guest has: all of them. A job that resumes it brings none."""

_LIVE = re.compile("(the )?live kernel")  # what the guest calls itself in its Report's target


def run(
    machine: Machine,
    job: Job,
    tell: Callable[[str], None] = lambda line: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Report:
    """Run a job in a guest: its Report, or one with the Result guest.…, which says why the guest gave none.

    tell is given a line for what takes long; meanwhile is called while the guest works. Raises HarnessError for what is
    to be mended here first: no QEMU, no packages for a guest, no compiler.
    """
    qemu.binary()
    host = _Host(machine, guest.get(tell), _now(), time.monotonic(), tell, meanwhile)
    by = accelerator.usable(machine, host.guest)
    try:
        return _resumed(host, by, job) if not job.fresh else _booted(host, by, job)
    except Failed as failure:
        return host.report(by, failure.result)


@dataclass(frozen=True)
class _Host:
    """A run under way, seen from this side."""

    machine: Machine
    guest: Guest
    at: str
    clock: float
    tell: Callable[[str], None]
    meanwhile: Callable[[], None]

    def target(self, by: str, how: str) -> str:
        variation = self.machine.variation
        return f"{self.machine.kernel.origin}{f', {variation},' if variation else ''} in a guest ({by}, {how})"

    def report(self, by: str, result: Result, how: str = "failed") -> Report:
        """A Report with one Result of ours."""
        return Report(
            target=self.target(by, how),
            kernel=self.machine.kernel.release,
            distribution=f"guest {self.guest.name.partition('-')[0]}",
            harness_version=harness.__version__,
            results=(result,),
            run=secrets.token_hex(4),
            started=self.at,
            ended=_now(),
            seconds=time.monotonic() - self.clock,
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _resumed(host: _Host, by: str, job: Job) -> Report:
    """From a saved guest, made where there is none; cold where it cannot be made or does not come back."""
    name = saved.name(host.machine, host.guest, by, host.tell)
    found = saved.find(name)
    try:
        report = None if found else _with_imports(host, by, lambda host: _saved_first(host, by, name, job))
    except (_NotPrepared, Refused) as error:
        return _booted(host, by, job, f", for none could be saved: {error}")
    if report is not None:
        return report
    try:
        return _from_saved(host, by, found or saved.there(name), job, "resumed" if found else "saved")
    except (_NotBack, Refused) as error:
        saved.discard(name)
        return _booted(host, by, job, f", for the saved one did not come back: {error}")


def _saved_first(host: _Host, by: str, name: str, job: Job) -> Report | None:
    """By the guest that is saved for this, where it goes on with the job; else None."""
    host.tell(f"booting {host.machine.kernel.release}, and saving it prepared: later jobs resume it")
    with saved.make(host.machine, host.guest, by, name, lambda running: _prepare(host, by, running)) as running:
        if running is None:
            return None
        return _report(host, by, "saved", _perform(host, by, running, job, prepared=True), running)


def _from_saved(host: _Host, by: str, found: Saved, job: Job, how: str) -> Report:
    """Raises _NotBack or Refused for a state that is of no use, Failed where the guest is to blame."""
    with saved.resume(found, host.machine, host.guest, by) as running:
        checking = found.checking()  # beside the guest, which seldom needs every processor
        try:
            report = _report(host, by, how, _perform(host, by, running, job, prepared=True, resumed=True), running)
        except (Failed, _NotBack) as error:
            if damage := checking.result() or found.check(everything=True):
                raise _NotBack(damage) from None
            if isinstance(error, _NotBack):
                saved.distrust(found, f"{error}")
            raise
        if damage := checking.result():
            raise _NotBack(damage)
        return report


def _booted(host: _Host, by: str, job: Job, why: str = "") -> Report:
    host.tell(f"booting {host.machine.kernel.release}{why}")
    return _with_imports(host, by, lambda host: _once_booted(host, by, job, why))


def _once_booted(host: _Host, by: str, job: Job, why: str) -> Report:
    with boot.cold(host.machine, host.guest, by) as running:
        _wait_for_boot(host, by, running)
        return _report(host, by, f"booted{why}", _perform(host, by, running, job), running)


_Told = TypeVar("_Told")


def _with_imports(host: _Host, by: str, boots: Callable[[_Host], _Told]) -> _Told:
    """Boot with an interpreter that has imported all, where there is one; without it where it does not go on."""
    try:
        found = interpreter.get(host.machine, host.guest, by, host.tell)
    except HarnessError as error:
        host.tell(f"{error}")
        found = None
    if found is None:
        return boots(host)
    try:
        return boots(replace(host, guest=replace(host.guest, interpreter=found)))
    except _NotGoneOn as error:
        interpreter.distrust(host.machine, host.guest, f"{error}")
        host.tell(f"booting {host.machine.kernel.release} once more, for what was imported did not go on: {error}")
        return boots(host)


class _NotGoneOn(Exception):
    """A guest whose interpreter, written down before, was started and never served."""


class _NotPrepared(Exception):
    """A guest that booted and failed before it could be saved."""


class _NotBack(Exception):
    """A saved guest that did not take its job."""


def _prepare(host: _Host, by: str, running: Running) -> None:
    """Wait for a booting guest, and have it make what every job needs."""
    given = _given({}, _PREPARED_FOR)  # while the guest boots
    _wait_for_boot(host, by, running)
    limit = limits.job(host.machine, by, _PREPARED_FOR[0])
    running.send({"prepare": given}, time.monotonic() + limit.seconds)
    try:
        message = _received(running, limit, failed.PREPARING)
        if "ready" not in message:
            raise failed.without_report(_object(message.get("ended")), running)
    except Failed as error:
        raise _NotPrepared(f"{error}") from error


def _wait_for_boot(host: _Host, by: str, running: Running) -> None:
    """Raises Failed for a guest that does not come up, or is not what was asked for."""
    try:
        message = _received(running, limits.boot(host.machine, by), failed.BOOTING)
    except Failed as error:
        if host.guest.interpreter is not None and initramfs.GOES_ON in running.output("console"):
            raise _NotGoneOn(f"{error}") from error
        raise
    limits.remember(host.machine, by, time.monotonic() - running.began)
    if problem := _object(message.get("booted")).get("cgroup", "it said something else than that it has booted"):
        raise failed.failed(
            "cgroup",
            f"cgroups cannot be laid out as {host.machine.cgroup}: {problem}",
            "use another layout of cgroups: --vary cgroup=…",
            running,
        )


def _perform(
    host: _Host, by: str, running: Running, job: Job, *, prepared: bool = False, resumed: bool = False
) -> Mapping[str, Any]:
    """Have a guest that is ready do a job: what it says at the end. A prepared one has all programs.

    Raises Failed; _NotBack for a saved one that does not take it.
    """
    limit = Limit(job.timeout, "--timeout") if job.timeout else limits.job(host.machine, by, job.arguments)
    start = limits.resume() if resumed else limit
    sent = running.send({"job": _message(job, prepared=prepared)}, time.monotonic() + start.seconds)
    if resumed and (not sent or _message_of(running, time.monotonic() + start.seconds, "accepted") is None):
        last = (running.output("qemu") or running.output("console")).strip().splitlines()
        raise _NotBack(last[-1] if last else f"it was silent for {start}")
    if not resumed:
        _received(running, start, failed.WORKING)
    host.meanwhile()
    return _object(_received(running, limit, failed.WORKING).get("ended"))


def _object(value: object) -> dict[str, Any]:
    """What is to be an object of a message; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _message(job: Job, *, prepared: bool) -> dict[str, Any]:
    """A job as the guest's server takes it: the time now, and randomness that no other copy has."""
    return {
        "arguments": list(job.arguments),
        **_given(job.files, [] if prepared or job.arguments[0] not in _COMPILED else [job.arguments]),
        "seed": base64.b64encode(os.urandom(64)).decode(),
        "time": time.time(),
    }


def _given(files: Mapping[str, bytes], commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Files and environment: with the programs that these commands may load, compiled here."""
    content = {name: base64.b64encode(data).decode() for name, data in files.items()}
    if not commands:
        return {"files": content, "environment": {}}
    from harness.checks.programs import of_command  # a job that brings no programs does without all this
    from harness.program import bundle, images

    sources = {code.digest: code for command in commands for code in of_command(command)}
    content[_PROGRAMS] = base64.b64encode(images.bundled(list(sources.values()))).decode()
    return {"files": content, "environment": {bundle.VARIABLE: _PROGRAMS}}


def _received(running: Running, limit: Limit, doing: str) -> dict[str, Any]:
    """The next message. Raises Failed, with the cause, when none comes in time."""
    try:
        message = running.receive(time.monotonic() + limit.seconds)
    except HarnessError as error:
        raise failed.garbled(error, running) from error
    if message is None:
        raise failed.silent(running, doing, f"{limit}")
    return message


def _message_of(running: Running, deadline: float, kind: str) -> object:
    """The content of a message of this kind; None for another one, or none."""
    try:
        message = running.receive(deadline)
    except HarnessError:
        return None
    return None if message is None else message.get(kind)


def _report(host: _Host, by: str, how: str, ended: Mapping[str, Any], running: Running) -> Report:
    content = ended.get("report")
    if not isinstance(content, str) or not content.strip():
        raise failed.without_report(ended, running)
    try:
        report = json.load(content)
    except HarnessError as error:
        raise failed.garbled(error, running) from error
    target = _LIVE.sub(lambda found: host.target(by, how), report.target, count=1)
    return replace(report, target=target)
