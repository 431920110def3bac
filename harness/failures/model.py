"""What a failure is, and what its recipe shows: data, judged in one place (harness.failures.perform)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from harness.errors import HarnessError, errno_name
from harness.kernel import cgroups, features
from harness.kernel.bpf import BpfError
from harness.kernel.features import Probed
from harness.lab.agent_files import AgentFiles
from harness.lab.lab import Lab, open_lab
from harness.lab.state import Run
from harness.msp.codes import Code
from harness.msp.messages import Form
from harness.program import compile as compiler
from harness.program.image import Image
from harness.report.model import Json

ACCEPTED = "accepted"
"""The kernel did what it was asked."""

REDIRECTED = "redirected"
"""A client that asked for an endpoint was answered by the lab's own proxy: the nonce says so."""

DIRECT = "direct"
"""A client was answered by the endpoint itself: the program did not touch its connect."""

ELSEWHERE = "elsewhere"
"""A client that asked for an endpoint was answered by neither: another program sent it to a third party."""


LATCHED = "key latched"
"""A running agent holds a key that the platform names: healthy."""

UNLATCHED = "no key"
"""A running agent holds none, whatever its status says."""


class Family(StrEnum):
    """Which of the guide's failures a recipe belongs to; it decides what the agent would have written."""

    LOAD = "load"
    ATTACH = "attach"
    APPLIED = "applied"
    KEY = "key"


@dataclass(frozen=True)
class Answer:
    """One step and what came of it.

    word is ACCEPTED or an errno's name where the kernel was asked; REDIRECTED, DIRECT, ELSEWHERE, `timeout` or an
    errno's name where a client asked; LATCHED or UNLATCHED where an agent was looked at. log is the verifier's, whole.
    message is an agent's own, where one ran. facts are the same in every run, observed are not.
    """

    did: str
    word: str
    log: str = ""
    message: str = ""
    facts: Mapping[str, Json] = field(default_factory=dict)
    observed: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """A recipe's end: the step with the obstacle, and the same step without it."""

    failing: Answer
    repaired: Answer | None  # None: only another kernel can show it
    facts: Mapping[str, Json] = field(default_factory=dict)
    observed: Mapping[str, Json] = field(default_factory=dict)
    summary: str = ""  # a sentence of the recipe's own, where `reproduced` does not fit
    problem: str = ""  # what else is not as it should be


class NotHere(Exception):
    """This kernel cannot have the failure: the reason, how to get one that can, and the nearest thing that it did."""

    def __init__(self, reason: str, how: str, nearest: Answer | None = None, facts: Mapping[str, Json] | None = None):
        super().__init__(reason)
        self.reason = reason
        self.how = how
        self.nearest = nearest
        self.facts = facts or {}


@dataclass(frozen=True)
class Setting:
    """What a recipe has to work with: the run that owns everything, and labs that are built when first asked for."""

    run: Run
    stack: ExitStack
    agent: AgentFiles = field(default_factory=AgentFiles)  # whose key failures are brought about

    _probed: dict[str, Probed] = field(default_factory=dict)

    def lacks(self, names: tuple[str, ...]) -> features.Feature | None:
        """The first of these features that this kernel has not got, as its probe says; each is asked once."""
        for row in features.FEATURES:
            if row.name in names:
                if row.name not in self._probed:
                    self._probed[row.name] = row.probe()
                if self._probed[row.name].answer is features.Answer.NO:
                    return row
        return None

    @cached_property
    def lab(self) -> Lab:
        """A lab whose proxy listens where the policies point."""
        return self.stack.enter_context(open_lab(self.run, "lab"))

    @cached_property
    def image(self) -> Image:
        """Our redirector, compiled: connect4 alone, so that it needs no more of a kernel than redirection does."""
        return compiler.compile_source(compiler.redirector(join=compiler.Join.NONE))

    @cached_property
    def agent_image(self) -> Image:
        """The same with records of who asked, which a whole agent needs. Raises NotHere."""
        for feature, join in (("sock-ops", compiler.Join.SOCK_OPS), ("kprobe", compiler.Join.KPROBE)):
            row = next(row for row in features.FEATURES if row.name == feature)
            if row.probe().answer is features.Answer.YES:
                return compiler.compile_source(compiler.redirector(join=join))
        raise NotHere(
            "this kernel has neither sock_ops nor kprobes", "boot one with CONFIG_CGROUP_BPF or CONFIG_KPROBES"
        )

    @contextmanager
    def cgroup(self, name: str) -> Iterator[Path]:
        """A cgroup of the recipe's own, empty again and gone at the end."""
        path = cgroups.make(self.run.cgroup / name)
        try:
            yield path
        finally:
            for below in cgroups.tree(path):
                below.rmdir()


Recipe = Callable[[Setting], Shown]


@dataclass(frozen=True)
class Failure:
    """A failure of the guide and how it is brought about.

    expects: the words of which the failing step must give one; says: a regular expression that the verifier's log
    must match; repaired: the word of the step without the obstacle. needs: what kernel or machine can have it, empty
    for every kernel that runs the harness. remedy: what the recipe did to remove the obstacle. features: what of
    harness.kernel.features the recipe needs, without which it would show something else; None: what its family needs.
    """

    name: str
    title: str
    family: Family
    code: Code
    expects: tuple[str, ...]
    recipe: Recipe
    remedy: str
    repaired: str = ACCEPTED
    says: str = ""
    needs: str = ""
    form: Form | None = None  # the agent's message where it is not the family's
    program: str = "connect4"  # the program or map that the agent's message would name
    features: tuple[str, ...] | None = None

    @property
    def guide(self) -> str | None:
        return self.code.guide

    @property
    def needs_features(self) -> tuple[str, ...]:
        return _FEATURES[self.family] if self.features is None else self.features


_FEATURES = {
    Family.LOAD: ("connect4",),
    Family.ATTACH: ("cgroup2", "connect4", "bpf-link"),
    Family.APPLIED: ("cgroup2", "connect4", "bpf-link"),
    Family.KEY: ("cgroup2", "connect4"),
}


def asked(did: str, step: Callable[[], object]) -> Answer:
    """Do one step and put what the kernel answered into words; a descriptor that it gives is closed."""
    try:
        done = step()
    except BpfError as error:
        return Answer(did, errno_name(error.errno), error.log)
    except HarnessError as error:
        if not error.errno:
            raise
        return Answer(did, errno_name(error.errno))
    except OSError as error:
        return Answer(did, errno_name(error.errno or 0))
    log = ""
    if isinstance(done, tuple):  # what prog_load gives
        done, log = done
    close = getattr(done, "close", None)
    if close is not None:
        close()
    return Answer(did, ACCEPTED, log)
