"""Checks of somebody else's object: that it loads, that its maps are the agent's, how its audit records are completed.

Everything after that is what our own program has to pass (harness.checks.plan): nothing is checked twice over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.checks.results import Findings, error_result
from harness.errors import HarnessError, errno_name
from harness.kernel import bpf, facts
from harness.msp import guide
from harness.program import foreign, libbpf
from harness.program.compile import Join
from harness.program.foreign import Object, ObjectFile
from harness.program.libbpf import MapFact, Refusal
from harness.program.load import Loaded
from harness.report import Json, Outcome, Result

OBJECT = "object"
"""What somebody else's object is called beside our programs."""

OBJECT_TITLE = "libbpf loads the object"
AUDIT_TITLE = "How the object's audit records are completed"
KPROBE, SOCK_OPS, CONNECT4 = "complete_kprobe", "complete_sockops", "connect4"

_INSPECT = "`msp-harness inspect-object FILE` shows what is in it"

_REMEDIES: Mapping[str, str] = {
    "legacy map definitions": "libbpf 1.x no longer takes maps of the form before BTF: use an object with BTF maps",
    "BTF is required, but is missing": "its maps are described by BTF, which is not there: compile it with -g, "
    "and strip nothing but debug information (llvm-strip -g)",
    "loading vmlinux BTF|valid kernel BTF": "it has CO-RE relocations, and this kernel has no BTF "
    "(CONFIG_DEBUG_INFO_BTF): use an object with fixed offsets, or another kernel",
    "not found in kernel or module BTFs": "it calls a kernel function that this kernel does not have: use another "
    "kernel, or an older object",
    "failed to create": f"the kernel refused one of its maps: {_INSPECT}",
    "relo|CO-RE": f"a relocation of it does not fit this kernel: {_INSPECT}",
}
"""What to do, by what libbpf said."""


@dataclass(frozen=True)
class Verdict:
    """What is known once the object was given to the kernel: Results, and whether checks can go on."""

    results: Sequence[Result]
    usable: bool


def not_loaded(file: ObjectFile, error: HarnessError) -> Result:
    """The object was refused as a whole, or the harness has nothing to load it with."""
    if isinstance(error, foreign.NoLibraryError):
        title = "libbpf 1.x, which loads objects"
        return Result(
            "preflight.libbpf", title, Outcome.FAIL, f"{error.attempted}: {error.happened}",
            remedy=error.remedy, blocking=True,
        )  # fmt: skip
    if not isinstance(error, foreign.ObjectError):
        return error_result("load.object", OBJECT_TITLE, error)
    evidence: dict[str, Json] = {"file": file.name, "size": len(file.data)}
    if error.detail:
        evidence["libbpf"] = error.detail.splitlines()
    said = f": {error.detail.splitlines()[0]}" if error.detail else ""
    remedy = error.remedy or _remedy(error.detail.splitlines()) or _INSPECT
    return Result(
        "load.object", OBJECT_TITLE, Outcome.FAIL, f"{error.happened}{said}", evidence,
        remedy=remedy, guide=guide.LOAD_FAILED,
    )  # fmt: skip


def _remedy(said: Sequence[str]) -> str | None:
    return next((remedy for form, remedy in _REMEDIES.items() if any(re.search(form, line) for line in said)), None)


def judge(about: Object) -> Verdict:
    """What libbpf and the kernel made of the object."""
    misfits = foreign.misfits(about.maps)
    results = [_object(about), *(_refused(about, one) for one in about.refusals)]
    if about.program(CONNECT4) is None:
        results.append(_no_connect4(about))
    fatal = about.loaded is None or any(one.fatal for one in misfits)
    if fatal and misfits:
        results.append(_misfitting(about, [one.text for one in misfits]))
    return Verdict(results, not fatal)


def _object(about: Object) -> Result:
    file, found = about.file, Findings()
    programs: dict[str, Json] = {
        f"{fact.function} ({fact.section})": fact.role or "not loaded: the harness has no use for it"
        for fact in about.programs
    }
    evidence: dict[str, Json] = {
        "file": file.name,
        "sha256": (file.digest or "").removeprefix("sha256:"),
        "size": len(file.data),
        "libbpf": about.library,
        "programs": programs,
        "maps": {fact.name: _described(fact) for fact in about.maps},
    }
    if about.messages:
        evidence["libbpf said"] = list(about.messages)
    pinned = [fact.name for fact in about.maps if fact.pinned]
    if pinned:
        evidence["not pinned, though it asks for it"] = pinned
    good = f"{file.name}: {len(about.programs)} programs, {len(about.maps)} maps, by libbpf {about.library}"
    return found.result("load.object", OBJECT_TITLE, good, evidence=evidence, guide=guide.LOAD_FAILED)


def _described(fact: MapFact) -> str:
    kind = bpf.MapType(fact.type).name.lower() if fact.type in list(bpf.MapType) else f"type {fact.type}"
    return f"{kind}, {fact.key_size} B → {fact.value_size} B, {fact.entries} entries"


def _refused(about: Object, refusal: Refusal) -> Result:
    """A program that the kernel did not take; the whole log is in the evidence, its meaning in the summary."""
    fact = about.program(refusal.role)
    name = f"{fact.function} ({fact.section})" if fact else refusal.role
    evidence: dict[str, Json] = {"errno": libbpf.error_text(refusal.errno), "libbpf": list(refusal.messages)}
    if refusal.log.strip():
        evidence["log"] = refusal.log
        from harness.verifier.explain import explain_text  # only for what is refused

        meant = explain_text(refusal.log, release=facts.release())[0]
        return Result(
            f"load.{refusal.role}", f"{name} loads", Outcome.FAIL,
            f"the verifier refused {name}, {errno_name(refusal.errno)}: {meant.summary}", evidence,
            remedy=meant.help, guide=guide.LOAD_FAILED, code=meant.code.id,
        )  # fmt: skip
    said = refusal.messages[0] if refusal.messages else "libbpf said nothing"
    remedy = _remedy(refusal.messages) or "see preflight.kernel: what this kernel lacks"
    summary = f"{name} was not loaded, {libbpf.error_text(refusal.errno)}, with no verifier log: {said}"
    return Result(
        f"load.{refusal.role}", f"{name} loads", Outcome.FAIL, summary, evidence, remedy=remedy, guide=guide.LOAD_FAILED
    )


def _no_connect4(about: Object) -> Result:
    there = ", ".join(f"{fact.function} ({fact.section or 'no section'})" for fact in about.programs) or "none"
    remedy = "give the agent's object, ebpf_cgroup.o: its redirector stands in the section cgroup/connect4"
    return Result(
        "load.connect4", "It has a connect4 program", Outcome.FAIL,
        f"{about.file.name} has no connect4 program; its programs: {there}", remedy=remedy, guide=guide.LOAD_FAILED,
    )  # fmt: skip


def _misfitting(about: Object, problems: Sequence[str]) -> Result:
    summary = "; ".join(problems) + ": nothing more is checked, for an agent would write and read past its fields"
    return Result(
        "load.maps", "Maps have the agent's layouts", Outcome.FAIL, summary,
        {fact.name: _described(fact) for fact in about.maps},
        remedy="use an object and an agent of the same version", guide=guide.LOAD_FAILED,
    )  # fmt: skip


@dataclass(frozen=True)
class Completion:
    """How audit records come about here: by programs of the object, by one of ours, or not at all (lend is None)."""

    result: Result
    audited: bool
    lends: bool = False


def idle(join: Join | None, kprobes: bool) -> tuple[str, ...]:
    """The roles that are only shown to the verifier: the kprobe where there are none, or where it is not wanted."""
    return (KPROBE,) if join is Join.SOCK_OPS or not kprobes else ()


def completion(about: Object, loaded: Loaded, kprobe_said: str, stand_in: bool) -> Completion:
    """How the object's records are completed. kprobe_said: what the probe for kprobes said; stand_in: ours loads."""
    evidence: dict[str, Json] = {}
    own = [role for role in (KPROBE, SOCK_OPS) if role in loaded.programs]
    if own:
        names = " and ".join(loaded.functions[role] for role in own)
        where = "at tcp_connect" if KPROBE in own else "at TCP_CONNECT_CB"
        summary = f"by the object's own {names}, {where}"
        return Completion(_audit(Outcome.PASS, summary, evidence), True)
    fact = about.program(KPROBE)
    if fact is None:
        why = "the object has no program that completes them"
    elif about.refusal(KPROBE) is not None:
        why = f"the object's {fact.function} ({fact.section}) was refused"
    else:
        statistics = (about.taken.get(KPROBE, "").strip().splitlines() or ["no log"])[-1]
        evidence["verifier"] = statistics
        why = f"the object's {fact.function} ({fact.section}) passes the verifier but is not attached: {kprobe_said}"
    outcome = Outcome.WARN if fact is None else Outcome.SKIP
    if stand_in:
        how = (
            "instead the harness's own sock_ops program completes them on the object's maps, so that what connect4 "
            "stores is verified; what the object's own program would make of it is not"
        )
        return Completion(_audit(outcome, f"{why}; {how}", evidence), True, lends=True)
    how = "redirection is verified without them: the proxy answers 421, since it cannot say who asks"
    return Completion(_audit(outcome, f"{why}; {how}", evidence), False)


def _audit(outcome: Outcome, summary: str, evidence: dict[str, Json]) -> Result:
    remedy = "verify the object on a kernel with kprobes: `--audit kprobe` insists on them"
    needed = remedy if outcome is not Outcome.PASS else None
    return Result("load.audit", AUDIT_TITLE, outcome, summary, evidence, remedy=needed, guide=guide.NOT_APPLIED)
