"""What a user asked `msp-harness verify` for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.program.compile import Join
    from harness.program.foreign import ObjectFile


@dataclass(frozen=True)
class Options:
    """The command line of verify: only holds ids, or what they begin with up to a dot."""

    program: str = "plain"  # or hardened
    only: tuple[str, ...] = ()
    quick: bool = False
    self_test: bool = False
    join: Join | None = None  # how audit records are completed; None: the best way that the kernel has
    object: ObjectFile | None = None  # somebody else's program, to be verified in place of ours
    compare: bool = False  # with ours beside it


def matches(word: str, name: str) -> bool:
    """Whether a word of --only asks for this id: the id itself, or what it begins with up to a dot."""
    return name == word or name.startswith(word + ".")


def asked_for(group: str, options: Options) -> bool:
    return any(word.split(".")[0] == group for word in options.only)


def with_census(options: Options) -> bool:
    return asked_for("census", options) if options.only else not options.quick


def with_self_test(options: Options) -> bool:
    return options.self_test or asked_for("selftest", options)


def programs(options: Options) -> list[str]:
    """The programs to compile: the one that is verified and, for the census beside the hardened one, the plain one.

    For somebody else's object, those that it is compared with.
    """
    if options.object is not None:
        return ["plain", "hardened"] if options.compare else []
    both = options.program == "hardened" and with_census(options)
    return ["plain", "hardened"] if both else [options.program]
