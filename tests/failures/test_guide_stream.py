"""The guide's log read back into instructions and source lines."""

from __future__ import annotations

import struct

import pytest

from harness.failures import btf, guide_stream
from harness.failures.assembler import ALLOW, call
from harness.program.image import find_relocations


def slots(code: bytes) -> list[tuple[int, int, int, int, int]]:
    """(opcode, destination, source, offset, immediate) of each slot."""
    rows = (struct.unpack_from("=BBhi", code, at) for at in range(0, len(code), 8))
    return [
        (opcode, registers & 15, registers >> 4, offset, immediate) for opcode, registers, offset, immediate in rows
    ]


def test_the_instructions_are_those_that_the_guide_prints() -> None:
    code = slots(guide_stream.guides_stream(7).code)
    assert len(code) == 17  # 0 to 16; 14 and 15 are one instruction
    assert code[0] == (0xBF, 6, 1, 0, 0)  # r6 = r1
    assert code[1] == (0x85, 0, 0, 0, 46)  # get_socket_cookie
    assert [row[3] for row in code if row[0] == 0x63] == [-44, -48, -52, -56, -40, -36]
    assert [row[3] for row in code if row[0] == 0x61] == [4, 24, 36]  # user_ip4, user_port, protocol
    assert code[13] == (0x07, 2, 0, 0, -56)
    assert code[16] == (0x85, 0, 0, 0, 1)  # map_lookup_elem, cut in the guide


def test_the_map_is_the_descriptor_that_was_given() -> None:
    code = guide_stream.guides_stream(7).code
    assert find_relocations(code, {7: "policy_map"}) == ((14, "policy_map"),)


def test_source_lines_begin_at_the_first_instruction_and_repeat_with_their_number() -> None:
    lines = guide_stream.guides_stream(7).lines
    assert lines[0] == btf.SourceLine(0, "int connect4(struct bpf_sock_addr *ctx)", 1)
    assert [line.slot for line in lines] == [0, 1, 3, 6, 7, 8, 9, 10, 11, 13, 14]
    by_text: dict[str, set[int]] = {}
    for line in lines:
        by_text.setdefault(line.text, set()).add(line.number)
    assert all(len(numbers) == 1 for numbers in by_text.values())


@pytest.mark.parametrize("text", ["goto pc+1", "r1 = *(u64 *)(r6 +4)", "call", "w1 = w2"])
def test_an_instruction_that_the_guide_does_not_have_is_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match="not known"):
        guide_stream._assembled(text, 7)


def test_states_are_set_aside_and_nothing_else() -> None:
    log = "\n".join(
        ["func#0 @0", "0: R1=ctx() R10=fp0", "; int f(void *p) @ guide.c:1", "0: (bf) r6 = r1   ; R1=ctx() R6=ctx()",
         "mark_precise: frame0: last_idx 3 first_idx 0", "1: (85) call f#1", "unknown func f#1"]
    )  # fmt: skip
    bare = guide_stream._bare(log)
    assert bare == ["; int f(void *p)", "0: (bf) r6 = r1", "1: (85) call f#1", "unknown func f#1"]


def test_call_after_the_cut_is_the_fourteenth_helper() -> None:
    assert slots(call(guide_stream.PID_TGID) + ALLOW)[0] == (0x85, 0, 0, 0, 14)


def test_type_information_has_a_header_that_fits_its_sections() -> None:
    strings = btf._Strings()
    raw = btf._btf("connect4", strings)
    magic, version, _, header, types_at, types, strings_at, length = struct.unpack_from("=HBBIIIII", raw)
    assert (magic, version, header, types_at) == (0xEB9F, 1, 24, 0)
    assert types_at + types == strings_at
    assert header + types + length == len(raw)
    assert raw[header + strings_at :][:1] == b"\0"
    assert b"\0connect4\0" in raw
