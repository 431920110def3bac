"""What is read from objects that clang made of our own source, style by style."""

from __future__ import annotations

import struct

import pytest

from harness.kernel.bpf_types import AttachType, ProgramType
from harness.program.maps import LAYOUTS
from harness.program.object import agent, contents, diff, elf, instructions
from harness.program.object.btf import Field
from harness.program.object.contents import Contents, Program
from harness.program.object.definitions import Definition
from harness.program.object.sections import place_of
from harness.verifier import elf as for_explain
from harness.verifier.sequence import AGENT_CONNECT4
from tests.objects.build import Style, build
from tests.program.object import made


def read(style: Style) -> Contents:
    return contents.read(build(style).read_bytes())


def program(one: Contents, name: str) -> Program:
    return next(found for found in one.programs if found.name == name)


AGENTS_FORM = [Style.CO_RE, Style.FIXED, Style.STRIPPED, Style.LEGACY, Style.NO_BTF]


@pytest.mark.parametrize("style", AGENTS_FORM, ids=lambda style: style.name)
def test_an_object_in_the_agents_form_has_its_programs_and_calls(style: Style) -> None:
    one = read(style)
    assert {found.name: found.section for found in one.programs} == agent.PROGRAMS
    connect4 = program(one, "connect4")
    assert (connect4.place.type, connect4.place.attach) == (
        ProgramType.CGROUP_SOCK_ADDR,
        AttachType.CGROUP_INET4_CONNECT,
    )
    assert [call.helper for call in connect4.calls] == [step.helper for step in AGENT_CONNECT4.steps]
    assert connect4.maps == ("policy_map", "skip_process_map", "local_map")
    kprobe = program(one, "tcp_v4_connect")
    assert (kprobe.place.type, kprobe.place.target) == (ProgramType.KPROBE, "tcp_v4_connect")
    assert (113 if style in (Style.CO_RE, Style.STRIPPED) else 4) in kprobe.helpers
    assert one.licence == "Dual MIT/GPL"
    assert not one.problems


@pytest.mark.parametrize("style", AGENTS_FORM, ids=lambda style: style.name)
def test_maps_have_the_agents_layout(style: Style) -> None:
    maps = {one.name: one for one in read(style).maps}
    assert set(maps) == set(LAYOUTS)
    for name, layout in LAYOUTS.items():
        one = maps[name]
        assert (one.type, one.key_size, one.value_size, one.entries) == (
            layout.type, layout.key_size, layout.value_size, layout.entries,
        )  # fmt: skip
        assert agent.differences(one) == []
        assert agent.remarks(one) == []
        assert bool(one.value) is (style not in (Style.LEGACY, Style.NO_BTF))


def test_fields_come_from_btf() -> None:
    maps = {one.name: one for one in read(Style.CO_RE).maps}
    assert [str(field) for field in maps["audit_map"].value] == [
        "__u32 uid at 0", "__u32 pid at 4", "__u32 is_root at 8", "__u32 destination_ipv4 at 12",
        "__u32 destination_port at 16",
    ]  # fmt: skip
    assert str(maps["policy_map"].key[0]) == "__u32 destination_ip.ipv4 at 0"


@pytest.mark.parametrize(
    ("style", "name", "says"),
    [
        (Style.BUG_POLICY_SIZE, "policy_map", "its key is 8 bytes, the agent's 24"),
        (Style.BUG_AUDIT_LAYOUT, "audit_map", "value: `__u64 since at 24`, which the agent does not have"),
        (Style.NO_BTF_MAPS, "policy_map", "nobody can tell its type and sizes"),
    ],
)
def test_other_layouts_are_told(style: Style, name: str, says: str) -> None:
    one = next(one for one in read(style).maps if one.name == name)
    assert says in "; ".join(agent.differences(one))


def with_value(*fields: Field) -> Definition:
    return Definition("audit_map", "BTF", 9, 8, 20, 200, value=fields)


def words(*names: str) -> list[Field]:
    return [Field(name, 4 * number, 4, "__u32") for number, name in enumerate(names)]


def test_fields_that_changed_places_are_told_whatever_their_names() -> None:
    assert not agent.differences(with_value(*words("logon_id", "process_id", "is_admin", "addr", "dport")))
    assert not agent.differences(with_value(*words("a", "b", "c", "d", "e")))  # names that say nothing
    swapped = agent.differences(with_value(*words("pid", "uid", "is_root", "ip", "port")))
    assert len(swapped) == 2
    assert "where the agent has uid at 0" in swapped[0]
    across = agent.differences(with_value(Field("uid", 0, 8, "__u64"), *words("", "", "is_root", "ip", "port")[2:]))
    assert any("lies across" in text for text in across)


def test_source_lines_stand_with_the_calls() -> None:
    for style, there in ((Style.CO_RE, True), (Style.STRIPPED, True), (Style.NO_BTF, False)):
        one = read(style)
        assert one.has_lines is there
        line = program(one, "connect4").calls[0].line
        assert (line is not None) is there
        assert line is None or "bpf_get_socket_cookie(ctx)" in line.text


def test_kfuncs_are_found_by_their_symbols() -> None:
    assert program(read(Style.KFUNC), "connect4").kfuncs == ("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
    assert program(read(Style.NO_KFUNC), "connect4").kfuncs == ("bpf_msp_no_such_kfunc",)


def test_core_relocations_are_counted_for_their_program() -> None:
    for style, count in ((Style.CO_RE, 3), (Style.STRIPPED, 3), (Style.WEAK_FIELD, 4), (Style.FIXED, 0)):
        one = read(style)
        assert len(program(one, "tcp_v4_connect").relocations) == count
        assert not program(one, "connect4").relocations


def test_an_object_of_the_other_byte_order_is_read() -> None:
    one = read(Style.BIG_ENDIAN)
    assert one.byte_order == "big"
    assert program(one, "connect4").helpers == program(read(Style.NO_KPROBE), "connect4").helpers
    assert {found.name for found in one.maps} == set(LAYOUTS)


def test_data_sections_are_maps_of_their_own() -> None:
    one = read(Style.GLOBAL_DATA)
    assert ".rodata" in {found.name for found in one.maps}
    assert ".rodata" in program(one, "connect4").maps


@pytest.mark.parametrize("style", [style for style in Style if not style.name.startswith("BUG_NO_CONNECT4")])
def test_explain_sees_the_same_calls(style: Style) -> None:
    steps = for_explain.read_calls(build(style))
    calls = [call for call in program(read(style), "connect4").calls if call.helper]
    assert [(step.insn, step.helper) for step in steps] == [(call.instruction, call.helper) for call in calls]


@pytest.mark.parametrize(
    ("section", "type", "attach", "target"),
    [
        ("cgroup/connect4", ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, ""),
        ("?cgroup/connect4", ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, ""),
        ("kprobe/tcp_v4_connect", ProgramType.KPROBE, None, "tcp_v4_connect"),
        ("kprobe.multi/tcp_*", ProgramType.KPROBE, AttachType.TRACE_KPROBE_MULTI, "tcp_*"),
        ("tracepoint/sock/inet_sock_set_state", ProgramType.TRACEPOINT, None, "sock/inet_sock_set_state"),
        ("xdp/devmap", ProgramType.XDP, AttachType.XDP_DEVMAP, ""),
        ("xdp", ProgramType.XDP, None, ""),
        ("cgroup/connect46", None, None, ""),
        ("prog", None, None, ""),
    ],
)
def test_a_section_tells_the_type(
    section: str, type: ProgramType | None, attach: AttachType | None, target: str
) -> None:
    place = place_of(section)
    assert (place.type, place.attach, place.target) == (type, attach, target)


# --- instructions ----------------------------------------------------------------------------------------------------


def code(*rows: tuple[int, int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<BBhi", row[0], row[1] | row[2] << 4, row[3], row[4]) for row in rows)


@pytest.mark.parametrize("one", instructions.GENERATIONS, ids=lambda one: one.name)
def test_each_generations_program_is_seen_to_be_of_it(one: instructions.Generation) -> None:
    found = contents.read(made.elf({"socket/x": one.code}))
    if one is instructions.CALLS:  # one function without symbols calls into itself
        assert found.programs[0].parts[0].functions == ("socket/x@2",)
    else:
        assert one in found.programs[0].generations


def test_the_second_half_of_a_wide_instruction_is_none() -> None:
    wide = code((0x18, 1, 0, 0, 5)) + struct.pack("<BBhi", 0x85, 0, 0, 14)
    rows = list(instructions.decode(wide + code((0x85, 0, 0, 0, 46), (0x95, 0, 0, 0, 0)), "<"))
    assert [(row.index, row.helper) for row in rows] == [(0, False), (2, True), (3, False)]


# --- two objects -----------------------------------------------------------------------------------------------------


def changes(old: Style, new: Style) -> dict[str, str]:
    return {one.name: "; ".join(one.differences) for one in diff.changes(read(old), read(new))}


def test_the_same_object_has_not_changed() -> None:
    for style in Style:
        assert changes(style, style) == {}


def test_from_fixed_offsets_to_core() -> None:
    found = changes(Style.FIXED, Style.CO_RE)
    kprobe = found["kprobe/tcp_v4_connect tcp_v4_connect"]
    assert "helpers added: bpf_probe_read_kernel" in kprobe
    assert "helpers removed: bpf_probe_read" in kprobe
    assert "CO-RE relocations: 0 → 3" in kprobe
    assert not any("map" in name for name in found)


def test_a_changed_layout_and_a_lost_program_matter() -> None:
    rows = {one.name: one for one in diff.changes(read(Style.SOCK_OPS), read(Style.BUG_AUDIT_LAYOUT))}
    assert rows["audit_map"].matters
    assert "value's bytes: 20 → 32" in rows["audit_map"].differences
    assert "value gained `__u64 since at 24`" in rows["audit_map"].differences
    gone = {one.name: one for one in diff.changes(read(Style.CO_RE), read(Style.NO_KPROBE))}
    assert gone["kprobe/tcp_v4_connect tcp_v4_connect"].differences == ["gone"]
    one_instruction = changes(Style.BUG_DENY, Style.SOCK_OPS)
    assert "instructions" in one_instruction["cgroup/connect4 connect4"]


def test_a_text_is_found_within_its_table_only() -> None:
    assert elf.text_at(b"\0ab\0c", 1) == "ab"
    assert elf.text_at(b"\0ab\0c", 4) == "c"
    assert elf.text_at(b"\0ab", 99) == ""
