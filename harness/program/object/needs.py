"""What an object needs of a kernel: each thing, the first mainline version that has it, and how to ask a kernel for it.

A version is a hint and a probe the verdict: distributions take features back to older kernels, and leave others out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.kernel import facts, features, probes
from harness.kernel.bpf_types import AttachType, MapType, ProgramType
from harness.kernel.probes import Answer, Probe, Probed
from harness.program.object import agent, btf
from harness.program.object.btf import Btf, Kind
from harness.program.object.contents import Contents, Program
from harness.program.object.core import Wanted
from harness.verifier import helpers

MOST = 500  # things that the kernel is asked for
_KERNEL_SYMBOLS = Path("/proc/kallsyms")

# First mainline versions of map types; the numbers were handed out in this order.
_MAP_SINCE: dict[MapType, str] = {
    MapType.HASH: "3.19", MapType.ARRAY: "3.19", MapType.PROG_ARRAY: "4.2", MapType.PERF_EVENT_ARRAY: "4.3",
    MapType.PERCPU_HASH: "4.6", MapType.PERCPU_ARRAY: "4.6", MapType.STACK_TRACE: "4.6", MapType.CGROUP_ARRAY: "4.8",
    MapType.LRU_HASH: "4.10", MapType.LRU_PERCPU_HASH: "4.10", MapType.LPM_TRIE: "4.11",
    MapType.ARRAY_OF_MAPS: "4.12", MapType.HASH_OF_MAPS: "4.12", MapType.DEVMAP: "4.14", MapType.SOCKMAP: "4.14",
    MapType.CPUMAP: "4.15", MapType.XSKMAP: "4.18", MapType.SOCKHASH: "4.18", MapType.CGROUP_STORAGE: "4.19",
    MapType.REUSEPORT_SOCKARRAY: "4.19", MapType.PERCPU_CGROUP_STORAGE: "4.20", MapType.QUEUE: "4.20",
    MapType.STACK: "4.20", MapType.SK_STORAGE: "5.2", MapType.DEVMAP_HASH: "5.4", MapType.STRUCT_OPS: "5.6",
    MapType.RINGBUF: "5.8", MapType.INODE_STORAGE: "5.10", MapType.TASK_STORAGE: "5.11", MapType.BLOOM_FILTER: "5.16",
    MapType.USER_RINGBUF: "6.1", MapType.CGRP_STORAGE: "6.2", MapType.ARENA: "6.9",
}  # fmt: skip

# Helpers that a type was allowed to call later than type and helper came; connect4's are in harness.verifier.helpers.
_LATER: dict[tuple[ProgramType, int], str] = {(ProgramType.SOCK_OPS, 46): "4.19"}

# First mainline versions of kfuncs that any program may call, or a sock_addr one.
_KFUNC_SINCE = {
    "bpf_rcu_read_lock": "6.2", "bpf_rcu_read_unlock": "6.2", "bpf_cast_to_kern_ctx": "6.2", "bpf_rdonly_cast": "6.2",
    "bpf_obj_new_impl": "6.2", "bpf_obj_drop_impl": "6.2", "bpf_task_acquire": "6.2", "bpf_task_release": "6.2",
    "bpf_dynptr_from_skb": "6.4", "bpf_dynptr_slice": "6.4", "bpf_dynptr_slice_rdwr": "6.4",
    "bpf_sock_addr_set_sun_path": "6.7",
}  # fmt: skip

# Types whose helpers came with the helper itself: what tracing programs may call was made for them.
_SAME_AGE = frozenset({ProgramType.KPROBE, ProgramType.TRACEPOINT, ProgramType.PERF_EVENT, ProgramType.RAW_TRACEPOINT})


@dataclass(frozen=True)
class Need:
    """One thing. since: the first mainline version, "" where not known; at_least: it may have been a later one.

    needed: without it the object does not do its work; else `without` says what is done instead.
    """

    key: str
    what: str
    since: str
    probe: Probe
    needed: bool = True
    at_least: bool = False
    without: str = ""

    @property
    def since_text(self) -> str:
        return "version not known" if not self.since else f"{self.since}{' or later' * self.at_least}"

    @property
    def version(self) -> tuple[int, ...]:
        return version(self.since)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(".")) if text else ()


def needs(contents: Contents, kernel: Btf | None) -> list[Need]:
    """Everything an object needs, each once, from the kinds of its programs to the functions it is attached to.

    kernel: this kernel's BTF, by which kfuncs are found; None where there is none.
    """
    found: dict[str, Need] = {}
    for part in (_programs, _helpers, _kfuncs, _maps, _instructions, _types, _attaching):
        for need in part(contents, kernel):
            found.setdefault(need.key, need)
    rows = list(found.values())
    if len(rows) > MOST:
        more = Need("more", f"{len(rows) - MOST} more things, which no honest object needs", "", _unknown("not asked"))
        return [*rows[:MOST], more]
    return rows


def kind_of(program: Program) -> str:
    """`cgroup/connect4`, `kprobe`: the section without what it attaches to."""
    target = program.place.target
    return program.section.removesuffix(f"/{target}") if target and program.place.type else program.section


def _short(kind: str) -> str:
    """`connect4` for cgroup/connect4."""
    return _slug(kind.rpartition("/")[2])


def _slug(text: str) -> str:
    return (
        "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in text)[:60].strip("-").lower()
        or "unnamed"
    )


def _programs(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    for program in contents.programs:
        place, kind = program.place, kind_of(program)
        if place.type is None:
            said = "the section's name tells no program type"
            yield Need(f"type-{_slug(kind)}", f"programs of section {kind}", "", _unknown(said))
        else:
            probe = probes.program_type(place.type, place.attach)
            yield Need(f"type-{_slug(kind)}", f"programs of type {kind}", place.since, probe)


def _helpers(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    licence = contents.licence or ""
    for program in contents.programs:
        place, kind = program.place, kind_of(program)
        for number in program.helpers:
            name = helpers.name_of(number) or f"helper #{number}"
            since, exact = _helper_since(number, program)
            probe = (
                _unknown("the section's name tells no program type")
                if place.type is None
                else probes.any_helper(number, place.type, place.attach, licence)
            )
            key = f"{_short(kind)}.{_slug(name.removeprefix('bpf_'))}"
            yield Need(key, f"{name} (#{number}) in {kind}", since, probe, at_least=not exact)


def _helper_since(number: int, program: Program) -> tuple[str, bool]:
    """The first version that lets this type of program call a helper, and whether that is exact or a lower bound."""
    place, introduced = program.place, helpers.introduced(number)
    if place.attach is AttachType.CGROUP_INET4_CONNECT:
        allowed = helpers.allowed_in_connect4(number)
        if allowed is not None:
            return helpers.version_text(allowed), True
    if place.type is not None and (place.type, number) in _LATER:
        return _LATER[place.type, number], True
    if introduced is None:
        return "", False
    own = helpers.version_text(introduced)
    latest = max(own, place.since, key=version) if place.since else own
    return latest, place.type in _SAME_AGE or number in (1, 2, 3)  # maps can be looked up, changed everywhere


def _kfuncs(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    for program in contents.programs:
        for name in program.kfuncs:
            since = _KFUNC_SINCE.get(name, "")
            key = f"{_short(kind_of(program))}.{_slug(name.removeprefix('bpf_'))}"
            what = f"kernel function {name} in {kind_of(program)}"
            probe = _kfunc(name, program, kernel, contents.licence or "")
            yield Need(key, what, since, probe)
        for name in program.externals:
            yield Need(f"symbol-{_slug(name)}", f"kernel symbol {name}", "5.7", _symbol(name), at_least=True)


def _kfunc(name: str, program: Program, kernel: Btf | None, licence: str) -> Probe:
    def probe() -> Probed:
        if kernel is None:
            return Probed(Answer.NO, "this kernel has no BTF, by which kfuncs are found")
        found = kernel.named(name, Kind.FUNC)
        if not found:
            return Probed(Answer.NO, f"no function {name} in this kernel's BTF (a module's was not looked at)")
        if program.place.type is None:
            return Probed(Answer.UNKNOWN, "the section's name tells no program type")
        return probes.kfunc(found[0].id, program.place.type, program.place.attach, licence)()

    return probe


def _maps(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    for one in contents.maps:
        if one.form == "data":
            code = probes.map_type(MapType.ARRAY)
            yield Need("global-data", "variables and constants of the object (an array map each)", "5.2", code)
        elif one.type is not None and one.kind in MapType.__members__:
            kind = MapType[one.kind]
            name = one.kind.lower()
            yield Need(f"map-{_slug(name)}", f"maps of type {name}", _MAP_SINCE.get(kind, ""), probes.map_type(kind))
        elif one.type is not None:
            said = f"this harness does not know maps of type {one.type}"
            yield Need(f"map-type-{one.type}", f"maps of type {one.type}", "", _unknown(said))


def _instructions(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    for program in contents.programs:
        for one in program.generations:
            yield Need(f"isa-{_slug(one.name)}", one.name, one.since, probes.code(one.code))


def _types(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    """BTF of the kernel: for CO-RE, unless only the object's own types are spoken of, and for what is found by it."""
    core = any(row.kind != Wanted.LOCAL_TYPE_ID for program in contents.programs for row in program.relocations)
    others = any(program.kfuncs or program.place.type in probes.NEED_A_TARGET for program in contents.programs)
    if core or others:
        why = "CO-RE relocations" if core else "kernel functions"
        there = next(one for one in features.FEATURES if one.name == "btf").probe
        yield Need("btf", f"BTF of the kernel, for its {why}", "5.2", there)


def _attaching(contents: Contents, kernel: Btf | None) -> Iterator[Need]:
    by_name = {one.name: one for one in features.FEATURES}
    for program in contents.programs:
        place = program.place
        if program.section.startswith("cgroup") or place.type is ProgramType.SOCK_OPS:
            link = by_name["bpf-link"]
            yield Need("bpf-link", link.title, link.since, link.probe, needed=False, without=link.without)
        if place.type is ProgramType.KPROBE and kind_of(program) in ("kprobe", "kretprobe"):
            yield Need("kprobe", by_name["kprobe"].title, by_name["kprobe"].since, by_name["kprobe"].probe)
            agents = agent.PROGRAMS.get(program.name) == program.section
            target = agent.KPROBE_SYMBOL if agents else place.target.partition("+")[0]
            if target:
                where = f" (the agent attaches {program.name} there)" if agents else ""
                yield Need(
                    f"function-{_slug(target)}", f"kernel function {target} to probe{where}", "", _symbol(target)
                )


def _symbol(name: str) -> Probe:
    def probe() -> Probed:
        try:
            with _KERNEL_SYMBOLS.open("rb") as symbols:
                word = name.encode()
                there = any(line.split()[2] == word for line in symbols if word in line)
        except OSError as error:
            return Probed(Answer.UNKNOWN, f"cannot read {_KERNEL_SYMBOLS}: {error.strerror}")
        return Probed(Answer.YES if there else Answer.NO, f"{'in' if there else 'not in'} {_KERNEL_SYMBOLS}")

    return probe


def _unknown(said: str) -> Probe:
    return lambda: Probed(Answer.UNKNOWN, said)


def kernel_types() -> Btf | None:
    """This kernel's BTF; None where it shows none. Raises HarnessError when what is there cannot be read."""
    return btf.load(btf.KERNEL) if facts.has_btf() else None
