"""`msp-harness collect`."""

from __future__ import annotations

import argparse

from harness.report import EXIT_OK


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("collect", help="collect what a diagnosis needs into one file without secrets")
    parser.set_defaults(command=run, verbose=False)
    parser.add_argument("--output", metavar="FILE", help="where to write it (default: a name with host and time)")
    parser.add_argument(
        "--emit-script", action="store_true", help="print the collector: one file for a customer's Python 3.6 or newer"
    )


def run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from harness.diagnose import collector

    if options.emit_script:
        print(Path(collector.__file__).read_text(), end="")
        return EXIT_OK
    return collector.main(["--output", options.output] if options.output else [])
