"""The commands: parse, call, render, exit code; nothing else.

Imports of what a command needs are made by the command, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import harness
from harness import interruption
from harness.errors import HarnessError
from harness.interruption import Interrupted
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK, EXIT_USAGE, Outcome, Report, Result, exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from harness.lab.agent_files import AgentFiles

_DESCRIPTION = "Verifies, at the eBPF level, that a kernel redirects Azure's metadata traffic as MSP needs."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    options = _parser().parse_args(arguments)
    interruption.install()
    try:
        status: int = options.command(options)
        sys.stdout.flush()
        gc.freeze()  # else Python looks through all there is, for 40 ms, to end a process
        return status
    except HarnessError as error:
        print(f"msp-harness: {error}", file=sys.stderr)
        if error.detail and options.verbose:
            print(error.detail, file=sys.stderr)
        return EXIT_CANNOT_RUN
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_CANNOT_RUN
    except Interrupted as interrupted:
        print(f"msp-harness: ended by {interrupted}; nothing was left behind", file=sys.stderr)
        return interrupted.exit_code


def _silence_stdout() -> None:
    """After a broken pipe: whatever is still written goes nowhere, and Python does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="msp-harness", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"msp-harness {harness.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    verify = commands.add_parser("verify", help="does a connect4 program load, attach and redirect on this kernel?")
    verify.set_defaults(command=_verify)
    verify.add_argument("--list", action="store_true", help="list the checks and end")
    verify.add_argument("--only", action="append", default=[], metavar="CHECK", help="run only this check (repeatable)")
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
    _report_options(verify)

    reproduce = commands.add_parser("reproduce", help="bring about a failure of the guide, explain it, cure it")
    reproduce.set_defaults(command=_reproduce)
    reproduce.add_argument("names", nargs="*", metavar="NAME", help="a failure, the beginning of several, or all")
    reproduce.add_argument("--list", action="store_true", help="list the failures with their places in the guide")
    reproduce.add_argument("--binary", metavar="FILE", help="bring the key failures about with this agent")
    reproduce.add_argument("--object", metavar="FILE", help="its eBPF object")
    reproduce.add_argument("--config", metavar="FILE", help="its configuration")
    _report_options(reproduce)

    explain = commands.add_parser("explain", help="say what a verifier log, status.json, agent log or message means")
    explain.set_defaults(command=_explain, verbose=False)
    explain.add_argument("file", metavar="FILE", nargs="?", help="the text; - for standard input")
    explain.add_argument("--object", metavar="FILE", help="the eBPF object that the log is of: what comes after a cut")
    explain.add_argument("--here", action="store_true", help="have this machine answer what decides the cause")
    explain.add_argument("--ticket", action="store_true", help="plain text to paste into a ticket")
    explain.add_argument("--json", metavar="FILE", help="write the explanation as JSON (- for standard output)")

    inspect = commands.add_parser(
        "inspect-object", help="what is in an eBPF object, and does this kernel have its needs?"
    )
    inspect.set_defaults(command=_inspect_object)
    inspect.add_argument("files", nargs="+", metavar="FILE", help="the object; two: what changed from one to the other")
    inspect.add_argument("--btf", metavar="FILE", help="resolve CO-RE relocations against this BTF, not this kernel's")
    _report_options(inspect)

    _agent_parser(commands.add_parser("agent", help="run an agent in a lab and see what it does"))

    codes = commands.add_parser("codes", help="list the stable codes of findings")
    codes.set_defaults(command=_codes, verbose=False)
    codes.add_argument("code", nargs="?", metavar="CODE", help="show only this one, with cause and remedy")

    clean = commands.add_parser("clean", help="remove what killed runs left behind")
    clean.set_defaults(command=_clean, verbose=False)
    return parser


def _agent_parser(agent: argparse.ArgumentParser) -> None:
    run = agent.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "run",
        help="start an agent in a lab, follow it to SUCCESS, try its listener, compare its status with what is so",
    )
    run.set_defaults(command=_agent_run)
    run.add_argument("--binary", metavar="FILE", help="the agent (default: our reference agent, for laboratories)")
    run.add_argument(
        "--object", metavar="FILE", help="its eBPF object (default: ebpf_cgroup.o beside it, or installed)"
    )
    run.add_argument("--config", metavar="FILE", help="its /etc/azure/proxy-agent.json (default: one with short times)")
    run.add_argument("--scenario", metavar="NAME", default="enforce", help="what the platform does; `list` lists them")
    run.add_argument("--patience", type=float, default=30.0, metavar="SECONDS", help="for it to come up (default 30)")
    run.add_argument("--follow", action="store_true", help="tell each step when it is seen")
    _report_options(run)


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON (- for standard output)")
    parser.add_argument("--junit", metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write the report as Markdown")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the evidence of every result")


def _verify(options: argparse.Namespace) -> int:
    from harness.checks import verify
    from harness.checks.options import Options, matches
    from harness.program.compile import Join

    only = tuple(options.only) or (("chain",) if options.explain else ())
    options.verbose |= options.explain  # the steps of the chain are its evidence
    if options.list or options.only:
        from harness.checks import plan

        if options.list:
            for name, title in plan.names():
                print(f"{name:<16}{title}")
            return EXIT_OK
        unknown = plan.unknown(only)
        if unknown:
            return _usage(f"no check is named {', '.join(unknown)}; `msp-harness verify --list` lists them")
    problem = _object_usage(options)
    if problem:
        return _usage(problem)
    file = None
    if options.object:
        from pathlib import Path

        from harness.program import foreign

        try:
            file = foreign.read(Path(options.object))
        except HarnessError as error:
            return _usage(str(error))
    join = Join(options.audit) if options.audit else None
    chosen = Options(options.program, only, options.quick, options.self_test, join, file, options.compare)
    with verify.start(chosen) as started:
        from harness.checks import plan
        from harness.report import console

        screen = console.console(_stream(options))
        told = options.verbose and not options.explain
        with console.progress(screen, plan.expected(started.options), verbose=told) as progress:
            report = verify.verify(started, progress.finished)
    found = any(matches(word, result.id) for word in only for result in report.results)
    if only and not found and exit_code(report) == EXIT_OK:
        return _usage(f"nothing that was run is named {', '.join(only)}")
    status = _publish(options, report, verify.verdict(report), screen)
    if options.compare:
        from harness.checks import compare

        print("", *compare.table(report), sep="\n", file=_stream(options))
    return status


def _object_usage(options: argparse.Namespace) -> str:
    """What cannot be asked for together; empty when all can."""
    if options.compare and not options.object:
        return "--compare compares with an object: give --object FILE too"
    if options.object and options.program != "plain":
        return "--program is for our own programs; --object FILE --compare has both beside the object"
    if options.object and options.self_test:
        return "--self-test breaks our own program, and cannot break that of --object"
    return ""


def _reproduce(options: argparse.Namespace) -> int:
    from harness import failures
    from harness.checks.recording import Recording
    from harness.failures.table import ALL, chosen
    from harness.report import console

    if options.list or not options.names:
        for failure in failures.catalogue():
            print(f"{failure.name:<28}{failure.title}\n{'':<28}{failure.code.id} · {failure.guide}")
        return EXIT_OK
    try:
        count, agent = len(chosen(options.names)), _agent_files(options)
    except HarnessError as error:
        return _usage(str(error))
    recording = Recording("live kernel: failures of the guide")
    screen = console.console(_stream(options))
    with console.progress(screen, count, verbose=options.verbose) as progress:
        results = []
        for result in failures.reproduce(options.names, progress, agent):
            interruption.check()
            results.append(result)
    if ALL not in options.names or options.verbose:  # who names a failure wants to see all of it
        for result in results:
            print(failures.tell(result), file=screen.file)
    return _publish(options, recording.report(results), _reproduced(results), screen)


def _reproduced(results: Sequence[Result]) -> str:
    """PASS means here that the failure came about and that its remedy helped."""
    done = sum(result.outcome is Outcome.PASS for result in results)
    skipped = sum(result.outcome is Outcome.SKIP for result in results)
    return f"{done} of {len(results)} failures brought about and cured" + (
        f", {skipped} not possible here" * bool(skipped)
    )


def _explain(options: argparse.Namespace) -> int:
    """Explained is exit code 0, whatever the text says; a text that means nothing to us is 1."""
    import json
    from pathlib import Path

    from harness.report import console
    from harness.report.write import write
    from harness.verifier import elf, explanation, source
    from harness.verifier.explain import explain_text

    if options.file is None:
        return _usage("explain what? give a FILE, or - for standard input")
    answers = None
    if options.here:
        from harness.checks import here

        answers = here.answers()
    steps = elf.read_calls(Path(options.object)) if options.object else None
    name = options.object or "the object"
    explained = explain_text(source.read(options.file), steps=steps, object_name=name, answers=answers)
    if options.json:
        content = [explanation.to_json(one) for one in explained]
        write(options.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if options.ticket:
        print(explanation.ticket(explained), end="")
    elif options.json not in ("-", "/dev/stdout"):
        explanation.show(console.console(), explained)
    return EXIT_OK if all(one.outcome is not Outcome.ERROR for one in explained) else EXIT_CHECK_FAILED


def _inspect_object(options: argparse.Namespace) -> int:
    from pathlib import Path

    from harness.checks import inspect
    from harness.report import console

    if len(options.files) > 2:
        return _usage("inspect-object takes one FILE, or two to compare")
    given = Path(options.btf) if options.btf else None
    files = [Path(name) for name in options.files]
    report = inspect.compare(files[0], files[1], given) if len(files) == 2 else inspect.inspect(files[0], given)
    return _publish(options, report, inspect.verdict(report), console.console(_stream(options)))


def _agent_files(options: argparse.Namespace) -> AgentFiles:
    """--binary, --object and --config. Raises HarnessError for files that are not there."""
    from pathlib import Path

    from harness.lab.agent_files import AgentFiles

    given = [Path(name).absolute() if name else None for name in (options.binary, options.object, options.config)]
    for name, path in zip(("--object", "--config"), given[1:], strict=True):
        if path and not path.is_file():
            raise HarnessError(f"use {name} {path}", "ENOENT: there is no such file", "give a file that is there")
    if options.object and not options.binary:
        raise HarnessError("use --object", "it is loaded by the agent of --binary", "give --binary too")
    return AgentFiles(*given)


def _agent_run(options: argparse.Namespace) -> int:
    from harness.checks import agent_run
    from harness.lab.scenarios import SCENARIOS, scenario
    from harness.report import console

    if options.scenario == "list":
        for row in SCENARIOS:
            print(f"{row.name:<18}{row.title}")
        return EXIT_OK
    try:
        chosen = agent_run.AgentOptions(_agent_files(options), scenario(options.scenario), options.patience)
    except HarnessError as error:
        return _usage(str(error))
    screen = console.console(_stream(options))

    def told(seconds: float, step: str, saw: str) -> None:
        if options.follow:
            print(f"{seconds:8.3f} s  {step:<10}{saw}", file=screen.file, flush=True)

    with console.progress(screen, agent_run.EXPECTED, verbose=options.verbose) as progress:
        report = agent_run.run_agent(chosen, progress.finished, told)
    return _publish(options, report, agent_run.verdict(report), screen)


def _codes(options: argparse.Namespace) -> int:
    from harness.msp import codes

    if options.code:
        if options.code.upper() not in codes.all_codes():
            return _usage(f"no code {options.code}; `msp-harness codes` lists them")
        code = codes.code(options.code)
        print(f"{code.id}  {code.title}\n\n{code.cause}\n\n{code.remedy}")
        if code.guide:
            print(f"\nGuide: {code.guide}")
        return EXIT_OK
    for code in codes.all_codes().values():
        print(f"{code.id}  {code.title}")
    return EXIT_OK


def _usage(problem: str) -> int:
    print(f"msp-harness: {problem}", file=sys.stderr)
    return EXIT_USAGE


def _stream(options: argparse.Namespace) -> TextIO:
    """Where the person reads: stderr when the report itself goes to stdout."""
    to_stdout = {"-", "/dev/stdout"} & {options.json, options.junit, options.markdown}
    return sys.stderr if to_stdout else sys.stdout


def _publish(options: argparse.Namespace, report: Report, verdict: str, screen: Console) -> int:
    """Write the files that were asked for, show the report, and give the exit code.

    Files come first: a reader of stdout who goes away must not cost them.
    """
    from harness.report import console, json, junit, markdown
    from harness.report.write import write

    status = exit_code(report)
    for path, render in (
        (options.json, json.dump),
        (options.junit, junit.render),
        (options.markdown, lambda report: markdown.render(report, verdict)),
    ):
        if path:
            try:
                write(path, render(report))
            except HarnessError as error:
                print(f"msp-harness: {error}", file=sys.stderr)
                status = EXIT_CANNOT_RUN
    try:
        console.show(screen, report, verdict, verbose=options.verbose)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    return status


def _clean(options: argparse.Namespace) -> int:
    from harness.lab import state

    removed = state.clean()
    for run in removed:
        print(f"removed what run {run} left behind")
    return EXIT_OK
