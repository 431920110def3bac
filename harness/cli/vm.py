"""`msp-harness vm`: the same commands on another kernel, in a guest; this machine's kernel is not touched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cli import reproduce, verify
from harness.cli.output import publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_OK, Report

if TYPE_CHECKING:
    from harness.vm.machine import Machine

_SPEC = "a suite (bookworm, bookworm/6.12, trixie:generic), a .deb, .rpm, vmlinuz or disk image, or lab:NAME"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    vm = commands.add_parser("vm", help="verify another kernel, or reproduce failures on it, in a guest under QEMU")
    actions = vm.add_subparsers(required=True, metavar="COMMAND")

    verified = actions.add_parser("verify", help="the checks of `msp-harness verify` on another kernel")
    verified.set_defaults(command=run_verify)
    _machine_options(verified)
    verify.choices(verified)
    report_options(verified)

    reproduced = actions.add_parser("reproduce", help="failures of the guide on another kernel")
    reproduced.set_defaults(command=run_reproduce)
    reproduced.add_argument("names", nargs="+", metavar="NAME", help="a failure, the beginning of several, or all")
    _machine_options(reproduced)
    report_options(reproduced)


def _machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", required=True, metavar="SPEC", help=_SPEC)
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
    from harness.checks.verify import verdict

    problem = verify.wrong(options)
    if problem:
        return usage(problem)
    words = ["verify"]
    if options.only or options.explain:
        words.append(f"--only={','.join(options.only or ['chain'])}")
    options.verbose |= options.explain  # the steps of the chain are its evidence
    words += [f"--{name}" for name in ("quick", "compare") if getattr(options, name)]
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
    return _run(options, words, files, verdict)


def run_reproduce(options: argparse.Namespace) -> int:
    from harness.failures.table import chosen

    try:
        chosen(options.names)
    except HarnessError as error:
        return usage(str(error))
    return _run(options, ["reproduce", *options.names], {}, lambda report: reproduce.reproduced(report.results))


def _run(
    options: argparse.Namespace, words: Sequence[str], files: dict[str, bytes], verdict: Callable[[Report], str]
) -> int:
    """Run on each machine and publish each Report; the worst exit code."""
    from harness.report import console
    from harness.vm import failed, qemu, spec
    from harness.vm.job import Job
    from harness.vm.machine import Machine, vary
    from harness.vm.run import run

    if options.timeout is not None and not options.timeout > 0:
        return usage(f"--timeout {options.timeout:g}: give seconds above 0")
    given = [f"{name}={value}" for name in ("cpus", "memory") if (value := getattr(options, name)) is not None]
    qemu.binary()  # before a kernel is fetched in vain
    kernel = spec.resolve(options.kernel, tell=_tell)
    try:
        base = vary(Machine(kernel), given)[0]
        machines = vary(base, options.vary)
    except HarnessError as error:
        return usage(str(error))
    job = Job(tuple(words), files, options.fresh, options.timeout)
    screen = console.console(stream(options))
    status = EXIT_OK
    for machine in machines:
        report = run(machine, job, _tell)
        told = failed.verdict(report) or verdict(report)
        own = _named_for(options, machine, alone=len(machines) == 1)
        status = max(status, publish(own, report, told, screen))
    return status


def _named_for(options: argparse.Namespace, machine: Machine, *, alone: bool) -> argparse.Namespace:
    """The options for one of several reports: files get the machine's variation into their names."""
    if alone:
        return options
    found = argparse.Namespace(**vars(options))
    for name in ("json", "junit", "markdown", "html"):
        path = getattr(options, name)
        if path and not path.startswith(("-", "/dev/")):
            stem, dot, suffix = path.rpartition(".")
            variation = (machine.variation or "usual").replace(" ", "_").replace("/", "_")
            setattr(found, name, f"{stem}.{variation}{dot}{suffix}" if dot else f"{path}.{variation}")
    return found


def _tell(line: str) -> None:
    """What takes long, for a person who waits."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
