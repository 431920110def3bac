"""Objects of many styles and in every state of damage: loaded by libbpf or refused with a reason, and nothing stays."""

from __future__ import annotations

import errno
import os
import random
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import bpf
from harness.kernel.bpf import BpfError
from harness.lab.worker import wait_until
from harness.program import foreign, libbpf
from harness.program.compile import compile_source, stand_in
from harness.program.foreign import ObjectError, ObjectFile
from harness.program.load import load_again
from harness.program.maps import LAYOUTS
from tests.objects import build as objects
from tests.objects.build import LOADABLE, Style, build
from tests.processes import children

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

PRELUDE = """
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""


def compiled(text: str, directory: Path) -> ObjectFile:
    """An object of a C text."""
    source, made = directory / "text.c", directory / "text.o"
    source.write_text(PRELUDE + text)
    run(["clang", "-target", "bpf", "-O2", "-g", *objects._includes(), "-c", source, "-o", made])
    return foreign.read(made)


def held() -> list[str]:
    """What this process holds of bpf(2)."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the descriptor of the walk itself
            continue
        if "bpf" in target:
            found.append(target)
    return sorted(found)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No descriptor and no process outlives a load; with those, nothing of it is in the kernel (nothing is pinned)."""
    before, processes = held(), children()
    yield
    assert held() == before
    assert children() <= processes


@pytest.mark.parametrize("style", LOADABLE, ids=lambda style: style.name)
def test_every_style_that_loads_gives_its_programs_by_role(style: Style) -> None:
    recipe = style.value
    wanted = {
        "connect4": style is not Style.BUG_NO_CONNECT4,
        "complete_kprobe": recipe.kprobe,
        "complete_sockops": recipe.sock_ops,
    }
    with foreign.load(foreign.read(build(style))) as about:
        roles = {fact.role for fact in about.programs}
        assert roles == {role for role, there in wanted.items() if there}
        assert about.library.startswith("1.")
        if style is Style.BUG_NO_CONNECT4:
            assert about.loaded is None
            return
        assert about.loaded is not None
        refused = {one.role for one in about.refusals}
        assert refused <= {"complete_kprobe"}  # a kernel may have no such program type
        assert set(about.loaded.programs) == roles - refused
        for role, fd in about.loaded.programs.items():
            assert bpf.prog_info(fd).type == libbpf.ROLES[role][0]
            assert "processed" in about.loaded.logs[role]
        assert set(about.loaded.maps) == set(LAYOUTS)


@pytest.mark.parametrize(
    ("style", "happened", "said"),
    [
        (Style.LEGACY, "ENOTSUP", "legacy map definitions"),
        (Style.NO_BTF, "ENOTSUP", "legacy map definitions"),
        (Style.NO_BTF_MAPS, "ENOENT", "BTF is required"),
        (Style.BIG_ENDIAN, "not for little-endian", ""),
    ],
    ids=lambda value: value.name if isinstance(value, Style) else "",
)
def test_what_libbpf_does_not_take_is_told_in_its_own_words(style: Style, happened: str, said: str) -> None:
    with pytest.raises(ObjectError, match=happened) as caught, foreign.load(foreign.read(build(style))):
        pass
    assert said in caught.value.detail


def test_refusal_by_the_verifier_has_the_whole_log() -> None:
    with foreign.load(foreign.read(build(Style.BUG_NULL_CHECK))) as about:
        assert about.loaded is None
        (refusal,) = about.refusals
    assert refusal.role == "connect4"
    assert libbpf.error_text(refusal.errno).startswith("EACCES")
    assert refusal.log.lstrip().startswith(("0:", "func#0", ";"))
    assert "invalid mem access 'map_value_or_null'" in refusal.log
    assert "processed" in refusal.log.splitlines()[-1]


def test_programs_and_maps_are_gone_after_the_block() -> None:
    with foreign.load(foreign.read(build(Style.SOCK_OPS))) as about:
        assert about.loaded is not None
        programs = [bpf.prog_info(fd).id for fd in about.loaded.programs.values()]
        maps = [bpf.map_info(fd).id for fd in about.loaded.maps.values()]

    def gone() -> bool:
        return not any(_there(bpf.prog_fd, one) for one in programs) and not any(
            _there(bpf.map_fd, one) for one in maps
        )

    assert wait_until(time.monotonic() + 30, gone)


def _there(opening: object, identity: int) -> bool:
    try:
        opening(identity).close()  # type: ignore[operator]
    except BpfError:
        return False
    return True


def test_idle_roles_are_shown_to_the_verifier_only() -> None:
    with foreign.load(foreign.read(build(Style.SOCK_OPS)), idle=["complete_sockops"]) as about:
        assert about.loaded is not None
        assert list(about.loaded.programs) == ["connect4"]
        assert [spec.name for spec in about.loaded.image.programs] == ["connect4"]
        assert "processed" in about.taken["complete_sockops"]


def test_another_number_of_entries() -> None:
    with foreign.load(foreign.read(build(Style.SOCK_OPS))) as about:
        assert about.loaded is not None
        with load_again(about.loaded, {"audit_map": 17}) as other:
            assert bpf.map_info(other.maps["audit_map"]).max_entries == 17
            assert bpf.map_info(other.maps["local_map"]).max_entries == 200
        assert bpf.map_info(about.loaded.maps["audit_map"]).max_entries == 200


def test_our_completing_program_works_on_the_maps_of_the_object() -> None:
    image = compile_source(stand_in())
    with foreign.load(foreign.read(build(Style.NO_KPROBE))) as about:
        assert about.loaded is not None
        with foreign.lend(about.loaded, image, "complete_sockops") as both:
            mine = bpf.prog_info(both.programs["complete_sockops"]).map_ids
            theirs = {name: bpf.map_info(fd).id for name, fd in about.loaded.maps.items()}
            assert set(mine) == {theirs["local_map"], theirs["audit_map"]}
            assert both.lent == {"complete_sockops"}
            with load_again(both, {"audit_map": 9}) as other:
                assert set(other.programs) == {"connect4", "complete_sockops"}


def test_section_that_libbpf_does_not_know_is_told_by_the_function(tmp_path: Path) -> None:
    text = 'SEC("msp_redirect") int connect4(struct bpf_sock_addr *ctx) { return ctx->user_port != 1; }'
    with foreign.load(compiled(text, tmp_path)) as about:
        assert about.loaded is not None
        assert bpf.prog_info(about.loaded.programs["connect4"]).type == bpf.ProgramType.CGROUP_SOCK_ADDR
    assert [one.map for one in foreign.misfits(about.maps)] == list(LAYOUTS)
    assert foreign.misfits(about.maps)[0].text == "there is no policy_map"


def test_of_two_connect4_programs_the_one_of_that_name(tmp_path: Path) -> None:
    text = """
    SEC("cgroup/connect4") int another(struct bpf_sock_addr *ctx) { return 1; }
    SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return 1; }
    SEC("xdp") int not_for_us(struct xdp_md *ctx) { return 2; }
    """
    with foreign.load(compiled(text, tmp_path)) as about:
        assert {fact.function: fact.role for fact in about.programs} == {
            "another": "", "connect4": "connect4", "not_for_us": "",
        }  # fmt: skip
        assert about.loaded is not None
        assert list(about.loaded.programs) == ["connect4"]


def test_one_refused_program_does_not_cost_the_others(tmp_path: Path) -> None:
    text = """
    SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return 1; }
    SEC("sockops") int bad(struct bpf_sock_ops *ctx) { return *(volatile int *)0; }
    """
    with foreign.load(compiled(text, tmp_path)) as about:
        assert about.loaded is not None
        assert list(about.loaded.programs) == ["connect4"]
        (refusal,) = about.refusals
        assert refusal.role == "complete_sockops"
        assert refusal.log


def map_of(name: str, entries: int, more: str = "") -> str:
    return (
        f"struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, {entries}); __type(key, __u32); "
        f'__type(value, __u64); {more} }} {name} SEC(".maps");\n'
    )


USING = """
SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&%s, &key) != 0;
}
"""


def test_nothing_is_pinned_though_the_object_asks_for_it(tmp_path: Path) -> None:
    name = f"msp_test_{os.getpid()}"
    text = map_of(name, 4, "__uint(pinning, LIBBPF_PIN_BY_NAME);") + USING % name
    with foreign.load(compiled(text, tmp_path)) as about:
        assert about.maps[0].pinned == f"/sys/fs/bpf/{name}"
        assert about.loaded is not None  # pinning would have failed where no bpffs is mounted
        assert not Path(about.maps[0].pinned).exists()


def test_map_that_takes_all_memory_is_not_made(tmp_path: Path) -> None:
    with (
        pytest.raises(ObjectError, match=r"256 MiB.*large: 100000000 entries"),
        foreign.load(compiled(map_of("large", 100_000_000) + USING % "large", tmp_path)),
    ):
        pass


def test_too_many_maps_and_programs(tmp_path: Path) -> None:
    maps = "".join(map_of(f"m{number}", 1) for number in range(65))
    with pytest.raises(ObjectError, match="more than 64 maps"), foreign.load(compiled(maps + USING % "m0", tmp_path)):
        pass
    many = "".join(f'SEC("xdp") int p{number}(struct xdp_md *ctx) {{ return 2; }}\n' for number in range(257))
    with pytest.raises(ObjectError, match="more than 256 programs"), foreign.load(compiled(many, tmp_path)):
        pass


def test_thousands_of_relocations(tmp_path: Path) -> None:
    calls = "bpf_map_delete_elem(&some, &key);\n" * 5000
    text = map_of("some", 4) + (
        f'SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) {{ __u32 key = 0; {calls} return 1; }}'
    )
    with foreign.load(compiled(text, tmp_path)) as about:
        assert about.loaded is not None
        assert len(about.loaded.image.program("connect4").instructions) // 8 > 20_000


def test_log_of_millions_of_characters_is_whole(tmp_path: Path) -> None:
    """Many steps, then a fault: the log has more than the first buffer holds."""
    text = (
        'SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { volatile int x = 0; '
        + "x += ctx->user_ip4;\n" * 20_000
        + "return *(volatile int *)(long)0 + x; }"
    )
    with foreign.load(compiled(text, tmp_path)) as about:
        assert about.loaded is None
        (refusal,) = about.refusals
    assert len(refusal.log) > libbpf._LOG_SIZES[0]
    assert "invalid mem access" in refusal.log
    assert refusal.log.lstrip()[:1] in "0f;"


def test_log_with_no_room_for_it_costs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_LOG_SIZES", (128, 256))
    answer, descriptors = libbpf.load(build(Style.SOCK_OPS).read_bytes(), libbpf.Request("some.o", os.getpid(), -1))
    for number in descriptors:
        os.close(number)
    assert list(answer.sent) == ["connect4", "complete_sockops"]
    assert "processed" in answer.loaded["connect4"]["log"]
    answer, descriptors = libbpf.load(
        build(Style.BUG_NULL_CHECK).read_bytes(), libbpf.Request("some.o", os.getpid(), -1)
    )
    assert descriptors == []
    assert answer.refusals[0].errno == errno.EACCES
    assert answer.refusals[0].log  # as much as there was room for


def boundaries(data: bytes) -> list[int]:
    """Where headers and sections begin and end."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, _ = struct.unpack_from("<3H", data, 58)
    found = {0, 1, 4, 16, 63, 64, table, *(table + size * number for number in range(count))}
    for number in range(count):
        offset, length = struct.unpack_from("<QQ", data, table + size * number + 24)
        found |= {offset, offset + length // 2, offset + length}
    return sorted(place for place in found if place < len(data))


def outcome(data: bytes) -> str:
    """Loaded, or a reason; anything but ObjectError is a defect."""
    file = ObjectFile("damaged.o", data, "sha256:0", foreign._not_an_object(data))
    said = "no reason"
    try:
        with foreign.load(file) as about:
            return "loaded" if about.loaded else "refused"
    except ObjectError as error:
        said = error.happened
    assert said
    assert "Traceback" not in said
    return "no object"


def test_truncated_at_every_section_boundary() -> None:
    data = build(Style.CO_RE).read_bytes()
    places = boundaries(data)
    assert len(places) > 40
    assert {outcome(data[:place]) for place in places} == {"no object"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_damaged_anywhere(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(build(Style.SOCK_OPS_KPROBE).read_bytes())
    for _ in range(chance.choice((1, 4, 32))):
        data[chance.randrange(len(data))] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256)))
    assert outcome(bytes(data)) in ("loaded", "refused", "no object")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000), st.booleans())
def test_garbage(tail: bytes, header: bool) -> None:
    start = build(Style.CO_RE).read_bytes()[:64] if header else b""
    assert outcome(start + tail) == "no object"


def test_section_table_that_points_outside() -> None:
    data = bytearray(build(Style.CO_RE).read_bytes())
    struct.pack_into("<Q", data, 40, 1 << 60)
    assert outcome(bytes(data)) == "no object"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF\x02\x01\x01", "ends within its ELF header"),
        (b"\x7fELF\x01\x01" + bytes(100), "32-bit"),
        (b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\0" + bytes(100), "for machine 62, not for BPF"),
    ],
)
def test_what_is_no_object_is_not_given_to_libbpf(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "some.o"
    path.write_bytes(data)
    with pytest.raises(ObjectError, match=words), foreign.load(foreign.read(path)):
        pass


def test_100_megabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.o"
    path.write_bytes(build(Style.CO_RE).read_bytes())
    os.truncate(path, 100 << 20)
    file = foreign.read(path)
    assert file.data == b""
    assert "104,857,600 bytes" in file.problem


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, words in (("fifo", "not a regular file"), ("missing", "ENOENT"), (".", "not a regular file|EISDIR")):
        with pytest.raises(HarnessError, match=words):
            foreign.read(tmp_path / name)


def test_libbpf_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "TIMEOUT", 0.001)
    with pytest.raises(ObjectError, match="not done after"), foreign.load(foreign.read(build(Style.CO_RE))):
        pass


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.abort()", "crashed on it .SIGABRT"),
        ("import ctypes; ctypes.string_at(1)", "crashed on it .SIGSEGV"),
        ("x = bytearray(4 << 30)", "more than 1024 MiB"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "20 s of processor time"),
    ],
)
def test_crash_of_libbpf_is_the_objects_failure(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loading process with a body of its own in place of libbpf."""
    stub = tmp_path / "python"
    limits = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
    limits += "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    stub.write_text(f"#!{os.path.realpath('/usr/bin/python3')}\n{limits}{body}\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(ObjectError, match=words), foreign.load(foreign.read(build(Style.CO_RE))):
        pass


def test_no_libbpf_is_no_fault_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "LIBRARY", "libmsp-no-such.so.1")
    with pytest.raises(HarnessError, match="install the distribution's libbpf"):
        libbpf.Library()
