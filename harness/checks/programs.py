"""Which of the harness's own programs a command may load: what a machine without a compiler has to be given."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks import selftest
from harness.program.compile import Join, Source, redirector, stand_in
from harness.program.images import bundled


def bundle(arguments: Sequence[str]) -> bytes:
    """The bundle (harness.program.bundle) for a command line of msp-harness, compiled as far as it is not kept.

    Raises HarnessError where this machine cannot compile.
    """
    return bundled(of_command(arguments))


def of_command(arguments: Sequence[str]) -> list[Source]:
    """Every program that such a command may load on some kernel: how records are completed is decided there."""
    command, words = list(arguments[:1]), set(arguments)
    sources = [redirector(join=join) for join in Join]
    if command == ["verify"]:
        sources.append(stand_in())
        if {"hardened", "--program=hardened", "--compare"} & words:
            sources += [redirector(hardened=True, join=join) for join in Join]
        if "--self-test" in words or any("selftest" in word for word in words):
            sources += selftest.sources()
    elif command == ["reproduce"]:
        from harness.failures import refusals  # what verify does not need

        sources += refusals.variants()
    return list({code.digest: code for code in sources}.values())
