"""`verify --object FILE --compare`: the object beside our own programs, plain and hardened.

The checks of each are run in a lab of its own; a Result compare.NAME holds what each of the three made of the check
NAME, so that a reader sees whether a FAIL is the object's or the kernel's. The table is made of those Results.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from harness.checks import census
from harness.checks.base import Check, Environment, perform
from harness.checks.census_judge import Verdicts
from harness.checks.census_rows import ROWS
from harness.checks.foreign import OBJECT
from harness.errors import HarnessError
from harness.kernel.bpf import ProgramType
from harness.lab import cost
from harness.lab.worker import Worker
from harness.report import Json, Outcome, Report, Result

OURS = ("plain", "hardened")
FLOOR = "no program"

CONNECTS, BATCH = 2000, 100  # timed connects of each kind, and how many at a turn
_SEVERITY = (Outcome.SKIP, Outcome.PASS, Outcome.WARN, Outcome.ERROR, Outcome.FAIL)


def side_by_side(check: Check, theirs: Sequence[Result], ours: Mapping[str, Environment]) -> Result:
    """One check under all programs; theirs: what it gave under the object."""
    results = {OBJECT: list(theirs)} | {name: list(perform(check, environment)) for name, environment in ours.items()}
    told = {name: _counted(Counter(str(one.outcome) for one in each)) for name, each in results.items()}
    different = _differing(results)
    evidence: dict[str, Json] = {**told}
    if different:
        evidence["differ"] = {
            identity: ", ".join(f"{name} {outcome}" for name, outcome in outcomes.items())
            for identity, outcomes in different.items()
        }
    alike = not any(_worse(outcomes) for outcomes in different.values())
    return Result(
        f"compare.{check.name}",
        check.title,
        Outcome.PASS if alike else Outcome.WARN,
        "; ".join(f"{name}: {text}" for name, text in told.items()),
        evidence,
        remedy=None if alike else "the Results of the same names say what it is; ours are what this kernel can do",
    )


def _counted(counts: Mapping[str, int]) -> str:
    """`6 PASS, 1 SKIP`."""
    order = [str(outcome) for outcome in reversed(_SEVERITY)]
    return ", ".join(f"{counts[name]} {name}" for name in order if counts.get(name)) or "nothing"


def _differing(results: Mapping[str, Sequence[Result]]) -> dict[str, dict[str, Outcome]]:
    """The ids whose outcomes are not the same under all programs that have them."""
    by_id: dict[str, dict[str, Outcome]] = {}
    for name, each in results.items():
        for one in each:
            by_id.setdefault(one.id, {})[name] = one.outcome
    return {identity: outcomes for identity, outcomes in by_id.items() if len(set(outcomes.values())) > 1}


def _worse(outcomes: Mapping[str, Outcome]) -> bool:
    """Whether the object fares worse than each of ours."""
    ours = [_SEVERITY.index(outcome) for name, outcome in outcomes.items() if name != OBJECT]
    return OBJECT in outcomes and bool(ours) and _SEVERITY.index(outcomes[OBJECT]) > max(ours)


def censuses(environments: Mapping[str, Environment]) -> Iterator[Result]:
    """The census under all programs. A kprobe sees every connect of the machine, so its program has it to itself."""
    apart = [name for name, environment in environments.items() if _has_kprobe(environment)]
    groups = [[name] for name in apart] + [[name for name in environments if name not in apart]]
    measured: dict[str, dict[str, Verdicts]] = {}
    for group in filter(None, groups):
        with ExitStack() as stack:
            at_work = {name: stack.enter_context(environments[name].redirect()) for name in group}
            measured |= census.measure(at_work)
    counts: dict[str, Counter[str]] = {name: Counter() for name in environments}
    for row in ROWS:
        verdicts = {name: measured[name][row.name] for name in environments}
        for name, found in verdicts.items():
            counts[name][str(found.verdict)] += 1
        yield census.result(row, verdicts)
    told = {name: ", ".join(f"{number} {verdict}" for verdict, number in count.most_common())
            for name, count in counts.items()}  # fmt: skip
    summary = "; ".join(f"{name}: {text}" for name, text in told.items())
    yield Result("compare.census", "Kinds of client by verdict", Outcome.PASS, summary, {**told})


def _has_kprobe(environment: Environment) -> bool:
    return any(spec.type == ProgramType.KPROBE for spec in environment.loaded.image.programs)


def clients(environments: Mapping[str, Environment], stack: ExitStack) -> dict[str, Worker]:
    """A client to be timed in each lab, and one that no program covers. It forks."""
    first = next(iter(environments.values()))
    found = {name: cost.client(one.lab, one.lab.client_cgroup) for name, one in environments.items()}
    found[FLOOR] = cost.client(first.lab, first.lab.outside_cgroup, cost.PORT + 1)
    return {name: stack.enter_context(worker) for name, worker in found.items()}


def costs(environments: Mapping[str, Environment], connects: int = CONNECTS) -> Iterator[Result]:
    """What a redirected connect() costs under each program, each attached for its own turns only."""
    with ExitStack() as stack:
        workers = clients(environments, stack)
        for worker in workers.values():
            worker.call("listen")
        kinds: dict[str, cost.Measure] = {FLOOR: cost.direct(workers[FLOOR], cost.PORT + 1, BATCH)}
        missing: dict[str, Json] = {}
        for name, environment in environments.items():
            try:
                _under(environment, workers[name], 1)()
            except HarnessError as error:  # a program that sends people elsewhere, or nowhere
                missing[name] = f"no connect comes back to its client: {error.happened}"
            else:
                kinds[name] = _under(environment, workers[name], BATCH)
        times = cost.take_turns(kinds, connects // BATCH)
    figures = {name: cost.microseconds(sample) for name, sample in times.items()}
    added = {
        name: round(figure["median"] - figures[FLOOR]["median"], 2) for name, figure in figures.items() if name != FLOOR
    }
    summary = "; ".join(f"{name}: {figure['median']:g} µs" for name, figure in figures.items())
    summary += "".join(f"; {name}: no figure" for name in missing)
    observed: dict[str, Json] = {
        **{name: f"median {one['median']:g} µs, quartiles {one['low']:g} to {one['high']:g}"
           for name, one in figures.items()},
        "median µs": {name: one["median"] for name, one in figures.items()},
        "added µs": added,
    }  # fmt: skip
    evidence: dict[str, Json] = {"connects of each kind": connects, "in batches of": BATCH}
    if missing:
        evidence["no figure"] = missing
    lent = [name for name, environment in environments.items() if environment.loaded.lent]
    if lent:
        evidence["with the harness's own completing program"] = lent
        summary += f" ({', '.join(lent)} with the harness's own sock_ops program)"
    yield Result("compare.cost", "Microseconds of a redirected connect()", Outcome.PASS, summary, evidence, observed)


def _under(environment: Environment, worker: Worker, count: int) -> cost.Measure:
    timed = cost.redirected(worker, count)

    def measure() -> float:
        with environment.redirect() as redirection:
            cost.to_itself(redirection)
            return timed()

    return measure


def table(report: Report) -> list[str]:
    """The compare Results as lines of a table: a column for each program, the costs last."""
    names = (OBJECT, *OURS)
    rows: list[tuple[str, ...]] = [("", *names)]
    for one in report.results:
        if one.group != "compare":
            continue
        label = one.id.partition(".")[2]
        if label == "census":
            rows += _census_rows(one, names)
        elif label == "cost":
            rows += _cost_rows(one, names)
        else:
            rows.append((label, *(str(one.evidence.get(name, "")) for name in names)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _census_rows(one: Result, names: Sequence[str]) -> list[tuple[str, ...]]:
    counts = {name: dict(_pairs(str(one.evidence.get(name, "")))) for name in names}
    verdicts = dict.fromkeys(verdict for count in counts.values() for verdict in count)
    return [(f"census: {verdict}", *(counts[name].get(verdict, "0") for name in names)) for verdict in verdicts]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`3 redirected, 1 direct, as it should be`: verdicts may have commas, but none begins with a digit."""
    for number, verdict in re.findall(r"(\d+) (.*?)(?=, \d+ |$)", text):
        yield verdict, number


def _cost_rows(one: Result, names: Sequence[str]) -> list[tuple[str, ...]]:
    medians, added = one.observed.get("median µs"), one.observed.get("added µs")
    assert isinstance(medians, Mapping)
    assert isinstance(added, Mapping)
    return [
        (f"µs a connect (bare {medians.get(FLOOR)})", *(str(medians.get(name, "")) for name in names)),
        ("µs added", *(str(added.get(name, "")) for name in names)),
    ]
