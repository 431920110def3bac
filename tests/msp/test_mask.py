"""The comparison with the guide: what is masked, and that nothing else is."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from harness.msp import guide, mask, messages, status


def guide_log() -> list[str]:
    read = status.read(guide.excerpt(guide.LOAD_EXCERPT))
    assert read is not None
    message = messages.parse(read.modules[0].message or "")
    assert message is not None
    return message.fields["log"].split("\n")


def test_what_differs_from_boot_to_boot_is_masked() -> None:
    assert mask.masked("14: (18) r1 = 0xffff8baa17403400") == "14: (18) r1 = <address>"
    assert mask.masked("R0=map_value_or_null(id=12,off=0)") == "R0=map_value_or_null(id=<id>,off=0)"
    assert mask.masked(
        "processed 24 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 3 mark_read 1"
    ) == (
        "processed <number> insns (limit 1000000) max_states_per_insn <number> total_states <number> "
        "peak_states <number> mark_read <number>"
    )
    assert mask.masked("verification time 193 usec") == "verification time <time> usec"


def test_nothing_else_is() -> None:
    for line in (
        "3: (63) *(u32 *)(r10 -44) = r1",
        "1: (85) call bpf_get_socket_cookie#46",
        "regs=2 stack=0 before 2: (b7) r1 = 0",
        "R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        "(limit 1000000)",
        "stack depth 56",
    ):
        assert mask.masked(line) == line


@given(st.text(st.characters(categories=("Ll", "Lu", "Zs", "Nd"), max_codepoint=126)))
def test_lines_without_a_marker_stay(line: str) -> None:
    if not re.search(r"0x|id=|usec|processed|states|peak|mark", line):
        assert mask.masked(line) == line.rstrip()


def test_the_mask_is_printed() -> None:
    assert all(row.why in mask.mask_text() and row.pattern in mask.mask_text() for row in mask.MASKS)


def test_the_guide_is_like_itself() -> None:
    comparison = mask.diff(guide_log(), guide_log())
    assert comparison.similarity == 1
    assert comparison.same == len(guide_log())
    assert all(line.startswith("  ") for line in comparison.text.split("\n"))


def test_another_boot_is_the_same_and_another_program_is_not() -> None:
    ours = [line.replace("0xffff8baa17403400", "0xffff888104d2d200") for line in guide_log()[:-1]]
    ours += ["16: (85) call bpf_map_lookup_elem#1", "17: (bf) r7 = r0", "unknown func bpf_get_current_pid_tgid#14"]
    assert mask.diff(guide_log(), ours).similarity == 1
    ours[3] = "1: (85) call bpf_get_prandom_u32#7"
    comparison = mask.diff(guide_log(), ours)
    assert comparison.same == comparison.guide_total - 1
    assert "- 1: (85) call bpf_get_socket_cookie#46" in comparison.text
    assert "+ 1: (85) call bpf_get_prandom_u32#7" in comparison.text


def test_lines_that_only_we_have_do_not_lower_the_similarity() -> None:
    ours = ["0: R1=ctx() R10=fp0", *guide_log()]
    assert mask.diff(guide_log(), ours).similarity == 1


@given(st.lists(st.text(max_size=20), max_size=20), st.lists(st.text(max_size=20), max_size=20))
def test_similarity_is_between_nothing_and_all(one: list[str], other: list[str]) -> None:
    assert 0 <= mask.diff(one, other).similarity <= 1
