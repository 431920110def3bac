"""The machine that a job runs on: a kernel, and what else of a whole machine decides how MSP fares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.vm.kernels import Kernel

KVM, TCG = "kvm", "tcg"
"""By what a guest's code runs, as QEMU calls it: on the host's processor, or emulated."""

MOST_CPUS = 64
LEAST_MEMORY, MOST_MEMORY = 192, 16384  # MiB; with less the interpreter does not start


class Cgroup(StrEnum):
    """How cgroups are mounted, as systemd does it in these modes."""

    V2 = "v2"  # cgroup2 at /sys/fs/cgroup
    HYBRID = "hybrid"  # a tmpfs there with v1 controllers in it, and cgroup2 at /sys/fs/cgroup/unified
    V1 = "v1"  # the same without cgroup2
    NONE = "none"  # nothing is mounted


@dataclass(frozen=True)
class Machine:
    """A kernel with its surroundings."""

    kernel: Kernel
    cpus: int = 1  # emulated, a second one costs more than it gives
    memory: int = 512  # MiB
    cgroup: Cgroup = Cgroup.V2
    lsm: str = ""  # the value of the kernel word lsm=; empty: what the kernel was built with
    words: tuple[str, ...] = ()  # further words for the kernel, e.g. lockdown=integrity

    @property
    def variation(self) -> str:
        """What is not as usual, in a few words; empty when all is."""
        usual = Machine(self.kernel)
        told = [
            f"{name}={value}"
            for name in ("cgroup", "cpus", "memory", "lsm")
            if (value := getattr(self, name)) != getattr(usual, name)
        ]
        return " ".join([*told, *self.words])


def _number(name: str, least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise HarnessError(f"use {name}={text}", "it is no such number", f"give one from {least} to {most}")
        return int(text)

    return parse


def _cgroup(text: str) -> Cgroup:
    try:
        return Cgroup(text)
    except ValueError:
        known = ", ".join(Cgroup)
        raise HarnessError(f"use cgroup={text}", "there is no such layout", f"give one of {known}") from None


def _word(text: str) -> str:
    if not text.isprintable() or " " in text or '"' in text:
        raise HarnessError(f"use lsm={text!r}", "a word of the kernel has no blanks and no quotes")
    return text


VALUES: dict[str, Callable[[str], object]] = {
    "cpus": _number("cpus", 1, MOST_CPUS),
    "memory": _number("memory", LEAST_MEMORY, MOST_MEMORY),
    "cgroup": _cgroup,
    "lsm": _word,
}
"""What can be varied, and what a value's text means."""


def vary(machine: Machine | Kernel, specifications: Sequence[str]) -> list[Machine]:
    """A machine for every combination of values: `cgroup=v2,hybrid`, `cpus=1,8`. Without any: the machine itself.

    The names of security modules are joined by `+` in a value of lsm, for a comma parts values: `lsm=bpf+apparmor,`
    is one with the two and one with the kernel's own. Raises HarnessError for what is no such specification.
    """
    base = machine if isinstance(machine, Machine) else Machine(machine)
    choices: dict[str, list[object]] = {}
    for specification in specifications:
        name, equals, values = specification.partition("=")
        if name not in VALUES or not equals:
            known = ", ".join(VALUES)
            raise HarnessError(f"vary {specification}", "it is no NAME=VALUE,…", f"the names are {known}")
        parsed = [VALUES[name](value.replace("+", ",") if name == "lsm" else value) for value in values.split(",")]
        choices[name] = list(dict.fromkeys([*choices.get(name, []), *parsed]))
    rows = product(*choices.values())
    return [replace(base, **dict(zip(choices, row, strict=True))) for row in rows]  # type: ignore[arg-type]
