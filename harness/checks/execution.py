"""The checks of a verification, once it is clear that this machine can run them: labs, programs, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

from harness.checks import loading, plan, selftest
from harness.checks.base import Environment, perform, selected
from harness.checks.options import Options, with_census, with_self_test
from harness.checks.results import error_result, timed
from harness.errors import HarnessError
from harness.kernel.bpf import BpfError
from harness.lab.lab import Lab, open_lab
from harness.lab.redirection import redirect
from harness.lab.state import Run
from harness.program.attach import Way
from harness.program.compile import Compilation, Join
from harness.program.load import Loaded, load
from harness.report import Result


def run_checks(
    options: Options, run: Run, compilations: Mapping[str, Compilation], join: Join, way: Way
) -> Iterator[Result]:
    """Build a lab for each program, load it, and run what was asked for."""
    with ExitStack() as stack:
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
        environment = Environment(run, labs[options.program], loaded[options.program], join is not Join.NONE, way)
        for check in selected(plan.CHECKS, options.only, options.quick):
            yield from perform(check, environment)
        if with_census(options):
            yield from _census(labs, loaded, way)
        if with_self_test(options):
            yield from timed("selftest", selftest.TITLE, lambda: selftest.self_test(environment, join))


def _census(labs: Mapping[str, Lab], loaded: Mapping[str, Loaded], way: Way) -> Iterator[Result]:
    from harness.checks import census  # what --quick does not need, it does not wait for

    with ExitStack() as stack:
        at_work = {name: stack.enter_context(redirect(labs[name], loaded[name], way)) for name in loaded}
        yield from timed("census", "Coverage census", lambda: census.census(at_work))
