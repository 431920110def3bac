"""`msp-harness codes`."""

from __future__ import annotations

import argparse

from harness.cli.output import usage
from harness.report import EXIT_OK


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    codes = commands.add_parser("codes", help="list the stable codes of findings")
    codes.set_defaults(command=run, verbose=False)
    codes.add_argument("code", nargs="?", metavar="CODE", help="show only this one, with cause and remedy")


def run(options: argparse.Namespace) -> int:
    from harness.msp import codes

    if options.code:
        if options.code.upper() not in codes.all_codes():
            return usage(f"no code {options.code}; `msp-harness codes` lists them")
        code = codes.code(options.code)
        print(f"{code.id}  {code.title}\n\n{code.cause}\n\n{code.remedy}")
        if code.guide:
            print(f"\nGuide: {code.guide}")
        return EXIT_OK
    for code in codes.all_codes().values():
        print(f"{code.id}  {code.title}")
    return EXIT_OK
