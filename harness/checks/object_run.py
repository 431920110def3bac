"""`verify --object`: the checks of a verification under somebody else's object and, with --compare, beside our own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from harness.checks import foreign, loading, plan
from harness.checks.base import Environment, perform, selected
from harness.checks.machine import Machine
from harness.checks.options import Options, with_census
from harness.checks.results import error_result, timed
from harness.errors import HarnessError
from harness.kernel.bpf import BpfError
from harness.lab.lab import open_lab
from harness.lab.state import Run
from harness.program import foreign as program
from harness.program.attach import Way
from harness.program.compile import Compilation, Join
from harness.program.load import Loaded, load
from harness.report import Result


@dataclass(frozen=True)
class Setting:
    """What an object is verified with: compilations of our programs by name, and of the one that is lent to it."""

    options: Options
    run: Run
    file: program.ObjectFile
    machine: Machine
    way: Way
    ours: Mapping[str, Compilation]
    our_join: Join
    stand_in: Compilation | None


def run_checks(setting: Setting) -> Iterator[Result]:
    """Load the object and run what was asked for."""
    kprobe = setting.machine.features["kprobe"]
    idle = foreign.idle(setting.options.join, setting.machine.has("kprobe"))
    started = time.monotonic()
    with ExitStack() as stack:
        try:
            about = stack.enter_context(program.load(setting.file, idle=idle))
        except HarnessError as error:
            yield foreign.not_loaded(setting.file, error)
            return
        verdict = foreign.judge(about)
        first, *others = verdict.results
        yield replace(first, seconds=time.monotonic() - started)
        yield from others
        if not verdict.usable or about.loaded is None:
            return
        loaded, lent = _lent(setting, about.loaded, stack)
        said = f"no kprobes here: {kprobe.said}" if not setting.machine.has("kprobe") else "--audit sock_ops"
        completion = foreign.completion(about, about.loaded, said, lent)
        yield completion.result
        yield from _checks(setting, loaded, completion.audited, stack)


def _lent(setting: Setting, loaded: Loaded, stack: ExitStack) -> tuple[Loaded, bool]:
    """With our completing program beside it when the object's own cannot run, and whether this kernel takes that.

    Before 6.10 a sock_ops program may not ask for the thread, by which the agent's objects join.
    """
    if setting.stand_in is None or {foreign.KPROBE, foreign.SOCK_OPS} & set(loaded.programs):
        return loaded, False
    try:
        image = setting.stand_in.result()
        return stack.enter_context(program.lend(loaded, image, foreign.SOCK_OPS)), True
    except BpfError:
        return loaded, False


def _checks(setting: Setting, loaded: Loaded, audited: bool, stack: ExitStack) -> Iterator[Result]:
    options = setting.options
    if setting.ours or with_census(options):
        from harness.checks import compare  # and the census with it, which an object by itself does without
    names = [foreign.OBJECT, *setting.ours]
    # Every lab forks, so they are all there before anything starts a thread.
    labs = {name: stack.enter_context(open_lab(setting.run, name)) for name in names}
    theirs = Environment(setting.run, labs[foreign.OBJECT], loaded, audited, setting.way)
    ours: dict[str, Environment] = {}
    for name, compilation in setting.ours.items():
        try:
            own = stack.enter_context(load(compilation.result()))
        except BpfError as error:
            yield replace(loading.refused(error, name), id=f"compare.{name}")
        except HarnessError as error:
            yield replace(error_result("compare.compile", "BCC compiles the program", error), blocking=True)
        else:
            ours[name] = Environment(setting.run, labs[name], own, setting.our_join is not Join.NONE, setting.way)
    compared: list[Result] = []
    for check in selected(plan.CHECKS, options.only, options.quick):
        results = []
        for result in perform(check, theirs):
            results.append(result)
            yield result
        if ours:
            compared.append(compare.side_by_side(check, results, ours))
    environments = {foreign.OBJECT: theirs, **ours}
    if with_census(options):
        for result in timed("census", "Coverage census", lambda: compare.censuses(environments)):
            if result.group != "compare":
                yield result
            elif ours:
                compared.append(result)
    yield from compared
    if ours:
        yield from timed("compare.cost", "Cost of a connect", lambda: compare.costs(environments))
