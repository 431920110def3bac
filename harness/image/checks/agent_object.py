"""agent.object*: the eBPF object through `inspect-object`, and its needs beside the image's own kernel.

Nothing is asked of this machine's kernel: what the image's kernel has is read from its configuration, and what a
configuration does not say is for --kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.checks.inspect_contents import of_maps, of_object, of_programs
from harness.image import agent_files, kernels
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.object import AgentObject, agent_object, places
from harness.kernel.bpf_types import AttachType, ProgramType
from harness.msp import codes, guide, image_codes
from harness.msp.codes import Code
from harness.program.object import needs
from harness.program.object.contents import Contents
from harness.report import Json, Outcome, Result

_SHOWN = 40


def _object(image: Image, question: Question) -> Iterator[Result]:
    if agent_files.program(image) is None:
        yield question.none("there is no agent")
        return
    found = agent_object(image)
    if found is None:
        looked = list(places(image))
        own_program = agent_files.reference_program(image)
        if own_program is not None:
            yield question.none(f"it is the reference agent of msp-harness, which loads {own_program} and no object")
            return
        summary = f"the agent's object is not in the image: {', '.join(looked)}"
        yield question.bad(summary, {"looked for": looked}, code=codes.OBJECT_NOT_READ)
        return
    evidence: dict[str, Json] = {
        "path": found.path,
        "sha256": found.digest.removeprefix("sha256:"),
        "bytes": found.size,
    }
    if found.contents is None:
        yield question.bad(f"{found.path} is no eBPF object: {found.trouble}", evidence, code=codes.OBJECT_NOT_READ)
        return
    rows = [*of_object(found.contents, found.digest), *of_programs(found.contents), *of_maps(found.contents)]
    evidence["inspect-object"] = [f"{row.outcome} {row.id}: {row.summary}"[:300] for row in rows[:_SHOWN]]
    evidence["CO-RE relocations"] = found.relocations
    wrong = [row for row in rows if row.outcome is Outcome.FAIL]
    odd = [row for row in rows if row.outcome is Outcome.WARN]
    if wrong:
        summary = f"{found.path}: {'; '.join(f'{row.id}: {row.summary}' for row in wrong[:3])}"
        yield question.bad(summary, evidence, code=codes.OBJECT_NOT_READ)
    elif odd:
        summary = f"{found.path}: {'; '.join(f'{row.id}: {row.summary}' for row in odd[:3])}"
        yield question.doubt(summary, evidence, "compare it with the package's own: `msp-harness inspect-object A B`")
    else:
        programs = ", ".join(program.section for program in found.contents.programs)
        summary = f"{found.path}: {programs}; {len(found.contents.maps)} maps as the agent's"
        yield question.good(summary, evidence)


def _kernel(image: Image, question: Question) -> Iterator[Result]:
    """What the object needs that a configuration tells; the rest is listed with its first mainline version."""
    found = agent_object(image) if agent_files.program(image) is not None else None
    own = kernels.kernels(image)
    if found is None or found.contents is None or not own.default:
        return
    config = kernels.config(image, own.default)
    if config is None:
        yield question.unknown(f"there is no configuration of {own.default}: only --kernel can tell",
                               remedy="`msp-harness image check --kernel IMAGE`")  # fmt: skip
        return
    wanted = dict(_options(found))
    lacks = {name: why for name, why in wanted.items() if config[1].get(name) != "y"}
    floor = _youngest(found.contents)
    evidence: dict[str, Json] = {
        "object": found.path,
        "kernel": own.default,
        "needs": {name: f"{config[1].get(name, 'not there')}: {why}" for name, why in wanted.items()},
        "first mainline version with all of it": floor or None,
    }
    if lacks:
        text = ", ".join(f"{name} ({why})" for name, why in lacks.items())
        yield question.bad(f"{own.default} lacks {text}", evidence, code=_code_of(lacks))
    elif floor and _version(own.default) < needs.version(floor):
        summary = (
            f"its configuration has what {found.path} needs, but mainline has all of it from {floor} on and this is"
            f" {own.default}; a version decides nothing: --kernel loads it"
        )
        yield question.doubt(summary, evidence, "`msp-harness image check --kernel IMAGE`")
    else:
        summary = f"{own.default}'s configuration has what {found.path} needs; --kernel loads it"
        yield question.good(summary, evidence)


def _options(found: AgentObject) -> Iterator[tuple[str, str]]:
    assert found.contents is not None
    yield "CONFIG_BPF_SYSCALL", "loading"
    for program in found.contents.programs:
        if program.place.attach is AttachType.CGROUP_INET4_CONNECT or program.section.startswith("cgroup"):
            yield "CONFIG_CGROUP_BPF", f"the program {program.name}"
        if program.place.type is ProgramType.KPROBE:
            yield "CONFIG_KPROBES", f"the program {program.name}"
            yield "CONFIG_BPF_EVENTS", f"the program {program.name}"
    if found.relocations:
        yield "CONFIG_DEBUG_INFO_BTF", f"{found.relocations} CO-RE relocations"


def _code_of(lacks: Mapping[str, str]) -> Code:
    by_option = {
        "CONFIG_BPF_SYSCALL": image_codes.NO_BPF,
        "CONFIG_CGROUP_BPF": codes.NO_PROGRAM_TYPE,
        "CONFIG_KPROBES": image_codes.NO_KPROBES,
        "CONFIG_BPF_EVENTS": image_codes.NO_KPROBES,
        "CONFIG_DEBUG_INFO_BTF": image_codes.NO_BTF,
    }
    return by_option[next(iter(lacks))]


def _youngest(one: Contents) -> str:
    """The first mainline version that has everything whose version is known. Needs are listed, none is asked."""
    dated = [need for need in needs.needs(one, None) if need.needed and need.since]
    return max(dated, key=lambda need: need.version).since if dated else ""


def _version(release: str) -> tuple[int, ...]:
    words = release.replace("-", ".").split(".")[:3]
    return tuple(int(word) for word in words if word.isdecimal())


ASKED = (
    (Question("agent.object", "The agent's eBPF object", guide.LOAD_FAILED), _object),
    (Question("agent.object-kernel", "What the object needs of the image's kernel", guide.LOAD_FAILED), _kernel),
)


def objects(image: Image) -> Iterator[Result]:
    """The agent's eBPF object."""
    yield from answers(image, ASKED)
