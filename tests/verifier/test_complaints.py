"""The catalogue: complete, linear, and checked against the running kernel row by row."""

from __future__ import annotations

import os
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.verifier import complaints
from harness.verifier.complaints import Complaint
from harness.verifier.parse import parse
from tests.verifier.provoke import PROVOCATIONS, provoke, provoke_btf, row_of

ROWS = {row.id: row for row in complaints.rows()}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")


def test_there_are_at_least_forty_rows_and_no_name_twice() -> None:
    assert len(ROWS) == len(complaints.rows()) >= 40


@pytest.mark.parametrize("row", complaints.rows(), ids=lambda row: row.id)
def test_a_row_is_complete(row: Complaint) -> None:
    assert row.patterns
    assert row.causes
    assert all((row.says, row.change, row.required, row.found))
    groups = {name for pattern in row.patterns for name in re.compile(pattern).groupindex}
    for text in (row.says, row.required, row.found):
        named = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        assert named <= groups, "a brace without a group of that name"


@pytest.mark.parametrize("row", complaints.rows(), ids=lambda row: row.id)
def test_a_row_is_provoked_or_says_why_not(row: Complaint) -> None:
    provoked = {row_of(name) for name in PROVOCATIONS} | {"btf-type"}
    assert (row.id in provoked) != bool(row.unprovoked)


@pytest.mark.kernel
@needs_root
@pytest.mark.parametrize("name", PROVOCATIONS)
@pytest.mark.parametrize("log_level", [1, 2])
def test_the_running_kernels_words_are_found(name: str, log_level: int) -> None:
    log = parse(provoke(PROVOCATIONS[name], log_level))
    found = complaints.find(log.complaint)
    assert found is not None, log.complaint
    assert found.row.id == row_of(name)
    assert not log.truncated


@pytest.mark.kernel
@needs_root
def test_the_running_kernels_words_about_btf_are_found() -> None:
    found = complaints.find(parse(provoke_btf()).complaint)
    assert found is not None
    assert found.row.id == "btf-type"


# The wording of kernels that are not here, from their source: (line, row, what was found).
OTHER_KERNELS = [
    ("unknown func bpf_get_current_pid_tgid#14", "helper-not-allowed", "a call to bpf_get_current_pid_tgid (#14)"),
    ("R0 invalid mem access 'inv'", "not-a-pointer", "inv in R0"),
    ("R1 type=inv expected=fp, pkt, pkt_meta, map_key, map_value", "argument-type", "inv"),
    ("back-edge from insn 12 to 3", "back-edge", "a jump from 12 to 3"),
    ("invalid stack off=-520 size=8", "stack-out-of-bounds", "offset -520, size 8"),
    ("invalid indirect read from stack off -16+4 size 24", "stack-not-initialised", "bytes that were never written"),
    ("invalid indirect read from stack R2 off -16+4 size 24", "stack-not-initialised", "bytes that were never written"),
    ("invalid read from stack off -8+0 size 8", "stack-not-initialised", "bytes that were never written"),
    ("BPF program is too large. Processed 131073 insn", "too-large", "131073"),
    ("BPF_XADD stores into R1 ctx is not allowed", "context-store", "another kind of store to ctx"),
    ("cannot call GPL only function from proprietary program", "gpl-only", "another licence"),
    (
        "At program exit the register R0 has value (0x2; 0x0) should have been in (0x0; 0x1)",
        "return-value",
        "value (0x2; 0x0)",
    ),
    ("R1 bitwise operator &= on pointer prohibited", "pointer-operator", "&= on ?"),
    ("R1 pointer arithmetic with &= operator prohibited", "pointer-operator", "&= on ?"),
    ("Unreleased reference id=1, alloc_insn=7", "reference-leak", "reference 1 of instruction 7 still held"),
    ("misaligned stack access off (0x0; 0x0)+-17+0 size 8", "alignment", "(0x0; 0x0)+-17+0"),
    ("calling kernel function bpf_foo is not allowed", "kfunc-not-a-function", "bpf_foo (BTF id ?)"),
]


@pytest.mark.parametrize(("line", "row", "what"), OTHER_KERNELS)
def test_the_words_of_other_kernels_are_found(line: str, row: str, what: str) -> None:
    found = complaints.find([line])
    assert found is not None
    assert (found.row.id, found.found) == (row, what)


@given(st.text(max_size=300))
def test_any_line_has_an_answer(line: str) -> None:
    found = complaints.find([line])
    assert found is None or (found.says and found.required and found.found)


def test_an_ordinary_line_is_no_complaint() -> None:
    assert (
        complaints.find(["0: (bf) r6 = r1", "; int connect4(struct bpf_sock_addr *ctx)", "processed 5 insns"]) is None
    )
