"""What the commands share: the options for a report, where it goes, and its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from harness.errors import HarnessError
from harness.report import EXIT_CANNOT_RUN, EXIT_USAGE, Report, exit_code

if TYPE_CHECKING:
    from rich.console import Console


SPEC = "a suite (bookworm, bookworm/6.12, trixie:generic), a .deb, .rpm, vmlinuz or disk image, or lab:NAME"
"""What names a kernel, for the help of the commands that take one."""


def report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON (- for standard output)")
    parser.add_argument("--junit", metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write the report as Markdown")
    parser.add_argument("--html", metavar="FILE", help="write the report as one HTML page")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the evidence of every result")


def usage(problem: str) -> int:
    print(f"msp-harness: {problem}", file=sys.stderr)
    return EXIT_USAGE


def stream(options: argparse.Namespace) -> TextIO:
    """Where the person reads: stderr when the report itself goes to stdout."""
    to_stdout = {"-", "/dev/stdout"} & {options.json, options.junit, options.markdown, options.html}
    return sys.stderr if to_stdout else sys.stdout


def named_for(options: argparse.Namespace, word: str) -> argparse.Namespace:
    """The options for one of several reports, whose word comes into the names of its files; unchanged without one."""
    if not word:
        return options
    found = argparse.Namespace(**vars(options))
    for name in ("json", "junit", "markdown", "html", "sbom"):
        path = getattr(options, name, None)
        if path and not path.startswith(("-", "/dev/")):
            stem, dot, suffix = path.rpartition(".")
            setattr(found, name, f"{stem}.{word}{dot}{suffix}" if dot else f"{path}.{word}")
    return found


takers: list[Callable[[Report], None]] = []
"""Who takes a Report in place of files and screen: in a guest, which sends it home, nobody looks at either."""


def publish(options: argparse.Namespace, report: Report, verdict: str, screen: Console) -> int:
    """Write the files that were asked for, show the report, and give the exit code.

    Files come first: a reader of stdout who goes away must not cost them.
    """
    status = exit_code(report)
    if takers:
        for take in takers:
            take(report)
        return status
    from harness.report import console, html, json, junit, markdown
    from harness.report.write import write

    for path, render in (
        (options.json, json.dump),
        (options.junit, junit.render),
        (options.markdown, lambda report: markdown.render(report, verdict)),
        (options.html, lambda report: html.render(report, verdict)),
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
        silence_stdout()
    return status


def silence_stdout() -> None:
    """After a broken pipe: whatever is still written goes nowhere, and Python does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
