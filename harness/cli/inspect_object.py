"""`msp-harness inspect-object`."""

from __future__ import annotations

import argparse

from harness.cli.output import publish, report_options, stream, usage


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser(
        "inspect-object", help="what is in an eBPF object, and does this kernel have its needs?"
    )
    inspect.set_defaults(command=run)
    inspect.add_argument("files", nargs="+", metavar="FILE", help="the object; two: what changed from one to the other")
    inspect.add_argument("--btf", metavar="FILE", help="resolve CO-RE relocations against this BTF, not this kernel's")
    report_options(inspect)


def run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from harness.checks import inspect
    from harness.report import console

    if len(options.files) > 2:
        return usage("inspect-object takes one FILE, or two to compare")
    given = Path(options.btf) if options.btf else None
    files = [Path(name) for name in options.files]
    report = inspect.compare(files[0], files[1], given) if len(files) == 2 else inspect.inspect(files[0], given)
    return publish(options, report, inspect.verdict(report), console.console(stream(options)))
