"""Attach failures whose cause is who else is attached, or what is attached: another program, another type, too many."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.failures.attach_targets import CONNECT4, allowing
from harness.failures.model import ACCEPTED, Answer, Failure, Family, Setting, Shown, asked
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachType
from harness.msp import codes
from harness.program.attach import Way, attach_one
from harness.report.model import Json

LIMIT = 64
"""BPF_CGROUP_MAX_PROGS of kernel/bpf/cgroup.c."""

_WAYS = {
    Way.LINK: "a bpf_link",
    Way.SINGLE: "PROG_ATTACH without flags",
    Way.OVERRIDE: "PROG_ATTACH with ALLOW_OVERRIDE",
    Way.MULTI: "PROG_ATTACH with ALLOW_MULTI",
}


@dataclass(frozen=True)
class Order:
    """Where the first program stands and where the second is to go, below a directory with a parent and a child."""

    name: str
    first: str
    second: str
    says: str


SAME = Order("same cgroup", "", "", "in the same cgroup")
DOWN = Order("parent, then child", "", "child", "in the child of its cgroup")
UP = Order("child, then parent", "child", "", "in the parent of its cgroup")
ORDERS = (SAME, DOWN, UP)


def expected(order: Order, first: Way, second: Way) -> str:
    """The kernel's rule since 4.15 (hierarchy_allows_attach and __cgroup_bpf_attach of kernel/bpf/cgroup.c).

    In one cgroup all are attached in the same mode (a link counts as multi); below a cgroup with an exclusive program
    nothing is attached; a parent does not ask its children.
    """
    if order is SAME:
        mode = {Way.LINK: Way.MULTI}
        return ACCEPTED if mode.get(first, first) is mode.get(second, second) else "EPERM"
    return "EPERM" if order is DOWN and first is Way.SINGLE else ACCEPTED


def attach_second(parent: Path, order: Order, first: Way, second: Way) -> Answer:
    """Attach a program, then another, and give what the kernel said of the second."""
    did = f"attach by {_WAYS[second]}, {order.says}, where another program is attached by {_WAYS[first]}"
    effective = 0

    def step() -> None:
        nonlocal effective
        with attach_one(ours, parent / order.second, CONNECT4, second):
            effective = count_effective(parent / "child")

    with allowing() as theirs, allowing() as ours, attach_one(theirs, parent / order.first, CONNECT4, first):
        answer = asked(did, step)
    return Answer(answer.did, answer.word, facts={"programs that run for the child": effective})


def count_effective(cgroup: Path) -> int:
    """How many connect4 programs run for a process in this cgroup."""
    directory = cgroups.open_directory(cgroup)
    with bpf.Fd(directory):
        return len(bpf.prog_query(directory, CONNECT4, effective=True).programs)


def _exclusive(order: Order, first: Way, second: Way, instead: Way) -> Callable[[Setting], Shown]:
    """Ours is refused because of how theirs is attached; theirs attached by `instead` removes the obstacle."""

    def recipe(setting: Setting) -> Shown:
        with setting.cgroup("exclusive") as parent:
            cgroups.make(parent / "child")
            return Shown(attach_second(parent, order, first, second), attach_second(parent, order, instead, second))

    return recipe


def _combinations(setting: Setting) -> Shown:
    """Every way beside every other, in every order: what the kernel answers, beside what its rule says."""
    table: dict[str, Json] = {}
    unexpected: list[str] = []
    with setting.cgroup("combinations") as parent:
        cgroups.make(parent / "child")
        for order in ORDERS:
            rows: dict[str, Json] = {}
            for first in Way:
                cells: dict[str, Json] = {}
                for second in Way:
                    answer = attach_second(parent, order, first, second)
                    cells[second] = f"{answer.word}, {answer.facts['programs that run for the child']} run"
                    if answer.word != expected(order, first, second):
                        unexpected.append(f"{order.name}: {first}, then {second}: {answer.word}")
                rows[first] = cells
            table[order.name] = rows
    failing = Answer("attach a second program in each of 48 combinations", "EPERM" if not unexpected else "unexpected",
                     facts={"first, then second": table, "unexpected": unexpected})  # fmt: skip
    with setting.cgroup("combinations") as parent:
        cgroups.make(parent / "child")
        return Shown(failing, attach_second(parent, DOWN, Way.LINK, Way.LINK))


def _wrong_type(setting: Setting) -> Shown:
    def attach(loaded_as: AttachType) -> Answer:
        def step() -> None:
            with allowing(loaded_as) as program, attach_one(program, setting.run.cgroup, CONNECT4):
                pass

        return asked(f"BPF_LINK_CREATE as connect4 of a program loaded for {loaded_as.name.lower()}", step)

    return Shown(attach(AttachType.CGROUP_INET6_CONNECT), attach(CONNECT4))


def _too_many(setting: Setting) -> Shown:
    with setting.cgroup("full") as path, ExitStack() as stack, allowing() as program:

        def another(number: int) -> Answer:
            def step() -> None:
                stack.enter_context(attach_one(program, path, CONNECT4))

            return asked(f"BPF_LINK_CREATE in a cgroup with {number} programs of this type", step)

        held = [stack.enter_context(attach_one(program, path, CONNECT4)) for _ in range(LIMIT)]
        failing = another(LIMIT)
        last = held[-1]
        assert last is not None
        bpf.link_detach(last)
        return Shown(failing, another(LIMIT - 1))


def _row(
    name: str, title: str, order: Order, first: Way, second: Way, remedy: str, instead: Way = Way.MULTI
) -> Failure:
    recipe = _exclusive(order, first, second, instead)
    return Failure(name, title, Family.ATTACH, codes.EXCLUSIVE_PROGRAM, ("EPERM",), recipe, remedy)


_THEIRS_MULTI = "the other product attached with ALLOW_MULTI"

CONFLICTS = (
    _row("attach-exclusive-parent-link", "A parent cgroup has an exclusive program; ours comes by link", DOWN,
         Way.SINGLE, Way.LINK, _THEIRS_MULTI),
    _row("attach-exclusive-parent-single", "A parent cgroup has an exclusive program; ours comes by PROG_ATTACH", DOWN,
         Way.SINGLE, Way.SINGLE, _THEIRS_MULTI),
    _row("attach-exclusive-same-link", "This cgroup has an exclusive program; ours comes by link", SAME,
         Way.SINGLE, Way.LINK, _THEIRS_MULTI),
    _row("attach-override-same-link", "This cgroup has an overridable program; ours comes by link", SAME,
         Way.OVERRIDE, Way.LINK, _THEIRS_MULTI),
    _row("attach-exclusive-ours-single", "The cgroup has a program by link; ours comes by PROG_ATTACH without flags",
         SAME, Way.LINK, Way.SINGLE, "the other program was overwritten in its own mode (exclusive over exclusive)",
         Way.SINGLE),
    Failure("attach-combinations", "Every way of attaching beside every other", Family.ATTACH, codes.EXCLUSIVE_PROGRAM,
            ("EPERM",), _combinations, "both attached by link"),
    Failure("attach-type", "The attach type does not match the program", Family.ATTACH, codes.ATTACH_TYPE_MISMATCH,
            ("EINVAL",), _wrong_type, "the program was loaded for connect4"),
    Failure("attach-too-many", "The cgroup already holds 64 programs", Family.ATTACH, codes.TOO_MANY_PROGRAMS,
            ("E2BIG",), _too_many, "one of the 64 was detached"),
)  # fmt: skip
