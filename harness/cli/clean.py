"""`msp-harness clean`."""

from __future__ import annotations

import argparse

from harness.report import EXIT_OK


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    clean = commands.add_parser("clean", help="remove what killed runs left behind")
    clean.set_defaults(command=run, verbose=False)


def run(options: argparse.Namespace) -> int:
    from harness.lab import state

    removed = state.clean()
    for run in removed:
        print(f"removed what run {run} left behind")
    return EXIT_OK
