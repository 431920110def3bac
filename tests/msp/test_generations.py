"""Every difference between the guide's log and a real kernel's is named; what no generation explains is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.failures import wording
from harness.failures.model import Family
from harness.msp import generations
from harness.msp.generations import GENERATIONS

_message = wording.guides_message(Family.LOAD)
assert _message is not None
GUIDE = _message.fields["log"].splitlines()

# What real kernels print at instruction 3 (log level as named), and which rows say why.
SEEN = {
    "5.10": (
        ["3: (63) *(u32 *)(r10 -44) = r1", "last_idx 3 first_idx 0", "regs=2 stack=0 before 2: (b7) r1 = 0",
         "4: (63) *(u32 *)(r10 -48) = r1", "last_idx 4 first_idx 0",
         "regs=2 stack=0 before 3: (63) *(u32 *)(r10 -44) = r1", "regs=2 stack=0 before 2: (b7) r1 = 0"],
        {"precision again"},
    ),
    "6.1 at level 1": (
        ["3: (63) *(u32 *)(r10 -44) = r1        ; R1_w=0 R10=fp0 fp-48=0000????", "4: (63) *(u32 *)(r10 -48) = r1"],
        {"precision hidden"},
    ),
    "6.12 at level 2": (
        ["3: (63) *(u32 *)(r10 -44) = r1", "mark_precise: frame0: last_idx 3 first_idx 0 subseq_idx -1 ",
         "mark_precise: frame0: regs=r1 stack= before 2: (b7) r1 = 0", "4: R1_w=0 R10=fp0 fp-48=0000????",
         "4: (63) *(u32 *)(r10 -48) = r1        ; R1_w=0 R10=fp0 fp-48=00000"],
        {"precision", "state"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kernel", SEEN)
def test_a_real_kernels_differences_are_named(kernel: str) -> None:
    ours, names = SEEN[kernel]
    guide = GUIDE[GUIDE.index("3: (63) *(u32 *)(r10 -44) = r1") :][:4]
    found = generations.named(guide, ours)
    assert found.unexplained == []
    assert {one.row.name for one in found.differences if one.row} == names


def test_the_guide_beside_itself() -> None:
    found = generations.named(GUIDE, [line.replace("cal...", "call bpf_map_lookup_elem#1") for line in GUIDE])
    assert (found.differences, found.parts) == ([], ())
    assert found.comparison.same == len(GUIDE)
    assert all(line.startswith("  ") for line in found.text.splitlines())


@pytest.mark.parametrize("number", range(len(GUIDE)))
def test_a_line_that_is_changed_is_not_explained_away(number: int) -> None:
    """Unless only how precision is told, which other generations leave out."""
    if GUIDE[number].startswith(("last_idx", "regs=")):
        pytest.skip("newer kernels do not print it")
    ours = [*GUIDE[:number], "99: (95) exit", *GUIDE[number + 1 :]]
    found = generations.named(GUIDE, ours)
    assert any("99: (95) exit" in line for line in found.unexplained)
    assert "[not explained]" in found.text


@given(st.lists(st.text(max_size=60), max_size=12), st.lists(st.text(max_size=60), max_size=12))
def test_any_two_logs_can_be_compared(guide: list[str], ours: list[str]) -> None:
    found = generations.named(guide, ours)
    assert found.text.count("[not explained]") >= len(found.unexplained)
    assert len(found.differences) == sum(not line.same for line in found.comparison.lines)


def test_names_are_unique() -> None:
    assert len({row.name for row in GENERATIONS}) == len(GENERATIONS)
