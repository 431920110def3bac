"""The object that a sample's agent has: what is read of it is what the program image says, and libbpf loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.image.sample import object_file
from harness.image.sample.agent_faults import refused
from harness.kernel.bpf import AttachType, MapType, ProgramType
from harness.program import compile as compiler
from harness.program import foreign
from harness.program.image import Image, MapSpec, ProgramSpec
from harness.program.maps import LAYOUTS
from harness.program.object import agent, contents

# r1 = map; r0 = 1; exit
_CODE = bytes.fromhex("1811000007000000 0000000000000000 b700000001000000 9500000000000000".replace(" ", ""))
IMAGE = Image(
    (
        MapSpec("audit_map", int(MapType.LRU_HASH), 8, 20, 4096),
        MapSpec("local_map", int(MapType.LRU_HASH), 8, 24, 4096),
        MapSpec("policy_map", int(MapType.HASH), 24, 24, 10),
        MapSpec("skip_process_map", int(MapType.HASH), 4, 4, 10),
    ),
    (
        ProgramSpec(
            "connect4",
            int(ProgramType.CGROUP_SOCK_ADDR),
            int(AttachType.CGROUP_INET4_CONNECT),
            _CODE,
            ((0, "policy_map"),),
        ),
        ProgramSpec("complete_kprobe", int(ProgramType.KPROBE), None, _CODE, ((0, "local_map"),)),
        ProgramSpec("complete_sockops", int(ProgramType.SOCK_OPS), None, _CODE[16:], ()),
    ),
)


def test_it_reads_as_the_agents() -> None:
    found = contents.read(object_file.build(IMAGE))
    assert not found.problems
    assert {one.name: one.section for one in found.programs} == agent.PROGRAMS
    assert [one.name for one in found.maps] == sorted(LAYOUTS)
    for one in found.maps:
        assert not agent.differences(one), one
        assert not agent.remarks(one), one
    assert found.licence == "GPL"


def test_a_program_that_the_agent_has_not_is_left_out() -> None:
    assert b"complete_sockops" not in object_file.build(IMAGE)


def test_the_maps_are_by_name_and_no_descriptor_of_ours_is_in_it() -> None:
    data = object_file.build(IMAGE)
    assert _CODE not in data
    assert _CODE[:1] + b"\x01" + bytes(14) + _CODE[16:] in data


@pytest.mark.kernel
def test_libbpf_loads_it_and_the_verifier_refuses_the_broken_one(tmp_path: Path) -> None:
    image = compiler.compile_source(compiler.redirector(join=compiler.Join.KPROBE))
    path = tmp_path / "ebpf_cgroup.o"
    path.write_bytes(object_file.build(image))
    with foreign.load(foreign.read(path)) as found:
        assert found.loaded is not None
        assert set(found.loaded.maps) == set(LAYOUTS)
        assert "connect4" in found.loaded.programs
    path.write_bytes(object_file.build(refused(image)))
    with foreign.load(foreign.read(path)) as found:
        assert found.loaded is None
        assert found.refusal("connect4") is not None
