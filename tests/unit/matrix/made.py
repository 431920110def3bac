"""Invented matrices: reports of a kernel that takes a program, or refuses it in one of the ways there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.matrix.model import Cell, Matrix, Program, Row
from harness.report import Outcome, Report, Result

PASSED = (
    Result("preflight.kernel", "What the kernel offers", Outcome.PASS, "all of it"),
    Result("load.connect4", "connect4 loads", Outcome.PASS, "74 instructions", seconds=0.01),
    *(Result(f"attach.{way}", way, Outcome.PASS, "attached") for way in ("link", "single", "override", "multi")),
    Result("redirect.imds", "IMDS", Outcome.PASS, "goes to the proxy"),
)  # fmt: skip

LOG = "0: (bf) r6 = r1\nunknown func bpf_get_current_pid_tgid#14"
REFUSED = (
    PASSED[0],
    Result("load.connect4", "connect4 loads", Outcome.FAIL, "the verifier refused it: unknown func", {"log": LOG},
           remedy="use a newer kernel", code="MSP-V101"),
)  # fmt: skip
PANIC = (Result("guest.panic", "A guest runs the checks", Outcome.ERROR, "the kernel panicked: no init"),)


def without_link() -> tuple[Result, ...]:
    """As before 5.7: no bpf_link, the rest works."""
    lost = Result("attach.link", "Attach link", Outcome.SKIP, "no cgroup bpf_link", {"errno": "EINVAL"})
    return tuple(lost if result.id == "attach.link" else result for result in PASSED)


def report(results: Sequence[Result], release: str = "6.1.0-1-amd64") -> Report:
    return Report(
        target="a kernel in a guest (tcg, resumed)",
        kernel=release,
        distribution="Debian",
        harness_version="0.1.0",
        results=results,
        run="a1b2c3",
        started="2026-11-24T15:00:00Z",
        ended="2026-11-24T15:00:03Z",
        seconds=3.0,
        program="sha256:" + "9f" * 32,
    )


def row(name: str, variation: str = "") -> Row:
    """`5.10 bullseye`: a version and what was asked for."""
    version, _, spec = name.partition(" ")
    return Row(spec, variation, f"{version}.0-1-amd64", f"{spec} linux-image 1", "sha256:" + "ab" * 32)


def matrix(found: Mapping[str, Sequence[Result]], programs: Sequence[str] = ("plain",), variation: str = "") -> Matrix:
    """The same results for each program on a kernel."""
    rows = [row(name, variation) for name in found]
    cells = [
        Cell(one.name, program, f"{one.name}-{program}", report(results, one.release))
        for one, results in zip(rows, found.values(), strict=True)
        for program in programs
    ]
    columns = [Program(name, "sha256:" + "cd" * 32 if name.endswith(".o") else None) for name in programs]
    return Matrix(rows, columns, [], cells, "0.1.0", "2026-11-24T15:00:00Z", "2026-11-24T15:01:00Z", 60.0)
