"""`msp-harness verify`."""

from __future__ import annotations

import argparse

from harness.cli.output import publish, report_options, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_OK, exit_code


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser("verify", help="does a connect4 program load, attach and redirect on this kernel?")
    verify.set_defaults(command=run)
    verify.add_argument("--list", action="store_true", help="list the checks and end")
    choices(verify)
    report_options(verify)


def choices(verify: argparse.ArgumentParser) -> None:
    """The options that say what is verified, here or in a guest."""
    verify.add_argument(
        "--only", action="extend", type=_words, default=[], metavar="CHECK,…", help="run only these checks (repeatable)"
    )
    verify.add_argument("--quick", action="store_true", help="leave out the census and the other slow checks")
    verify.add_argument(
        "--program", choices=("plain", "hardened"), default="plain", help="which of our programs to verify"
    )
    verify.add_argument(
        "--audit",
        choices=("sock_ops", "kprobe"),
        help="complete audit records by sock_ops or, as the agent does, by a kprobe (default: the best there is)",
    )
    verify.add_argument("--object", metavar="FILE", help="verify this eBPF object (the agent's ebpf_cgroup.o)")
    verify.add_argument("--compare", action="store_true", help="put our two programs beside the object of --object")
    verify.add_argument("--explain", action="store_true", help="show the chain of proof for each endpoint")
    verify.add_argument(
        "--self-test", action="store_true", help="also break the program in every way and see it caught"
    )


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def run(options: argparse.Namespace) -> int:
    from harness.checks import verify
    from harness.checks.options import Options, matches
    from harness.program.compile import Join

    only = tuple(options.only) or (("chain",) if options.explain else ())
    options.verbose |= options.explain  # the steps of the chain are its evidence
    if options.list:
        from harness.checks.names import TITLES

        for name, title in TITLES.items():
            print(f"{name:<16}{title}")
        return EXIT_OK
    problem = wrong(options)
    if problem:
        return usage(problem)
    file = None
    if options.object:
        from pathlib import Path

        from harness.program import foreign

        try:
            file = foreign.read(Path(options.object))
        except HarnessError as error:
            return usage(str(error))
    join = Join(options.audit) if options.audit else None
    chosen = Options(options.program, only, options.quick, options.self_test, join, file, options.compare)
    with verify.start(chosen) as started:
        from harness.checks import plan
        from harness.report import console

        screen = console.console(stream(options))
        told = options.verbose and not options.explain
        with console.progress(screen, plan.expected(started.options), verbose=told) as progress:
            report = verify.verify(started, progress.finished)
    found = any(matches(word, result.id) for word in only for result in report.results)
    if only and not found and exit_code(report) == EXIT_OK:
        return usage(f"nothing that was run is named {', '.join(only)}")
    status = publish(options, report, verify.verdict(report), screen)
    if options.compare:
        from harness.checks import compare

        print("", *compare.table(report), sep="\n", file=stream(options))
    return status


def wrong(options: argparse.Namespace) -> str:
    """What cannot be asked for, or not together; empty when all can."""
    if options.only:
        from harness.checks.names import unknown

        if words := unknown(options.only):
            return f"no check is named {', '.join(words)}; `msp-harness verify --list` lists them"
    if options.compare and not options.object:
        return "--compare compares with an object: give --object FILE too"
    if options.object and options.program != "plain":
        return "--program is for our own programs; --object FILE --compare has both beside the object"
    if options.object and options.self_test:
        return "--self-test breaks our own program, and cannot break that of --object"
    return ""
