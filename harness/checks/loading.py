"""Check 2: what was compiled and what the verifier made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.checks.base import Environment
from harness.checks.results import Findings
from harness.kernel import bpf
from harness.program import maps
from harness.program.image import ProgramSpec
from harness.report import Outcome, Result

_STATISTICS = re.compile(r"processed (\d+) insns")

_TITLES = {
    "complete_sockops": "Audit records are completed by sock_ops, joined by the socket's cookie",
    "complete_kprobe": "Audit records are completed by a kprobe on tcp_connect, joined by the thread",
}

_WAYS = {"complete_sockops": "; completes the audit records", "complete_kprobe": "; completes the audit records"}


def loaded(environment: Environment) -> Iterator[Result]:
    """The programs and maps of the image, as they are in the kernel."""
    for spec in environment.loaded.image.programs:
        yield _program(environment, spec)
    yield _maps(environment)


def _program(environment: Environment, spec: ProgramSpec) -> Result:
    info = bpf.prog_info(environment.loaded.programs[spec.name])
    log = environment.loaded.logs[spec.name]
    processed = _STATISTICS.search(log)
    instructions = len(spec.instructions) // 8
    function = environment.loaded.functions.get(spec.name)
    title = f"{function} loads" if function else _TITLES.get(spec.name, f"{spec.name} loads")
    if spec.name in environment.loaded.lent:
        title = "The harness's own sock_ops program, lent to the object, loads"
    found = Findings()
    found.expect(info.type == spec.type, f"loaded as type {info.type}, not {spec.type}")
    return found.result(
        f"load.{spec.name}",
        title,
        f"{instructions} instructions, {processed.group(1) if processed else '?'} processed by the verifier, "
        + ("JIT-compiled" if info.jited_length else "interpreted")
        + _WAYS.get(spec.name, ""),
        evidence={
            "type": bpf.ProgramType(spec.type).name.lower(),
            "instructions": instructions,
            "verifier": log.strip().splitlines()[-1] if log.strip() else "no log",
            "tag": info.tag,
        },
        observed={"id": info.id},
    )


def _maps(environment: Environment) -> Result:
    """The kernel's idea of the maps' layouts against harness.program.maps, and so against the agent's."""
    found = Findings()
    evidence = {}
    for name, layout in maps.LAYOUTS.items():
        if not found.expect(name in environment.loaded.maps, f"there is no {name}"):  # somebody else's object
            continue
        info = bpf.map_info(environment.loaded.maps[name])
        found.expect(info.type == layout.type, f"{name} has type {info.type}, not {layout.type.name}")
        found.expect(info.key_size == layout.key_size, f"{name}'s key has {info.key_size} B, not {layout.key_size}")
        found.expect(
            info.value_size == layout.value_size, f"{name}'s value has {info.value_size} B, not {layout.value_size}"
        )
        evidence[name] = (
            f"{layout.type.name.lower()}, {info.key_size} B → {info.value_size} B, {info.max_entries} entries"
        )
    return found.result("load.maps", "Maps have the agent's layouts", f"{len(evidence)} maps", evidence=evidence)


def refused(error: bpf.BpfError, name: str) -> Result:
    """What the kernel said to a program that it did not take; the whole log is in the evidence."""
    lines = [line for line in error.log.strip().splitlines() if line]
    complaint = next((line for line in reversed(lines) if not line.startswith(("processed", "verification"))), "")
    summary = f"{error}" + (f": {complaint}" if complaint else "")
    remedy = (
        "`msp-harness explain FILE` says what the log means"
        if lines
        else "see preflight.kernel: what this kernel lacks"
    )
    return Result(f"load.{name}", f"{name} loads", Outcome.FAIL, summary, {"log": error.log}, remedy=remedy)
