"""The guide's failures on whichever kernels have them: on this one first, then in guests of others.

A table says which kernels are worth a try for what this one cannot have. Whether a kernel has the failure is found out
there: the recipe says SKIP with its reason, and the next one is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.report.model import Json, Outcome, Result
from harness.vm import spec
from harness.vm.job import Job
from harness.vm.machine import Machine
from harness.vm.run import run


@dataclass(frozen=True)
class Place:
    """A kernel on which failures may be had that another has not: words are the kernel's, of its command line."""

    kernel: str  # as harness.vm.spec takes it
    failures: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.kernel, *self.words])


PLACES = (
    Place("lab:no-pid-tgid", ("guide-pid-tgid",)),
    Place("lab:no-cgroup-link", ("attach-no-link",)),
    Place("lab:no-cgroup2", ("attach-no-cgroup2-kernel",)),
    Place("bullseye", ("map-memlock", "attach-no-privilege")),
    Place("lab:lockdown", ("load-lockdown",)),
    Place("trixie", ("map-lsm",)),
    # where one of those cannot be had
    Place("lab:memlock", ("map-memlock", "map-no-cap-bpf")),
    Place("bookworm", ("map-lsm", "attach-v1")),
    Place("bookworm", ("load-lockdown",), ("lockdown=confidentiality",)),
)  # fmt: skip

Tell = Callable[[str], None]


def on_all_kernels(here: Iterable[Result], tell: Tell, places: Sequence[Place] = PLACES) -> Iterator[Result]:
    """The Results of `reproduce` on this kernel, and in the place of each SKIP what another kernel has shown.

    A Result says in its evidence on which kernel it came about, and what was tried before. tell is given a line for
    what takes long. A kernel that cannot be had is one that was tried; nothing is raised for it. Where none has the
    failure the Result stays SKIP, or is ERROR where a guest did not tell.
    """
    waiting: dict[str, Result] = {}
    done: list[Result] = []
    for result in here:
        done.append(_with(result, "this one", ()))
        if result.outcome is Outcome.SKIP:
            waiting[result.id] = result
    found: dict[str, Result] = {}
    unknown = set[str]()  # of which a kernel that was had did not tell
    tried: dict[str, list[str]] = {id: [f"this kernel: {result.summary}"] for id, result in waiting.items()}
    for place in places:
        wanted = [id for id in map(_id, place.failures) if id in waiting and id not in found]
        if wanted:
            for id, there, where in _shown(place, wanted, tell):
                if there is not None and there.outcome in (Outcome.PASS, Outcome.FAIL):
                    found[id] = _beside_here(_with(there, where, tried[id]), waiting[id])
                else:
                    tried[id].append(f"{where}: {'no result' if there is None else there.summary}")
                    if there is None or there.outcome is Outcome.ERROR:
                        unknown.add(id)
    for result in done:
        if result.id in waiting and result.id not in found:
            yield _nowhere(result, tried[result.id], Outcome.ERROR if result.id in unknown else Outcome.SKIP)
        else:
            yield found.get(result.id, result)


def _id(failure: str) -> str:
    return f"reproduce.{failure}"


def _shown(place: Place, ids: Sequence[str], tell: Tell) -> Iterator[tuple[str, Result | None, str]]:
    """Each failure's Result there (None: the guest gave none), and where that was."""
    names = [id.removeprefix("reproduce.") for id in ids]
    tell(f"{', '.join(names)}: on {place.name}")
    try:
        machine = Machine(spec.resolve(place.kernel, tell=tell), words=place.words)
        report = run(machine, Job(("reproduce", *names)), tell)
    except HarnessError as error:
        for id in ids:
            yield id, _missing(id, f"{error}"), place.name
        return
    results = {result.id: result for result in report.results}
    failed = next((result for id, result in results.items() if id.startswith("guest.")), None)
    where = f"{place.name} ({report.kernel})"
    for id in ids:
        yield id, results.get(id) or failed, where


def _missing(id: str, why: str) -> Result:
    return Result(id, "", Outcome.SKIP, why)


def _with(result: Result, where: str, tried: Sequence[str]) -> Result:
    more: dict[str, Json] = {"kernel": where, **({"tried before": list(tried)} if tried else {})}
    return replace(result, evidence={**more, **result.evidence})


def _beside_here(there: Result, here: Result) -> Result:
    """With what the same step gave on this kernel, where it was tried: often the remedy is another kernel."""
    did, answer = (here.evidence.get(f"nearest {what}") for what in ("did", "answer"))
    if not isinstance(did, str) or not isinstance(answer, str):
        return there
    summary = f"{there.summary}; on this kernel: {did}: {answer}"
    return replace(there, summary=summary, evidence={**there.evidence, "on this kernel": {did: answer}})


def _nowhere(result: Result, tried: Sequence[str], outcome: Outcome) -> Result:
    evidence: Mapping[str, Json] = {**result.evidence, "kernel": "none", "tried": list(tried)}
    summary = f"on none of {len(tried)} kernels: {' | '.join(tried)}"
    return replace(result, outcome=outcome, summary=summary, evidence=evidence)
