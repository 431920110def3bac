"""`msp-harness verify`: from a bare kernel to a Report.

Little is imported here on purpose: the compiler is the slowest part, and it starts before the rest is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import interruption
from harness.checks.machine import Machine, ask
from harness.checks.options import Options, matches, programs
from harness.checks.recording import Recording
from harness.checks.verdict import verdict as verdict
from harness.program.compile import Compilation, Join, redirector, stand_in
from harness.report import Outcome, Report, Result

if TYPE_CHECKING:
    from harness.lab.state import Run
    from harness.program.attach import Way
    from harness.program.foreign import ObjectFile

Listener = Callable[[Result], None]


@dataclass(frozen=True)
class Started:
    """A verification whose compilers work already."""

    options: Options
    machine: Machine
    join: Join
    compilations: Mapping[str, Compilation]
    recording: Recording
    stand_in: Compilation | None = None  # completes the records of an object that cannot do it here


@contextmanager
def start(options: Options) -> Iterator[Started]:
    """Ask the kernel what it has and start the compilers, which end with the with block."""
    file = options.object
    recording = Recording("live kernel" if file is None else f"{file.name} on the live kernel")
    machine = ask()
    join = options.join or best_join(machine)
    with ExitStack() as stack:
        compilations, lent = {}, None
        if os.geteuid() == 0:  # else nothing of it could be loaded
            for name in programs(options):
                code = redirector(hardened=name == "hardened", join=join)
                compilations[name] = stack.enter_context(Compilation(code))
            if file is not None and not file.problem and (options.join is Join.SOCK_OPS or not machine.has("kprobe")):
                lent = stack.enter_context(Compilation(stand_in()))
        yield Started(options, machine, join, compilations, recording, lent)


def best_join(machine: Machine) -> Join:
    """The best way to complete audit records that the kernel has."""
    if machine.has("sock-ops"):
        return Join.SOCK_OPS
    return Join.KPROBE if machine.has("kprobe") else Join.NONE


@dataclass
class _About:
    """What is known of a run only while it runs."""

    run: str = "none"
    digest: str | None = None


def verify(started: Started, finished: Listener) -> Report:
    """Run the checks and give the Report; finished hears of each Result as it comes."""
    only, results, about = started.options.only, [], _About()
    with closing(_results(started, about)) as found:  # an interruption out here must end the run in there, too
        for result in found:
            interruption.check()
            if not only or _says_what_the_rest_is_worth(result) or any(matches(word, result.id) for word in only):
                results.append(result)
                finished(result)
    return started.recording.report(results, run=about.run, program=about.digest)


def _says_what_the_rest_is_worth(result: Result) -> bool:
    """What nobody may miss, whatever --only asks for: what blocks, what did not load, which object, whose records."""
    refused = result.group == "load" and result.outcome in (Outcome.FAIL, Outcome.ERROR)
    return result.blocking or refused or result.id in ("load.object", "load.audit")


def _results(started: Started, about: _About) -> Generator[Result, None, None]:
    from harness.checks import preflight  # the compilers work meanwhile

    blocked = False
    for result in preflight.look(started.machine):
        blocked |= result.blocking and result.outcome in (Outcome.FAIL, Outcome.ERROR)
        yield result
    lacking = preflight.cannot_join(started.machine, started.join)
    if lacking is not None:
        yield lacking
    if blocked or lacking is not None or started.machine.cgroup2 is None:
        return
    from harness.lab import state
    from harness.lab.bystander import bystanders
    from harness.program.attach import Way

    way = Way.LINK if started.machine.has("bpf-link") else Way.MULTI
    with state.begin(started.machine.cgroup2) as run, bystanders(run, way):
        about.run = run.id
        if started.options.object is not None:
            yield from _object_results(started, started.options.object, run, way, about)
            return
        from harness.checks.execution import run_checks

        yield from run_checks(started.options, run, started.compilations, started.join, way)
        about.digest = started.compilations[started.options.program].digest


def _object_results(started: Started, file: ObjectFile, run: Run, way: Way, about: _About) -> Iterator[Result]:
    from harness.checks.object_run import Setting, run_checks

    about.digest = file.digest
    yield from run_checks(
        Setting(started.options, run, file, started.machine, way, started.compilations, started.join, started.stand_in)
    )
