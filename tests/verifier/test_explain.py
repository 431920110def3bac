"""explain: from whatever is pasted to a code, the lines that matter and what to do; and no guess where none is due."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.msp import codes, guide, messages, status, verifier_codes
from harness.msp.messages import Form
from harness.report.console import console
from harness.report.model import Outcome
from harness.verifier import attach, elf, explanation, helpers, sequence
from harness.verifier.explain import explain_text
from harness.verifier.explanation import Explanation
from harness.verifier.parse import parse
from harness.verifier.sequence import Step
from tests.verifier.test_parse import FORMS, MIDDLE, NEW, REPORT


def one(data: str | bytes, **more: object) -> Explanation:
    (explained,) = explain_text(data, **more)  # type: ignore[arg-type]
    return explained


def everything(explained: Explanation) -> str:
    return json.dumps(explanation.to_json(explained))


# --- the guide's excerpts -----------------------------------------------------------------------------------------


def test_the_guides_log_ends_in_pid_tgid_and_5_7_and_not_in_5_15() -> None:
    explained = one(guide.excerpt_bytes(guide.LOAD_EXCERPT))
    assert explained.code is verifier_codes.TRUNCATED
    assert explained.subject == "ebpfProgramStatus"
    assert "bpf_get_current_pid_tgid" in explained.summary
    assert "5.3 to 5.6" in explained.summary
    assert "5.15" not in explained.summary
    assert explained.kernel == "5.3 to 5.16"
    assert [ask.command for ask in explained.asks] == ["uname -r"]
    assert "5.7" in explained.asks[0].asks
    assert explained.lines[-1] == "16: (85) cal..."
    (suspect,) = [text for text in explained.possible if "is refused to connect4" in text]
    assert "bpf_get_current_pid_tgid" in suspect
    passed = [text for text in explained.certain if "Nothing called up to there" in text]
    assert "bpf_get_socket_cookie, bpf_map_lookup_elem" in passed[0]


@pytest.mark.parametrize(("release", "verdict"), [("5.4.0-1109-azure", True), ("5.7.0", False), ("5.15.0-1", False)])
def test_the_release_answers_the_question(release: str, verdict: bool) -> None:
    explained = one(guide.excerpt(guide.LOAD_EXCERPT), release=release)
    assert [ask.verdict for ask in explained.asks] == [verdict]


def guide_log() -> str:
    read = status.read(guide.excerpt(guide.LOAD_EXCERPT))
    assert read is not None
    return read.modules[0].message or ""


@pytest.mark.parametrize("cut", range(380, 900, 40))
def test_it_is_reasoned_and_not_looked_up(cut: int) -> None:
    """The guide's log cut elsewhere, with other numbers: the same suspect, as long as its first call is in it."""
    text = guide_log()[:cut].replace("r10 -44", "r10 -60").replace("0xffff8baa17403400", "0xffff888100000000")
    explained = one(text + "...")
    assert "bpf_get_current_pid_tgid" in explained.summary


@pytest.mark.parametrize("width", [60, 72, 78, 100])
@pytest.mark.parametrize("quote", ["", "> ", ">> "])
def test_a_mail_of_it_is_read_as_well(width: int, quote: str) -> None:
    lines = [textwrap.wrap(line, width, break_long_words=False) or [""] for line in
             guide.excerpt(guide.LOAD_EXCERPT).split("\n")]  # fmt: skip
    explained = one("\n".join(quote + piece for pieces in lines for piece in pieces))
    assert "bpf_get_current_pid_tgid (kernels 5.3 to 5.6)" in explained.summary
    assert explained.lines[-1] == "16: (85) cal..."


def test_a_cut_before_the_first_call_is_no_ground_for_a_guess() -> None:
    text = guide_log()
    explained = one(text[: text.index("1: (85)")] + "...")
    assert "pid_tgid" not in everything(explained)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("connect4", "sock4_connect"),  # another name
        ("bpf_get_socket_cookie#46", "bpf_get_prandom_u32#7"),  # another first call
        ("destination_entry", "lb4_key"),  # another product's names; see below for policy_map
    ],
)
def test_another_programs_cut_log_gets_no_guess(old: str, new: str) -> None:
    text = guide_log().replace(old, new).replace("policy_map", "lb_map" if old == "destination_entry" else "policy_map")
    explained = one(text)
    assert explained.code is verifier_codes.TRUNCATED
    assert "pid_tgid" not in everything(explained)
    assert "cannot be told" in explained.summary
    assert explained.asks == ()


def test_a_newer_form_has_no_suspect() -> None:
    log = "0: R1=ctx() R10=fp0\n" + guide_log().split("output: ")[1].replace(
        "last_idx", "mark_precise: frame0: last_idx"
    )
    text = "Failed to load program 'connect4' with error: the BPF_PROG_LOAD syscall failed. Verifier output: " + log
    explained = one(text)
    assert explained.code is verifier_codes.TRUNCATED
    assert "nothing that" in explained.summary
    assert "is refused to connect4" not in everything(explained)


# --- with an object -----------------------------------------------------------------------------------------------

STEPS = [Step(1, 46), Step(16, 1), Step(20, 6), Step(25, 14), Step(33, 1), Step(40, 15), Step(52, 125)]


def test_an_object_gives_the_instructions_after_the_cut() -> None:
    explained = one(guide_log(), steps=STEPS, object_name="ebpf_cgroup.o")
    suspects = [text for text in explained.possible if "is refused to connect4" in text]
    assert [text.split(" (")[0] for text in suspects] == ["bpf_get_current_pid_tgid", "bpf_ktime_get_boot_ns"]
    assert "instruction 25" in suspects[0]
    assert "5.3 to 5.6" in suspects[0]
    assert "instruction 52" in suspects[1]
    assert "5.3 to 5.7" in suspects[1]


@pytest.mark.parametrize("steps", [[Step(1, 7), Step(16, 1)], [Step(2, 46)], []])
def test_another_object_is_said_to_be_another(steps: list[Step]) -> None:
    explained = one(guide_log(), steps=steps, object_name="ebpf_cgroup.o")
    assert "not a log of ebpf_cgroup.o" in explained.summary
    assert "pid_tgid" not in everything(explained)


def an_object(code: bytes, section: bytes = b"cgroup/connect4", machine: int = 247, order: str = "<") -> bytes:
    """A minimal ELF64 object with one program."""
    names = b"\0" + section + b"\0.shstrtab\0"
    header = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    at_code, at_names = 64, 64 + len(code)
    table = at_names + len(names)
    header += struct.pack(order + "HHIQQQIHHHHHH", 1, machine, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)

    def entry(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack(order + "IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 0, 0)

    headers = entry(0, 0, 0, 0) + entry(1, 1, at_code, len(code)) + entry(len(section) + 2, 3, at_names, len(names))
    return header + code + names + headers


def ins(code: int, src: int = 0, imm: int = 0, order: str = "<") -> bytes:
    return struct.pack(order + "BBhi", code, src << 4 if order == "<" else src, 0, imm)


@pytest.mark.parametrize("order", ["<", ">"])
def test_calls_are_read_from_an_object(order: str) -> None:
    rows = [(0xBF, 0, 0), (0x85, 0, 46), (0x18, 1, 5), (0x85, 0, 0), (0x85, 0, 1), (0x85, 1, 3), (0x85, 2, 9)]
    code = b"".join(ins(opcode, source, number, order=order) for opcode, source, number in rows)
    assert elf.calls_of(an_object(code, order=order)) == [Step(1, 46), Step(4, 1)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a 64-bit ELF"),
        (b"\x7fELF" + bytes(100), "not a 64-bit ELF"),
        (an_object(b"", machine=62), "machine 62"),
        (an_object(b"", section=b"xdp"), "no section"),
        (an_object(b"")[:150], "damaged"),
    ],
)
def test_a_file_that_is_no_such_object_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(data)
    with pytest.raises(HarnessError, match=says):
        elf.read_calls(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="ENOENT"):
        elf.read_calls(tmp_path / "x.o")


@given(st.binary(max_size=400), st.integers(0, 400))
def test_a_damaged_object_is_refused_and_nothing_else(noise: bytes, at: int) -> None:
    data = an_object(ins(0x85, 0, 1))
    for damaged in (noise, data[:at] + noise + data[at + len(noise) :], data[:at]):
        with contextlib.suppress(ValueError):
            elf.calls_of(damaged)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (MIDDLE, verifier_codes.HELPER_NOT_ALLOWED, "4: (85) call bpf_get_current_pid_tgid#14"),
        (NEW, verifier_codes.NULL_CHECK_MISSING, "6: (79) r1 = *(u64 *)(r0 +0)"),
        (REPORT, verifier_codes.UNINITIALISED_REGISTER, "0: (95) exit"),
        (FORMS["4.17"], verifier_codes.UNINITIALISED_REGISTER, "5: (61) r0 = *(u32 *)(r1 +0)"),
    ],
)
def test_a_refusal_shows_the_two_lines_that_matter(text: str, code: codes.Code, line: str) -> None:
    explained = one(text)
    assert explained.code is code
    assert explained.outcome is Outcome.FAIL
    assert explained.lines[0] == line
    assert len(explained.lines) == 2
    assert explained.required
    assert explained.found
    assert explained.causes


def test_a_refused_helper_names_the_version_that_allows_it() -> None:
    explained = one("unknown func bpf_get_current_pid_tgid#14")
    assert explained.code is verifier_codes.HELPER_NOT_ALLOWED
    assert any("since 5.7" in text for text in explained.certain)


def test_the_report_of_7_3_is_handed_on() -> None:
    explained = one(REPORT)
    assert explained.says["Suggestion"] == "Initialize R0 on every path before this instruction."
    unknown = one(REPORT.replace("R0 !read_ok\n", ""))
    assert unknown.code is verifier_codes.NOT_A_POINTER  # by the report's category
    assert unknown.help == "Initialize R0 on every path before this instruction."


def test_an_unknown_complaint_is_said_to_be_unknown() -> None:
    explained = one(NEW.replace("R0 invalid mem access 'map_value_or_null'", "the moon is not in the right phase"))
    assert explained.code is verifier_codes.UNKNOWN_COMPLAINT
    assert explained.lines[-1] == "the moon is not in the right phase"


def test_a_log_without_complaint_is_an_accepted_program() -> None:
    text = (
        "0: R1=ctx() R10=fp0\n0: (b7) r0 = 1\n1: (95) exit\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n"
    )
    assert one(text).code is verifier_codes.ACCEPTED


# --- attach -------------------------------------------------------------------------------------------------------


def test_a_failed_attach_lists_each_cause_with_what_decides_it() -> None:
    explained = one(guide.excerpt(guide.ATTACH_EXCERPT))
    assert explained.code is codes.ATTACH_FAILED_UNKNOWN
    commands = [ask.command for ask in explained.asks]
    for command in (*guide.CGROUP_QUESTIONS, "findmnt -t cgroup2", "bpftool cgroup tree", "uname -r"):
        assert command in commands
    assert commands[:2] == list(guide.CGROUP_QUESTIONS)
    assert all("MSP-A" in ask.decides for ask in explained.asks)


GOOD = {
    "release": "6.1.0-56-cloud-amd64",
    "filesystems": "nodev\tcgroup\nnodev\tcgroup2\n",
    "mounts": "cgroup2 on /sys/fs/cgroup type cgroup2 (rw,nosuid,nodev,noexec,relatime)\n",
    "findmnt": "TARGET         SOURCE FSTYPE  OPTIONS\n/sys/fs/cgroup cgroup2 cgroup2 rw,nosuid\n",
    "tree": "CgroupPath\nID AttachType AttachFlags Name\n/sys/fs/cgroup\n    7  cgroup_inet4_connect4 multi  x\n",
    "capabilities": "CapEff:\t000001ffffffffff\n",
    "count": "ID AttachType\n7 connect4 multi x\n",
}
HYBRID = "TARGET SOURCE FSTYPE\n\u2514\u2500/sys/fs/cgroup/unified cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"filesystems": "nodev\tcgroup\n"}, codes.NO_CGROUP2_IN_KERNEL),
        ({"mounts": ""}, codes.NO_CGROUP2_MOUNTED),
        ({"findmnt": HYBRID}, codes.CGROUP2_ELSEWHERE),
        ({"findmnt": "/run/cilium/cgroupv2 none cgroup2 rw\n/sys/fs/cgroup cgroup2 cgroup2 rw\n"}, codes.NOT_CGROUP2),
        ({"tree": "    7  cgroup_inet4_connect4   x\n"}, codes.EXCLUSIVE_PROGRAM),
        ({"capabilities": "CapEff:\t0000000000001000\n"}, codes.NO_PRIVILEGE_TO_ATTACH),
        ({"count": "7 connect4 multi x\n" * 64}, codes.TOO_MANY_PROGRAMS),
        ({"cgroup": "ls: cannot access '/sys/fs/cgroup/x': No such file or directory"}, codes.CGROUP_REMOVED),
        ({"release": "5.4.0-1109-azure"}, codes.CONTRADICTORY_KERNEL),
        ({}, codes.ATTACH_FAILED_UNKNOWN),
    ],
)
def test_one_bad_answer_among_good_ones_decides(answers: dict[str, str], code: codes.Code) -> None:
    assert one(guide.excerpt(guide.ATTACH_EXCERPT), answers={**GOOD, **answers}).code is code


def test_an_errno_in_the_text_narrows_the_causes() -> None:
    text = "Failed to attach program 'connect4' with error: Operation not permitted (os error 1)"
    explained = one(text)
    still = [ask.decides for ask in explained.asks if ask.verdict is None]
    assert [decides.split()[0] for decides in still] == [codes.EXCLUSIVE_PROGRAM.id, codes.NO_PRIVILEGE_TO_ATTACH.id]


@given(st.dictionaries(st.sampled_from([question.id for question in attach.QUESTIONS]), st.text()))
def test_any_answer_is_weighed(answers: dict[str, str]) -> None:
    rows = attach.weigh(answers)
    assert len(rows) == len(attach.CAUSES)


# --- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", Form)
def test_every_form_of_message_has_a_code(form: Form) -> None:
    names = ("name", "map", "what", "path", "guid", "step", "status", "log", "error")
    fields = {name: {"status": "403", "step": "acquire", "log": ""}.get(name, "x") for name in names}
    explained = one(messages.render(form, **fields))  # type: ignore[arg-type]
    assert explained.code is not codes.UNKNOWN_MESSAGE
    assert explained.help


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('Failed to acquire key details: Key(KeyResponse("acquire", 403))', codes.KEY_NOT_OFFERED),
        ('Failed to attest the key: Key(KeyResponse("attest", 403))', codes.KEY_NOT_ATTESTED),
        ("Failed to get key status - timed out", codes.KEY_STATUS_FAILED),
        ("Failed to save key details to file: No space left on device (os error 28)", codes.KEY_NOT_STORED),
        ("Customer has not enforce the secure channel state.", codes.KEY_NOT_ENFORCED),
        ("Successfully attest the key and ready to use.", codes.KEY_READY),
        ("Failed to open cgroup '/sys/fs/cgroup' with error: No such file", codes.CGROUP_NOT_OPENED),
        ("Failed to start eBPF/redirector with multiple retries", codes.GAVE_UP),
        (
            "Failed to start redirector: Loading BPF object from file path '/x.o' failed with error: failed to create "
            "map `policy_map`: Operation not permitted (os error 1)",
            verifier_codes.MEMLOCK,
        ),
        (
            "Failed to load program 'connect4' with error: the BPF_PROG_LOAD syscall failed. Verifier output: ",
            verifier_codes.EMPTY_LOG,
        ),
    ],
)
def test_a_bare_message(text: str, code: codes.Code) -> None:
    assert one(text).code is code


def test_an_agents_log_says_each_thing_once() -> None:
    line = "2026-11-24T15:04:0{}.000Z [ERROR] [redirector] " + messages.render(Form.ATTACH_LINK, name="connect4")
    text = "\n".join(line.format(number) for number in range(5))
    text += "\n2026-11-24T15:04:06.000Z [ERROR] Failed to start eBPF/redirector with multiple retries\n"
    assert [explained.code for explained in explain_text(text)] == [codes.ATTACH_FAILED_UNKNOWN, codes.GAVE_UP]


def test_a_whole_log_in_an_agents_log_is_read_whole() -> None:
    text = "2026-11-24T15:04:00.000Z [ERROR] " + messages.Message(
        Form.LOAD, {"name": "connect4", "log": MIDDLE}, prefixed=True
    ).text + "2026-11-24T15:04:01.000Z [INFO] next\n"  # fmt: skip
    explained = explain_text(text)[0]
    assert explained.code is verifier_codes.HELPER_NOT_ALLOWED


@pytest.mark.parametrize("prefix", ["2026-11-24T15:04:00.123Z [ERROR] ", "Nov 24 15:04:00 vm azure-proxy-agent[812]: "])
@pytest.mark.parametrize("each", [False, True])
def test_five_tries_are_one_log_and_what_follows_is_none_of_it(prefix: str, each: bool) -> None:
    """each: every line of the log has become an entry of its own, as journald does it."""
    message = guide_log()
    lines = (message.split("\n") if each else [message]) * 5
    text = "".join(f"{prefix}{line}\n" for line in [*lines, "Failed to start eBPF/redirector with multiple retries"])
    first, last = explain_text(text)
    assert "bpf_get_current_pid_tgid (kernels 5.3 to 5.6)" in first.summary
    assert last.code is codes.GAVE_UP


@pytest.mark.parametrize("each", [False, True])
def test_of_two_different_logs_the_last_is_explained(each: bool) -> None:
    texts = [messages.Message(Form.LOAD, {"name": "connect4", "log": log}, True).text for log in (NEW, MIDDLE)]
    lines = [line for text in texts for line in (text.split("\n") if each else [text])]
    explained = explain_text("".join(f"2026-11-24T15:04:00.123Z [ERROR] {line}\n" for line in lines))
    assert [row.code for row in explained] == [verifier_codes.HELPER_NOT_ALLOWED]
    assert parse("\n".join(texts)).complaint == parse(MIDDLE).complaint


def test_a_healthy_status_is_not_called_a_failure() -> None:
    whole = {
        "proxyAgentStatus": {"status": "SUCCESS", "ebpfProgramStatus": {"status": "RUNNING", "message": "Started"}}
    }
    explained = one(json.dumps(whole))
    assert explained.outcome is Outcome.PASS
    assert "policy_map" in explained.summary


def test_a_status_with_two_failures_gives_both_the_worst_first() -> None:
    whole = {
        "proxyAgentStatus": {
            "keyLatchStatus": {"status": "RUNNING", "message": "Found key details from local and ready to use."},
            "ebpfProgramStatus": {"status": "STOPPED", "message": messages.render(Form.ATTACH_LINK, name="connect4")},
        }
    }
    assert [row.code for row in explain_text(json.dumps(whole))] == [codes.ATTACH_FAILED_UNKNOWN, codes.KEY_READY]


@pytest.mark.parametrize("text", ["", "\n\n", "hello", "\x1b[2J", "{}", "[]", b"\xff\xfe", b"\x7fELF" + bytes(50)])
def test_what_is_none_of_it_is_said_to_be_none_of_it(text: str | bytes) -> None:
    assert one(text).code is codes.UNKNOWN_MESSAGE


# --- showing ------------------------------------------------------------------------------------------------------

NASTY = "Failed to open cgroup '/x\x1b[31m\u202e' with error: \x07\x00 bell"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    explained = explain_text(NASTY)
    text = explanation.ticket(explained)
    stream = io.StringIO()
    explanation.show(console(stream, width=80), explained)
    for shown in (text, stream.getvalue()):
        assert "\\x1b[31m" in shown
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_ticket_has_the_code_the_lines_and_the_help() -> None:
    text = explanation.ticket(explain_text(guide.excerpt(guide.LOAD_EXCERPT)))
    for part in (
        "[MSP-V201]",
        "16: (85) cal...",
        "bpf_get_current_pid_tgid",
        "What to do",
        "uname -r",
        guide.LOAD_FAILED,
    ):
        assert part in text


def test_as_a_result_it_keeps_code_remedy_and_place() -> None:
    result = explanation.to_result(one(guide.excerpt(guide.ATTACH_EXCERPT)), 2)
    assert (result.id, result.code, result.guide) == ("explain.2", "MSP-A112", guide.ATTACH_FAILED)
    assert result.remedy
    json.dumps(dict(result.evidence))


@given(st.one_of(st.text(), st.binary()))
def test_nothing_makes_it_raise(data: str | bytes) -> None:
    shown(explain_text(data))


@given(st.sampled_from(sorted(FORMS)), st.integers(0, 2000), st.booleans(), st.text(max_size=20))
def test_nothing_like_a_log_makes_it_raise(form: str, at: int, inside: bool, noise: str) -> None:
    text = FORMS[form][:at] + noise
    if inside:
        text = messages.render(Form.LOAD, name="connect4", log=text)
        text = json.dumps({"proxyAgentStatus": {"ebpfProgramStatus": {"status": "STOPPED", "message": text}}})
    shown(explain_text(text))
    shown(explain_text(text, steps=STEPS, answers=GOOD))


def shown(explained: list[Explanation]) -> None:
    assert explained
    explanation.ticket(explained)
    for row in explained:
        json.dumps(explanation.to_json(row))


# --- the helper table ---------------------------------------------------------------------------------------------


def test_the_helper_table_agrees_with_itself() -> None:
    for number in range(1, len(helpers.HELPER_NAMES)):
        name = helpers.name_of(number)
        assert name is not None
        assert helpers.number_of(name) == number
        first, allowed = helpers.introduced(number), helpers.allowed_in_connect4(number)
        assert first is not None
        assert allowed is None or allowed >= max(first, (4, 17))


@pytest.mark.parametrize(
    ("number", "first", "connect4"),
    [
        (1, (3, 19), (4, 17)),
        (14, (4, 2), (5, 7)),
        (15, (4, 2), (4, 17)),
        (46, (4, 12), (4, 19)),
        (169, (5, 15), (5, 15)),
    ],
)
def test_helpers_that_matter(number: int, first: tuple[int, int], connect4: tuple[int, int]) -> None:
    assert (helpers.introduced(number), helpers.allowed_in_connect4(number)) == (first, connect4)


# The releases that introduced them, from the kernel's history (as bcc's list of versions has it).
INTRODUCED = {
    "tail_call": (4, 2), "redirect": (4, 4), "skb_load_bytes": (4, 5), "get_stackid": (4, 6),
    "get_current_task": (4, 8), "skb_pull_data": (4, 9), "xdp_adjust_head": (4, 10), "probe_read_str": (4, 11),
    "get_socket_uid": (4, 12),
    "setsockopt": (4, 13), "redirect_map": (4, 14), "getsockopt": (4, 15), "override_return": (4, 16), "bind": (4, 17),
    "fib_lookup": (4, 18), "get_current_cgroup_id": (4, 18), "get_local_storage": (4, 19), "sk_lookup_tcp": (4, 20),
    "msg_push_data": (4, 20), "msg_pop_data": (5, 0), "spin_lock": (5, 1), "get_listener_sock": (5, 1),
    "skc_lookup_tcp": (5, 2), "sk_storage_get": (5, 2), "send_signal": (5, 3), "skb_output": (5, 5),
    "probe_read_kernel": (5, 5), "ringbuf_output": (5, 8), "copy_from_user": (5, 10), "task_storage_get": (5, 11),
    "check_mtu": (5, 12), "for_each_map_elem": (5, 13), "sys_bpf": (5, 14), "timer_init": (5, 15),
    "get_branch_snapshot": (5, 16), "find_vma": (5, 17), "loop": (5, 17), "ima_file_hash": (5, 18),
    "kptr_xchg": (5, 19),
    "ktime_get_tai_ns": (6, 1), "cgrp_storage_get": (6, 2),
}  # fmt: skip


def test_helpers_came_when_they_came() -> None:
    assert {name: helpers.introduced(helpers.number_of(name) or 0) for name in INTRODUCED} == INTRODUCED


@pytest.mark.parametrize("number", [0, -1, 212, 10**6])
def test_numbers_outside_the_table_have_no_answer(number: int) -> None:
    assert (helpers.name_of(number), helpers.introduced(number), helpers.allowed_in_connect4(number)) == (None,) * 3


@pytest.mark.parametrize(
    ("first", "last", "allowed", "says"),
    [
        ((5, 3), (5, 16), (5, 7), "5.3 to 5.6"),
        ((5, 3), (5, 5), (5, 7), "5.3 to 5.5"),
        ((5, 6), None, (5, 7), "5.6"),
        (None, None, (5, 7), "before 5.7"),
        ((4, 19), None, (5, 0), "before 5.0"),
        ((5, 7), None, (5, 7), None),
    ],
)
def test_which_kernels_refuse(
    first: tuple[int, int] | None, last: tuple[int, int] | None, allowed: tuple[int, int], says: str | None
) -> None:
    assert sequence.refusing(first, last, allowed) == says


def test_the_agents_sequence_is_that_of_its_interface() -> None:
    assert [helpers.name_of(step.helper) for step in sequence.AGENT_CONNECT4.steps] == [
        "bpf_get_socket_cookie",
        "bpf_map_lookup_elem",
        "bpf_trace_printk",
        "bpf_get_current_pid_tgid",
        "bpf_map_lookup_elem",
        "bpf_get_current_uid_gid",
        "bpf_map_update_elem",
    ]


def test_a_log_without_its_beginning_is_not_identified() -> None:
    log = parse(guide_log().replace("\n0: (bf) r6 = r1", "\n"))
    assert sequence.identify(log, "connect4", True) is None
