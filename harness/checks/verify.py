"""`msp-harness verify`: from a bare kernel to a Report."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import harness
from harness.checks import attach, audit, census, chain, loading, preflight, redirect, removal, selftest
from harness.checks.base import Check, Environment, error_result, matches, perform, selected, timed
from harness.errors import HarnessError
from harness.kernel import facts
from harness.kernel.bpf import BpfError
from harness.lab import state
from harness.lab.lab import Lab, open_lab
from harness.lab.redirection import redirect as redirect_in
from harness.msp import guide
from harness.program.attach import Way
from harness.program.compile import Compilation, Join, redirector
from harness.program.load import Loaded, load
from harness.report import EXIT_CANNOT_RUN, EXIT_OK, Outcome, Report, Result, exit_code

CHECKS: Sequence[Check] = (
    Check("load", "Programs and maps are in the kernel", loading.loaded, guide.LOAD_FAILED, results=3),
    Check("attach", "Ways of attaching", attach.ways, guide.ATTACH_FAILED, results=4),
    Check("attach.path", "What others attached on the path", attach.neighbours, guide.ATTACH_FAILED),
    Check("redirect", "The three endpoints are redirected", redirect.redirected, guide.NOT_APPLIED, results=3),
    Check("untouched", "What must not be redirected", redirect.untouched, guide.NOT_APPLIED, results=6),
    Check("authorization", "Who may ask what, end to end", redirect.authorized, guide.NOT_APPLIED, results=6),
    Check("audit", "Records name the right client", audit.audited, guide.NOT_APPLIED, results=6),
    Check("removal", "What is taken away stops at once", removal.removed, guide.NOT_APPLIED, results=5),
    Check("chain", "The chain of proof (--explain shows it)", chain.chain, guide.NOT_APPLIED, results=3),
    Check("audit.capacity", "Connects at once until a record is lost", audit.capacity, slow=True, results=2),
)
"""The table of checks, in the order in which they run. preflight comes before, the census and the self-test after."""

BEFORE = (("preflight", "What this machine and kernel have"),)
AFTER = (
    ("census", "How some thirty kinds of client fare (left out by --quick)"),
    ("selftest", "Broken programs are caught (with --self-test)"),
)

Listener = Callable[[Result], None]


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    program: str = "plain"  # or hardened
    only: tuple[str, ...] = ()
    quick: bool = False
    self_test: bool = False


def verify(options: Options, finished: Listener) -> Report:
    """Run the checks and give the Report; finished hears of each Result as it comes."""
    started, clock = _now(), time.monotonic()
    results: list[Result] = []
    about = _About()
    for result in _results(options, about):
        if not options.only or result.blocking or any(matches(word, result.id) for word in options.only):
            results.append(result)
            finished(result)
    return Report(
        target="live kernel",
        kernel=facts.release(),
        distribution=facts.distribution(),
        harness_version=harness.__version__,
        results=tuple(results),
        run=about.run,
        started=started,
        ended=_now(),
        seconds=time.monotonic() - clock,
        program=about.digest,
    )


@dataclass
class _About:
    """What is known of a run only while it runs."""

    run: str = "none"
    digest: str | None = None


def _join(machine: preflight.Machine) -> Join:
    """The best way to complete audit records that the kernel has."""
    if machine.has("sock-ops"):
        return Join.SOCK_OPS
    return Join.KPROBE if machine.has("kprobe") else Join.NONE


def _programs(options: Options) -> list[str]:
    """The programs to compile: the one that is verified and, for the census beside the hardened one, the plain one."""
    both = options.program == "hardened" and _with_census(options)
    return ["plain", "hardened"] if both else [options.program]


def _with_census(options: Options) -> bool:
    return _asked_for("census", options) if options.only else not options.quick


def _with_self_test(options: Options) -> bool:
    return options.self_test or _asked_for("selftest", options)


def names() -> list[tuple[str, str]]:
    """Every check's name and title, in the order in which they run."""
    return [*BEFORE, *((check.name, check.title) for check in CHECKS), *AFTER]


def unknown(only: Sequence[str]) -> list[str]:
    """The words of --only that no check answers to."""
    known = [name for name, _ in names()]
    return [word for word in only if not any(matches(word, name) or matches(name, word) for name in known)]


def expected(options: Options) -> int:
    """About how many Results there will be, for the progress line."""
    count = sum(check.results for check in selected(CHECKS, options.only, options.quick))
    count += preflight.RESULTS if not options.only else 0
    count += census.RESULTS if _with_census(options) else 0
    return count + (len(selftest.FAULTS) if _with_self_test(options) else 0)


def verdict(report: Report) -> str:
    """One sentence for a person in a hurry."""
    status = exit_code(report)
    if not report.results:
        return "nothing was checked"
    if status == EXIT_CANNOT_RUN:
        return "this machine cannot run the verification"
    if any(result.id.startswith("selftest.") and result.outcome is Outcome.FAIL for result in report.results):
        return "a broken program went unseen: the harness cannot be trusted on this machine"
    if status != EXIT_OK:
        return f"redirection does not hold on {report.kernel}"
    if any(result.id.startswith("redirect.") and result.outcome is Outcome.PASS for result in report.results):
        return f"connect4 redirection holds on {report.kernel}"
    return "what was asked for passed; redirection itself was not checked"


def _asked_for(name: str, options: Options) -> bool:
    return any(word.split(".")[0] == name for word in options.only)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _results(options: Options, about: _About) -> Iterator[Result]:
    machine = preflight.machine()
    join = _join(machine)
    with ExitStack() as stack:
        # The compiler is slow to start: it works while the machine is looked at and the lab is built.
        compilations: dict[str, Compilation] = {}
        if os.geteuid() == 0:
            for name in _programs(options):
                code = redirector(hardened=name == "hardened", join=join)
                compilations[name] = stack.enter_context(Compilation(code))
        blocked = False
        for result in preflight.look(machine):
            blocked |= result.blocking and result.outcome in (Outcome.FAIL, Outcome.ERROR)
            yield result
        if blocked or machine.cgroup2 is None:
            return
        run = stack.enter_context(state.begin(machine.cgroup2))
        about.run = run.id
        # Every lab forks, so they are all there before anything starts a thread.
        labs = {name: stack.enter_context(open_lab(run, name)) for name in compilations}
        loaded: dict[str, Loaded] = {}
        for name, compilation in compilations.items():
            try:
                loaded[name] = stack.enter_context(load(compilation.result()))
            except BpfError as error:
                yield loading.refused(error, name)
            except HarnessError as error:
                yield replace(error_result("load.compile", "BCC compiles the program", error), blocking=True)
        if options.program not in loaded:
            return
        about.digest = loaded[options.program].image.digest
        way = Way.LINK if machine.has("bpf-link") else Way.MULTI
        environment = Environment(run, labs[options.program], loaded[options.program], join is not Join.NONE, way)
        for check in selected(CHECKS, options.only, options.quick):
            yield from perform(check, environment)
        if _with_census(options):
            yield from _census(labs, loaded, way)
        if _with_self_test(options):
            yield from timed("selftest", selftest.TITLE, lambda: selftest.self_test(environment, join))


def _census(labs: Mapping[str, Lab], loaded: Mapping[str, Loaded], way: Way) -> Iterator[Result]:
    with ExitStack() as stack:
        at_work = {name: stack.enter_context(redirect_in(labs[name], loaded[name], way)) for name in loaded}
        yield from timed("census", "Coverage census", lambda: census.census(at_work))
