"""`msp-harness matrix`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cli.output import report_options, silence_stdout, stream, usage
from harness.errors import HarnessError
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console

    from harness.matrix.differences import Difference
    from harness.matrix.model import Matrix
    from harness.matrix.question import Question

_DEFAULT_KERNELS = "bullseye, bookworm, trixie, sid"  # harness.matrix.question.KERNELS, which --help does not import


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    matrix = commands.add_parser("matrix", help="many kernels × many programs, each pair verified in a guest")
    matrix.set_defaults(command=run)
    matrix.add_argument(
        "--kernels",
        action="append",
        default=[],
        metavar="SPEC,…",
        help=f"the kernels, as `vm verify --kernel` takes them (default: {_DEFAULT_KERNELS})",
    )
    matrix.add_argument("--programs", metavar="NAME,…", help="our own programs: plain,hardened (default), or none")
    matrix.add_argument("--objects", action="append", default=[], metavar="FILE,…", help="eBPF objects to verify")
    matrix.add_argument("--checks", action="append", default=[], metavar="CHECK,…", help="only these checks")
    matrix.add_argument(
        "--vary", action="append", default=[], metavar="NAME=VALUE,…", help="machines too: cgroup=v2,hybrid cpus=1,8 …"
    )
    matrix.add_argument("--jobs", type=int, metavar="N", help="guests at once (default: one a core)")
    matrix.add_argument("--timeout", type=float, metavar="SECONDS", help="for a guest (default: from measured boots)")
    matrix.add_argument("--no-cache", action="store_true", help="measure again what was measured before")
    matrix.add_argument("--baseline", metavar="FILE", help="end with 1 only for what is worse than in this JSON")
    matrix.add_argument("--write-baseline", metavar="FILE", help="write the JSON that --baseline takes")
    report_options(matrix)


def run(options: argparse.Namespace) -> int:
    from harness.matrix import json
    from harness.matrix.differences import differences, worse
    from harness.matrix.model import exit_code
    from harness.matrix.run import measure
    from harness.matrix.table import LiveTable
    from harness.report import console

    try:
        question = _question(options)
        baseline = json.read(options.baseline) if options.baseline else None
    except HarnessError as error:
        return usage(str(error))
    jobs = len(os.sched_getaffinity(0)) if options.jobs is None else options.jobs
    if jobs < 1 or (options.timeout is not None and options.timeout <= 0):
        return usage("--jobs and --timeout want numbers above 0")
    screen = console.console(stream(options))
    with LiveTable(screen) as table:
        matrix = measure(question, jobs, table, reuse=not options.no_cache)
    before, against = (baseline, f"the baseline {options.baseline}") if baseline else _last(question)
    found = None if before is None else differences(before, matrix)
    status = exit_code(matrix)
    if baseline is not None:
        status = EXIT_CHECK_FAILED if worse(found or ()) else EXIT_OK
    written = _write(options, question, matrix, found, against)
    try:
        _tell(screen, matrix, found, against, baseline is not None)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
    return status if written else EXIT_CANNOT_RUN


def _question(options: argparse.Namespace) -> Question:
    """The command line as it is meant. Raises HarnessError for what makes no sense."""
    from harness.matrix.question import KERNELS, OWN, Question, given, unknown_checks

    checks, programs = _words(options.checks), _words([options.programs or ",".join(OWN)])
    unknown = unknown_checks(checks)
    if unknown:
        raise HarnessError(f"run the checks {', '.join(unknown)}", "there are none of that name",
                           "`msp-harness verify --list` lists them")  # fmt: skip
    programs = [] if programs == ["none"] else programs
    strange = [name for name in programs if name not in OWN]
    if strange:
        raise HarnessError(f"use the programs {', '.join(strange)}", "there are none of that name",
                           f"ours are {', '.join(OWN)}; give files with --objects")  # fmt: skip
    objects = given(_words(options.objects))
    if not programs and not objects:
        raise HarnessError("make a matrix", "it has no program", "give --objects, or leave --programs out")
    kernels = _words(options.kernels, _BETWEEN_SPECS) or list(KERNELS)
    return Question(kernels, programs, objects, checks, options.vary, options.timeout)


_BETWEEN_SPECS = ",(?!modules=|kernel=)"  # FILE,modules=DIR is one


def _words(given: Sequence[str], between: str = ",") -> list[str]:
    """Lists with commas, several of which may be given; each word once."""
    return list(dict.fromkeys(word for words in given for word in re.split(between, words) if word))


def _last(question: Question) -> tuple[Matrix | None, str]:
    """The matrix that answered the same question last time, and what it is called."""
    from harness.matrix import json, store

    path = store.last(question.same_as())
    try:
        matrix = json.read(str(path))
    except HarnessError:  # there is none, or it is of another version
        return None, ""
    return matrix, f"the last run, {matrix.started}"


def _write(
    options: argparse.Namespace, question: Question, matrix: Matrix, found: Sequence[Difference] | None, against: str
) -> bool:
    """Write the files that were asked for, and what the next run is compared with. False where one could not be."""
    from harness.matrix import html, json, junit, markdown, store
    from harness.report.write import write

    complete = True
    outputs: tuple[tuple[str | None, Callable[[], str]], ...] = (
        (options.json, lambda: json.dump(matrix)),
        (options.write_baseline, lambda: json.dump(matrix)),
        (options.junit, lambda: junit.render(matrix)),
        (options.markdown, lambda: markdown.render(matrix, found, against)),
        (options.html, lambda: html.render(matrix, found, against)),
    )
    for path, render in outputs:
        if path:
            try:
                write(path, render())
            except HarnessError as error:
                print(f"msp-harness: {error}", file=sys.stderr)
                complete = False
    store.keep_last(question.same_as(), json.dump(matrix))
    return complete


def _tell(screen: Console, matrix: Matrix, found: Sequence[Difference] | None, against: str, is_baseline: bool) -> None:
    """What the table does not say: floors, differences, and the whole in one sentence last."""
    from harness.matrix import summary

    for text in summary.lines(screen, matrix, found, against, is_baseline):
        screen.print(text, soft_wrap=True)
