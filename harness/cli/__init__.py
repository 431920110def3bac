"""The commands: parse, call, render, exit code; nothing else. Each command is a module here.

Imports of what a command needs are made by the command, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import functools
import gc
import sys
from collections.abc import Sequence

import harness
from harness import interruption
from harness.cli import (
    agent,
    clean,
    codes,
    collect,
    diagnose,
    explain,
    image,
    inspect_object,
    kernels,
    key_reset,
    matrix,
    redact,
    reproduce,
    verify,
    vm,
)
from harness.cli.output import silence_stdout
from harness.errors import HarnessError
from harness.interruption import Interrupted
from harness.report import EXIT_CANNOT_RUN

_DESCRIPTION = "Verifies, at the eBPF level, that a kernel redirects Azure's metadata traffic as MSP needs."

COMMANDS = (
    verify,
    reproduce,
    explain,
    diagnose,
    collect,
    redact,
    key_reset,
    inspect_object,
    agent,
    vm,
    matrix,
    kernels,
    image,
    codes,
    clean,
)
"""The modules of the commands, in the order of `--help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    options = parser().parse_args(arguments)
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
        silence_stdout()
        return EXIT_CANNOT_RUN
    except Interrupted as interrupted:
        print(f"msp-harness: ended by {interrupted}; nothing was left behind", file=sys.stderr)
        return interrupted.exit_code


@functools.cache
def parser() -> argparse.ArgumentParser:
    """All commands and their options; made once, which takes a tenth of a second where it is emulated."""
    found = argparse.ArgumentParser(prog="msp-harness", description=_DESCRIPTION)
    found.add_argument("--version", action="version", version=f"msp-harness {harness.__version__}")
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return found
