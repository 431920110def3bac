"""`msp-harness vm`: the same commands on another kernel, in a guest; this machine's kernel is not touched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cli import reproduce, verify
from harness.cli.output import SPEC, named_for, publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_OK, Report

if TYPE_CHECKING:
    from harness.vm.machine import Machine


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    vm = commands.add_parser("vm", help="verify another kernel, or reproduce failures on it, in a guest under QEMU")
    actions = vm.add_subparsers(required=True, metavar="COMMAND")

    verified = actions.add_parser("verify", help="the checks of `msp-harness verify` on another kernel")
    verified.set_defaults(command=run_verify)
    _machine_options(verified)
    verify.choices(verified)
    verified.add_argument(
        "--census",
        action="store_true",
        help="also the census and the other slow checks, which take several times as long where they are emulated "
        "(--only census: it alone)",
    )
    report_options(verified)

    reproduced = actions.add_parser("reproduce", help="failures of the guide on another kernel")
    reproduced.set_defaults(command=run_reproduce)
    reproduced.add_argument("names", nargs="+", metavar="NAME", help="a failure, the beginning of several, or all")
    _machine_options(reproduced)
    report_options(reproduced)


def _machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", required=True, metavar="SPEC", help=SPEC)
    parser.add_argument("--cpus", type=int, metavar="N", help="processors of the guest (default 1)")
    parser.add_argument("--memory", type=int, metavar="MIB", help="its memory (default 512)")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUE,…",
        help="one report for each value: cgroup=v2,hybrid,v1,none cpus=1,8 memory=512,1024 lsm=…",
    )
    parser.add_argument("--fresh", action="store_true", help="boot anew, without a saved guest")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for the job (default: from measured boots)")


def run_verify(options: argparse.Namespace) -> int:
    words = ["verify"]
    if options.only or options.explain:
        words.append(f"--only={','.join(options.only or ['chain'])}")
    options.verbose |= options.explain  # the steps of the chain are its evidence
    words += [] if options.census or options.only or options.explain else ["--quick"]
    words += ["--compare"] if options.compare else []
    words += ["--self-test"] if options.self_test else []
    words += [f"--audit={options.audit}"] if options.audit else []
    words += [f"--program={options.program}"] if options.program != "plain" else []
    files = {}
    if options.object:
        from pathlib import Path

        from harness.program import foreign

        try:
            file = foreign.read(Path(options.object))
        except HarnessError as error:
            return usage(str(error))
        if file.digest is None:
            return usage(f"{options.object}: {file.problem}")
        files = {f"object/{file.name}": file.data}
        words.append(f"--object=object/{file.name}")

    def verdict(report: Report) -> str:
        from harness.checks.verdict import verdict

        return verdict(report)

    def wrong() -> str:
        both = options.quick and options.census
        return "--quick leaves out the census, and --census asks for it" if both else verify.wrong(options)

    return _run(options, words, files, verdict, wrong)


def run_reproduce(options: argparse.Namespace) -> int:
    def wrong() -> str:
        from harness.failures.table import chosen

        try:
            chosen(options.names)
        except HarnessError as error:
            return str(error)
        return ""

    def verdict(report: Report) -> str:
        return reproduce.reproduced(report.results)

    return _run(options, ["reproduce", *options.names], {}, verdict, wrong)


class _Wrong(Exception):
    """What was asked for makes no sense."""


def _run(
    options: argparse.Namespace,
    words: Sequence[str],
    files: dict[str, bytes],
    verdict: Callable[[Report], str],
    wrong: Callable[[], str],
) -> int:
    """Run on each machine and publish each Report; the worst exit code.

    What takes long to import (wrong() does, and what renders) is left for the time in which the guest works.
    """
    from harness.vm import failed, qemu, spec
    from harness.vm.job import Job
    from harness.vm.machine import Machine, vary
    from harness.vm.run import run

    def check() -> None:
        if problem := wrong():
            raise _Wrong(problem)

    def tell(line: str) -> None:
        check()  # before anything that takes long
        if sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)

    def meanwhile() -> None:
        from harness.report import console

        check()
        console.console(stream(options))

    if options.timeout is not None and not options.timeout > 0:
        return usage(f"--timeout {options.timeout:g}: give seconds above 0")
    given = [f"{name}={value}" for name in ("cpus", "memory") if (value := getattr(options, name)) is not None]
    qemu.binary()  # before a kernel is fetched in vain
    status = EXIT_OK
    try:
        kernel = spec.resolve(options.kernel, tell=tell)
        machines = _machines(lambda: vary(vary(Machine(kernel), given)[0], options.vary))
        job = Job(tuple(words), files, options.fresh, options.timeout)
        for machine in machines:
            report = run(machine, job, tell, meanwhile)
            check()

            from harness.report import console

            word = "" if len(machines) == 1 else machine.variation or "usual"
            own = named_for(options, word.replace(" ", "_").replace("/", "_"))
            told = failed.verdict(report) or verdict(report)
            status = max(status, publish(own, report, told, console.console(stream(options))))
    except _Wrong as error:
        return usage(str(error))
    return status


def _machines(choose: Callable[[], list[Machine]]) -> list[Machine]:
    try:
        return choose()
    except HarnessError as error:
        raise _Wrong(str(error)) from error
