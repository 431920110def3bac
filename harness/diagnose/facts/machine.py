"""Which machine it is, and what was typed on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.diagnose.facts.base import Fact


class IdentityKind(StrEnum):
    HOST = "host name"
    VM = "vmId"
    MACHINE = "machine-id"


@dataclass(frozen=True, slots=True)
class Identity(Fact):
    """Which machine a document is from; two of one kind with different values are two machines."""

    kind: IdentityKind
    value: str


@dataclass(frozen=True, slots=True)
class CommandOutput(Fact):
    """A command that stands behind a prompt, with what it printed; output is "" where it printed nothing.

    What a reader understood of it is a fact of its own beside this one. ended is False where nothing stands behind
    it: then the output may have been cut off.
    """

    command: str
    output: str
    ended: bool = True
