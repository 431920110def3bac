"""The parser of verifier logs: every form, every way a log reaches us, and anything else without an exception."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.msp import guide
from harness.verifier.log import Log
from harness.verifier.parse import parse

# A refusal in the forms of four generations.
OLD = """0: (bf) r6 = r1
1: (85) call bpf_get_socket_cookie#46
2: (55) if r0 != 0x0 goto pc+2
 R0=inv0 R1=ctx(id=0,off=0,imm=0) R10=fp0,call_-1
3: (b7) r0 = 1
4: (95) exit

from 2 to 5: R0=inv(id=0) R6=ctx(id=0,off=0,imm=0) R10=fp0,call_-1
5: (61) r0 = *(u32 *)(r1 +0)
R1 !read_ok
processed 6 insns (limit 131072), stack depth 56
"""
MIDDLE = """; int connect4(struct bpf_sock_addr *ctx)
0: (bf) r6 = r1
; __u64 cookie = bpf_get_socket_cookie(ctx);
1: (85) call bpf_get_socket_cookie#46
2: (b7) r1 = 0
3: (63) *(u32 *)(r10 -44) = r1
last_idx 3 first_idx 0
regs=2 stack=0 before 2: (b7) r1 = 0
4: (85) call bpf_get_current_pid_tgid#14
unknown func bpf_get_current_pid_tgid#14
processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
NEW = """func#0 @0
Live regs before insn:
      0: .1........ (bf) r6 = r1
      1: .1....6... (85) call bpf_get_socket_cookie#46
0: R1=ctx() R10=fp0
; int connect4(struct bpf_sock_addr *ctx) @ connect4.c:40
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
1: (85) call bpf_get_socket_cookie#46 ; R0=scalar()
2: (63) *(u32 *)(r10 -44) = r1
mark_precise: frame0: last_idx 3 first_idx 0 subseq_idx -1
mark_precise: frame0: regs=r1 stack= before 2: (b7) r1 = 0
3: (18) r1 = 0xffff8baa17403400       ; R1_w=map_ptr(map=policy_map,ks=24,vs=24)
5: (85) call bpf_map_lookup_elem#1    ; R0_w=map_value_or_null(id=1,map=policy_map,ks=24,vs=24)
6: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
verification time 193 usec
stack depth 56
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
# The form of kernel/bpf/diagnostics.c; the text is that of a public issue of a library that parses it.
REPORT = """0: R1=ctx() R10=fp0
0: (95) exit
R0 !read_ok

Verification failed: Register Type Safety: Unreadable register

Reason:
  R0 has never been initialized on this path, so the verifier cannot use it as an input.

At:
  insn 0
        | ^-- error: R0 is not readable
  Instruction context:
  >>> 0 | (95) exit

Causal path:
  no retained diagnostic events on this path

Suggestion:
  Initialize R0 on every path before this instruction.

processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
FORMS = {"4.17": OLD, "5.10": MIDDLE, "6.18": NEW, "7.3": REPORT}


def reading(log: Log) -> tuple[object, ...]:
    """What must not depend on how the log reached us."""
    return (
        [(row.number, row.opcode, row.text, row.state) for row in log.instructions],
        [source for _, source in log.sources],
        list(log.complaint),
        dict(log.statistics),
        log.failing_index,
        log.generation,
        log.truncated,
    )


def test_old_form() -> None:
    log = parse(OLD)
    assert [row.number for row in log.instructions] == [0, 1, 2, 3, 4, 5]
    assert log.states[-1].origin == 2
    assert log.states[-1].registers["R10"] == "fp0,call_-1"
    assert log.complaint == ("R1 !read_ok",)
    assert log.failing is not None
    assert log.failing.text == "r0 = *(u32 *)(r1 +0)"
    assert log.statistics == {"insns": 6, "limit": 131072, "stack_depth": 56}
    assert log.generation.text == "4.16 to 5.1"
    assert not log.truncated


def test_form_of_5_3_to_5_16() -> None:
    log = parse(MIDDLE)
    assert [(number, call.name, call.number) for number, call in log.calls] == [
        (1, "bpf_get_socket_cookie", 46),
        (4, "bpf_get_current_pid_tgid", 14),
    ]
    assert log.complaint == ("unknown func bpf_get_current_pid_tgid#14",)
    assert log.failing_index == 4
    assert (log.generation.first, log.generation.last) == ((5, 3), (5, 16))
    assert log.program == "connect4"


def test_form_of_6_18() -> None:
    log = parse(NEW)
    assert [row.number for row in log.instructions] == [0, 1, 2, 3, 5, 6]
    assert log.instructions[3].registers == {"R1": "map_ptr(map=policy_map,ks=24,vs=24)"}
    assert log.sources[0][1].endswith("@ connect4.c:40")
    assert log.complaint == ("R0 invalid mem access 'map_value_or_null'",)
    assert (log.statistics["verification_usec"], log.statistics["stack_depth"]) == (193, 56)
    assert log.generation.first == (6, 15)


def test_report_of_7_3() -> None:
    log = parse(REPORT)
    assert log.refusal is not None
    assert (log.refusal.category, log.refusal.problem) == ("Register Type Safety", "Unreadable register")
    assert log.refusal.sections["Suggestion"] == "Initialize R0 on every path before this instruction."
    assert log.complaint == ("R0 !read_ok",)
    assert log.failing_index == 0
    assert log.generation.text == "7.3 or later"


def test_the_guides_excerpt_ends_inside_instruction_16() -> None:
    log = parse(guide.excerpt(guide.LOAD_EXCERPT))
    assert [row.number for row in log.instructions] == [*range(15), 16]
    last = log.instructions[-1]
    assert (last.opcode, last.cut, last.call) == (0x85, True, None)
    assert log.truncated
    assert not log.complaint
    assert log.program == "connect4"
    assert (log.generation.first, log.generation.last) == ((5, 3), (5, 16))


def _wrapped(text: str, width: int) -> str:
    lines = [
        textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""] for line in text.split("\n")
    ]
    return "\n".join(piece for pieces in lines for piece in pieces)


WAYS: dict[str, Callable[[str], str | bytes]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON twice": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "mail": lambda text: "\n".join("> " + line for line in text.split("\n")),
    "mail twice": lambda text: "\n".join("> > " + line for line in text.split("\n")),
    "journald": lambda text: "\n".join(
        "Nov 24 15:04:00 vm azure-proxy-agent[812]: " + line for line in text.split("\n")
    ),
    "agent's log": lambda text: "\n".join("2026-11-24T15:04:00.123Z [INFO] " + line for line in text.split("\n")),
    "dmesg": lambda text: "\n".join(f"[   12.{number:06}] {line}" for number, line in enumerate(text.split("\n"))),
    "smart quotes": lambda text: text.replace("'", "\u2019").replace(" ", "\u00a0", 3),
    "BOM": lambda text: "\ufeff" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "bytes": lambda text: text.encode(),
    "agent's message": lambda text: (
        "Failed to start redirector: Failed to load program 'connect4' with error: "
        "the BPF_PROG_LOAD syscall failed. Verifier output: " + text
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_the_way_a_log_came_changes_nothing(form: str, way: str) -> None:
    assert reading(parse(WAYS[way](FORMS[form]))) == reading(parse(FORMS[form]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [72, 76, 80])
@pytest.mark.parametrize("quote", ["", "> "])
def test_lines_wrapped_by_a_mail_client_are_joined(form: str, width: int, quote: str) -> None:
    wrapped = "\n".join(quote + line for line in _wrapped(FORMS[form], width).split("\n"))
    log, whole = parse(wrapped), parse(FORMS[form])
    assert [(row.number, row.opcode, row.text) for row in log.instructions] == [
        (row.number, row.opcode, " ".join(row.text.split())) for row in whole.instructions
    ]
    assert log.complaint == whole.complaint
    assert log.statistics == whole.statistics


def test_a_line_end_inside_a_source_line_is_not_unescaped() -> None:
    text = '; bpf_printk("one\\n2: (95) exit\\n");\n' + NEW
    assert parse(text).sources[0][1].startswith('bpf_printk("one\\n2: (95)')


def test_libbpf_is_recognised_around_the_log() -> None:
    text = (
        "libbpf: prog 'tcp_v4_connect': BPF program load failed: Permission denied\n"
        "libbpf: prog 'tcp_v4_connect': -- BEGIN PROG LOAD LOG --\n" + NEW + "-- END PROG LOAD LOG --\n"
        "libbpf: prog 'tcp_v4_connect': failed to load: -13\nlibbpf: failed to load object 'x'\n"
    )
    log = parse(text)
    assert log.program == "tcp_v4_connect"
    assert reading(log) == reading(parse(NEW))
    assert len(log.loader) == 5


def test_of_several_logs_of_libbpf_the_last_is_read() -> None:
    begin, end = "libbpf: prog '{}': -- BEGIN PROG LOAD LOG --\n", "-- END PROG LOAD LOG --\n"
    for other in (OLD, REPORT):
        log = parse(
            begin.format("one") + other + end + begin.format("two") + NEW + end + "libbpf: failed to load\nbye\n"
        )
        assert log.program == "two"
        assert reading(log) == reading(parse(NEW))


def test_what_comes_after_the_statistics_is_no_complaint() -> None:
    assert reading(parse(NEW + "something else\nand more\n")) == reading(parse(NEW))


def test_a_log_of_no_instructions_has_its_complaint() -> None:
    log = parse("unreachable insn 3\nprocessed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0\n")
    assert (log.complaint, log.failing, log.failing_index) == (("unreachable insn 3",), None, 3)


def test_contradictory_signs_give_no_range() -> None:
    assert parse("0: R1=ctx() R10=fp0,call_-1\n0: (95) exit\n").generation.contradictory


def test_a_log_without_its_beginning_says_so() -> None:
    assert parse("812: (95) exit\nR0 !read_ok\nprocessed 5 insns (limit 1000000)\n").head_missing


@given(st.one_of(st.text(), st.binary()))
def test_nothing_makes_it_raise(data: str | bytes) -> None:
    log = parse(data)
    _ = [(row.call, row.registers) for row in log.instructions], [row.registers for row in log.states], log.calls


PIECES = [
    *"".join(FORMS.values()).split("\n"),
    "...",
    "\\n",
    "\\\\n",
    '"',
    "> ",
    "Verifier output: ",
    "\r",
    "\u201c",
    "16: (8",
    "R",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from(["\n", "\\n", " ", ""]))
def test_nothing_that_looks_like_a_log_makes_it_raise(pieces: list[str], joint: str) -> None:
    log = parse(joint.join(pieces))
    _ = [(row.call, row.registers) for row in log.instructions], [row.registers for row in log.states], log.calls


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["", "..."])
def test_truncation_anywhere_keeps_a_prefix_of_the_instructions(form: str, mark: str) -> None:
    text = FORMS[form]
    whole = parse(text)
    for at in range(len(text)):
        cut = parse(text[:at] + mark)
        count = len(cut.instructions)
        assert count <= len(whole.instructions)
        before = max(count - 1, 0)
        assert [(row.number, row.text) for row in cut.instructions[:before]] == [
            (row.number, row.text) for row in whole.instructions[:before]
        ]
        if not count:
            continue
        last, same = cut.instructions[-1], whole.instructions[count - 1]
        assert last.number == same.number
        assert last.call is None or last.call == same.call or not last.cut
        assert cut.truncated or "processed" in text[:at]


def test_a_cut_log_without_instructions_is_cut_as_well() -> None:
    log = parse("func#0 @0\nLive regs before insn:\n      0: .1.......... (bf) r6 = ...")
    assert log.truncated
    assert parse("magic: 0xeb9f\nversion: 1\nfla...").truncated


def test_backtracking_dates_a_log_that_has_states_too() -> None:
    text = (
        "0: R1=ctx(id=0,off=0,imm=0) R10=fp0\n0: (b7) r1 = 0\n1: (63) *(u32 *)(r10 -4) = r1\nlast_idx 1 first_idx 0\n"
    )
    generation = parse(text).generation
    assert (generation.first, generation.last) == ((5, 3), (5, 17))


@pytest.mark.parametrize(
    "row", ["1: (bf) r6 = r1 ; R6=ctx()\n", "; x\n", "\n", "\\", ">", "> ", "\\n", "a ", "1", "R0=", "(", '"']
)
def test_work_grows_with_the_input_and_no_faster(row: str, counted: Counted) -> None:
    """Counted in lines of Python run, not in time: sixteen times the input, at most about that much work."""
    small, large = counted(parse, row * 500), counted(parse, row * 8000)
    assert large <= 17 * small + 2000


class Counted:
    """Counts the line events of a call."""

    def __call__(self, function: object, text: str) -> int:
        import sys

        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            function(text)  # type: ignore[operator]
        finally:
            sys.settrace(before)
        return count


@pytest.fixture
def counted() -> Counted:
    return Counted()
