"""The probes against what is known of the running kernel by other means: libbpf's loads, and its BTF."""

from __future__ import annotations

from enum import IntEnum

import pytest

from harness.kernel import bpf_types, facts, probes
from harness.kernel.bpf_types import AttachType, MapType, ProgramType
from harness.kernel.probes import Answer
from harness.program.object import btf, instructions
from harness.program.object.btf import Kind

pytestmark = pytest.mark.kernel

CONNECT4 = (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT)


@pytest.mark.parametrize(
    ("enum", "name", "prefix"),
    [
        (bpf_types.ProgramType, "bpf_prog_type", "BPF_PROG_TYPE_"),
        (bpf_types.AttachType, "bpf_attach_type", "BPF_"),
        (bpf_types.MapType, "bpf_map_type", "BPF_MAP_TYPE_"),
    ],
)
def test_the_numbers_are_the_kernels(enum: type[IntEnum], name: str, prefix: str) -> None:
    if not facts.has_btf():
        pytest.skip("this kernel has no BTF")
    kernel = btf.load(btf.KERNEL)
    (found,) = kernel.named(name, Kind.ENUM)
    numbers = dict(kernel.enumerators(found))
    own = {f"{prefix}{row.name}": row.value for row in enum}
    assert own.items() & numbers.items() == {(key, own[key]) for key in own.keys() & numbers.keys()}
    assert own.keys() & numbers.keys()


@pytest.mark.parametrize("number", [1, 2, 3, 6, 14, 15, 46])
def test_what_the_agents_connect4_calls_is_allowed_or_refused_by_name(number: int) -> None:
    found = probes.any_helper(number, *CONNECT4)()
    assert found.answer in (Answer.YES, Answer.NO)
    assert found.answer is Answer.YES or f"#{number}" in found.said


def test_a_helper_of_other_programs_and_one_that_is_none_are_refused() -> None:
    for number in (9, 26, 100_000):
        assert probes.any_helper(number, *CONNECT4)().answer is Answer.NO


def test_a_licence_that_is_not_free_is_refused_what_is_for_gpl_only() -> None:
    assert probes.any_helper(6, *CONNECT4, "Dual MIT/GPL")().answer is Answer.YES
    refused = probes.any_helper(6, *CONNECT4, "Proprietary")()
    assert (refused.answer, "GPL" in refused.said) == (Answer.NO, True)
    assert probes.any_helper(1, *CONNECT4, "Proprietary")().answer is Answer.YES


def test_a_program_type_without_its_attach_type_is_refused() -> None:
    assert probes.program_type(*CONNECT4)().answer is Answer.YES
    assert probes.program_type(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_DEVICE)().answer is Answer.NO


def test_types_that_a_probe_cannot_try_are_unknown() -> None:
    assert probes.program_type(ProgramType.LSM, AttachType.LSM_MAC)().answer is Answer.UNKNOWN
    assert probes.map_type(MapType.SK_STORAGE)().answer is Answer.UNKNOWN


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.PERF_EVENT_ARRAY])
def test_maps_that_every_kernel_has(kind: MapType) -> None:
    assert probes.map_type(kind)().answer is Answer.YES


@pytest.mark.parametrize("one", instructions.GENERATIONS, ids=lambda one: one.name)
def test_instructions_are_known_where_the_version_says_so(one: instructions.Generation) -> None:
    release = tuple(int(word) for word in facts.release().split("-")[0].split(".")[:2])
    since = tuple(int(word) for word in one.since.split("."))
    if release < since:
        pytest.skip(f"this kernel is older than {one.since}")
    assert probes.code(one.code)().answer is Answer.YES


def test_an_instruction_that_is_none_is_not_known() -> None:
    found = probes.code(probes.instruction(0xB7) + probes.instruction(0xFF) + probes.instruction(0x95))()
    assert found.answer is Answer.NO
    assert "opcode" in found.said


def test_kernel_functions_are_found_by_their_ids() -> None:
    kernel = btf.load(btf.KERNEL) if facts.has_btf() else None
    found = kernel.named("bpf_rcu_read_lock", Kind.FUNC) if kernel is not None else []
    if kernel is None or not found:
        pytest.skip("this kernel has no kfunc bpf_rcu_read_lock in its BTF")
    assert probes.kfunc(found[0].id, *CONNECT4)().answer is Answer.YES
    (none,) = kernel.named("tcp_connect", Kind.FUNC)[:1]
    assert probes.kfunc(none.id, *CONNECT4)().answer is Answer.NO
