"""`msp-harness redact`."""

from __future__ import annotations

import argparse
import sys

from harness.report import EXIT_OK


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("redact", help="copy a bundle without its keys, tokens, signatures, passwords")
    parser.set_defaults(command=run, verbose=False)
    parser.add_argument("bundle", metavar="BUNDLE", help="a directory, an archive, a file, or - for standard input")
    parser.add_argument("--output", metavar="FILE", help="where to write the .tar.gz (default: BUNDLE.redacted.tar.gz)")


def run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from harness.diagnose.redaction import redact_bundle
    from harness.report.text import visible

    name = "bundle" if options.bundle == "-" else Path(options.bundle).resolve().name
    output = Path(options.output or f"{name}.redacted.tar.gz")
    done = redact_bundle([options.bundle], output, stdin=sys.stdin.buffer)
    found = ", ".join(f"{count} × {secret}" for secret, count in sorted(done.secrets.items())) or "no secret was found"
    print(visible(f"{output}: {done.texts} texts; {found}", sys.stdout.encoding))
    for note in done.notes:
        print(visible(f"  not in it or not whole: {note.document}: {note.what}", sys.stdout.encoding))
    return EXIT_OK
