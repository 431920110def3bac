"""`msp-harness diagnose`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from harness.cli import fleet
from harness.cli.output import usage
from harness.errors import HarnessError
from harness.report import EXIT_CANNOT_RUN, EXIT_CHECK_FAILED, EXIT_OK

if TYPE_CHECKING:
    from harness.diagnose.facts import Evidence

_EPILOGUE = """\
PATH: a directory, an archive (zip, tar, tar.gz, tar.xz, tar.zst), a file, or - for standard input (a pasted text).

exit codes: 0 nothing is wrong, or only a setting is worth a look · 1 a cause was found, or the evidence does not
decide · 2 wrong usage · 3 it could not be read
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "diagnose",
        help="from what a customer sent to the cause and what to do",
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run, verbose=False)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="the evidence of one machine")
    parser.add_argument("--here", action="store_true", help="diagnose this machine; reads, changes nothing")
    parser.add_argument("--why", action="store_true", help="show the chain from evidence to verdict")
    parser.add_argument("--list-rules", action="store_true", help="list every rule with what it needs and concludes")
    parser.add_argument("--json", metavar="FILE", help="write the diagnosis as JSON (- for standard output)")
    parser.add_argument("--markdown", metavar="FILE", help="write it as Markdown, for a ticket (- for standard output)")
    parser.add_argument("--html", metavar="FILE", help="write it as one page")
    fleet.add_options(parser)


def run(options: argparse.Namespace) -> int:
    if options.list_rules:
        from harness.diagnose import coverage

        print(coverage.rules_text(), end="")
        return EXIT_OK
    if options.fleet:
        if options.paths or options.here:
            return usage("--fleet PATH is for many machines: give no other PATH and no --here")
        return fleet.run(options)
    if options.here == bool(options.paths):
        return usage("give a PATH or --here, not both" if options.here else "diagnose what? give a PATH, - or --here")
    from harness.diagnose import render, verdict
    from harness.report import console
    from harness.report.write import write

    found = verdict.diagnose(_evidence(options))
    status = EXIT_OK if found.kind in (verdict.Kind.HEALTHY, verdict.Kind.NOTE) else EXIT_CHECK_FAILED
    written = {"-", "/dev/stdout"} & {options.json, options.markdown, options.html}
    for path, make in (
        (options.json, render.dump),
        (options.markdown, render.to_markdown),
        (options.html, render.to_html),
    ):
        if path:
            try:
                write(path, make(found))
            except HarnessError as error:
                print(f"msp-harness: {error}", file=sys.stderr)
                status = EXIT_CANNOT_RUN
    screen = console.console(sys.stderr if written else sys.stdout)
    if options.why:
        from harness.diagnose import page
        from harness.report.text import visible

        for line in page.why(found):
            print(visible(line), file=screen.file)
    elif not written:
        render.show(screen, found)
    return status


def _evidence(options: argparse.Namespace) -> Evidence:
    if options.here:
        from harness.diagnose import here

        return here.evidence()
    from harness.diagnose import intake

    return intake.read(options.paths, stdin=sys.stdin.buffer)
