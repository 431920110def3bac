"""What a matrix is asked: kernels, programs, checks; made into cells to be filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import interruption
from harness.checks.names import unknown
from harness.errors import HarnessError
from harness.matrix import store
from harness.matrix.model import Program, Row
from harness.program import foreign
from harness.vm.job import Job
from harness.vm.machine import Machine, vary

KERNELS = ("bullseye", "bookworm", "trixie", "sid")
"""Unless asked otherwise: Debian's from the oldest it still has to the newest (5.10, 6.1, 6.12, and after)."""

OWN = ("plain", "hardened")


@dataclass(frozen=True)
class Given:
    """Somebody's object: what its column is called, its file's name, content and hash."""

    name: str
    file: str
    data: bytes
    digest: str


def given(paths: Sequence[str]) -> list[Given]:
    """The objects, each named by its file, two of one name by their paths. Raises HarnessError."""
    found = []
    names = [Path(path).name for path in paths]
    for path, name in zip(paths, names, strict=True):
        file = foreign.read(Path(path))
        if file.digest is None:
            raise HarnessError(f"read the object {path}", file.problem)
        alone = names.count(name) == 1 and name not in OWN
        found.append(Given(name if alone else path, name, file.data, file.digest))
    return found


@dataclass(frozen=True)
class Question:
    """The command line. checks: words of `verify --only`; none: all but the slow ones. timeout: seconds for a cell."""

    kernels: Sequence[str] = KERNELS
    programs: Sequence[str] = OWN
    objects: Sequence[Given] = ()
    checks: Sequence[str] = ()
    variations: Sequence[str] = ()
    timeout: float | None = None

    def columns(self) -> list[Program]:
        return [*map(Program, self.programs), *(Program(one.name, one.digest) for one in self.objects)]

    def job(self, program: Program) -> Job:
        """What a guest is to do for a column."""
        checks = [word for check in self.checks for word in ("--only", check)] or ["--quick"]
        if program.own:
            return Job(("verify", *checks, "--program", program.name), timeout=self.timeout)
        one = next(one for one in self.objects if one.name == program.name)
        name = f"./{one.file}"  # one that begins with a dash is no option
        return Job(("verify", *checks, "--object", name), {name: one.data}, timeout=self.timeout)

    def same_as(self) -> dict[str, object]:
        """What another run must have in common with this one to be compared with it."""
        names = [program.name for program in self.columns()]
        return {
            "kernels": list(self.kernels),
            "programs": names,
            "checks": list(self.checks),
            "variations": list(self.variations),
        }


@dataclass(frozen=True)
class Task:
    """A cell to be filled. machine is None where its kernel could not be had, for the reason in problem."""

    row: Row
    program: Program
    machine: Machine | None
    job: Job
    key: str
    problem: HarnessError | None = None


def unknown_checks(words: Sequence[str]) -> list[str]:
    """The words that no check answers to."""
    return unknown(words)


def tasks(question: Question, told: Callable[[str], None] = lambda spec: None) -> list[Task]:
    """The cells, row by row, kernels by version and those of the lab last. told hears of each kernel that is got.

    A kernel that cannot be had is a row of its own, so that the others go on. Raises HarnessError for a variation that
    does not exist.
    """
    code, columns = store.harness_digest(), question.columns()
    rows: list[tuple[Row, Machine | None, HarnessError | None]] = []
    for spec in dict.fromkeys(question.kernels):
        told(spec)
        interruption.check()
        rows += _machines(spec, question.variations)
    rows.sort(key=lambda row: (row[0].altered, row[0].version))
    return [
        Task(row, program, machine, job := question.job(program), _key(row, machine, program, job, code), problem)
        for row, machine, problem in rows
        for program in columns
    ]


def _machines(spec: str, variations: Sequence[str]) -> Iterator[tuple[Row, Machine | None, HarnessError | None]]:
    from harness.vm.spec import resolve

    try:
        kernel = resolve(spec)
    except HarnessError as error:
        yield Row(spec, "", "unknown", "", ""), None, error
        return
    for machine in vary(kernel, variations):
        yield Row(_short(spec), machine.variation, kernel.release, kernel.origin, kernel.digest), machine, None


def _short(spec: str) -> str:
    """A SPEC that is a path by its last part: runs in other checkouts are compared with this one."""
    path, *options = spec.split(",")
    is_path = path.startswith(("/", "./", "../", "~/"))
    return ",".join([Path(path).name, *options]) if is_path else spec


def _key(row: Row, machine: Machine | None, program: Program, job: Job, code: str) -> str:
    surroundings = (
        [machine.cpus, machine.memory, str(machine.cgroup), machine.lsm, list(machine.words)] if machine else [row.spec]
    )
    return store.key(
        kernel=row.digest,
        machine=surroundings,
        program=program.digest or program.name,
        arguments=list(job.arguments),
        harness=code,
    )
