"""`msp-harness explain`."""

from __future__ import annotations

import argparse

from harness.cli.output import usage
from harness.report import EXIT_CHECK_FAILED, EXIT_OK, Outcome


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser("explain", help="say what a verifier log, status.json, agent log or message means")
    explain.set_defaults(command=run, verbose=False)
    explain.add_argument("file", metavar="FILE", nargs="?", help="the text; - for standard input")
    explain.add_argument("--object", metavar="FILE", help="the eBPF object that the log is of: what comes after a cut")
    explain.add_argument("--here", action="store_true", help="have this machine answer what decides the cause")
    explain.add_argument("--ticket", action="store_true", help="plain text to paste into a ticket")
    explain.add_argument("--json", metavar="FILE", help="write the explanation as JSON (- for standard output)")


def run(options: argparse.Namespace) -> int:
    """Explained is exit code 0, whatever the text says; a text that means nothing to us is 1."""
    import json
    from pathlib import Path

    from harness.report import console
    from harness.report.write import write
    from harness.verifier import elf, explanation, source
    from harness.verifier.explain import explain_text

    if options.file is None:
        return usage("explain what? give a FILE, or - for standard input")
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
