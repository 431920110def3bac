"""The agent's message for what the kernel answered, and the guide's beside it."""

from __future__ import annotations

import pytest

from harness.failures import catalogue, wording
from harness.failures.model import ACCEPTED, Failure, Family
from harness.msp import guide, messages
from harness.msp.messages import Form, Message

BY_NAME = {failure.name: failure for failure in catalogue()}


@pytest.mark.parametrize(
    "failure",
    [row for row in catalogue() if row.family is Family.ATTACH and row.form is None],
    ids=lambda row: row.name,
)
def test_every_failed_attach_gives_the_guides_text(failure: Failure) -> None:
    message = wording.agents_message(failure, "EBADF", "")
    assert message is not None
    text = message.text.removeprefix(messages.REDIRECTOR_PREFIX)
    assert text in guide.excerpt(guide.ATTACH_EXCERPT)
    assert wording.compared(message, Family.ATTACH) == {"text": "the same, word for word", "similarity": 1.0}


def test_another_programs_failed_attach_is_not_the_guides() -> None:
    message = Message(Form.ATTACH_LINK, {"name": "connect6"})
    assert wording.compared(message, Family.ATTACH) == {"text": "another", "similarity": 0.0}


def test_an_empty_log_has_nothing_to_compare() -> None:
    message = Message(Form.LOAD, {"name": "connect4", "log": ""})
    assert "no verifier output" in str(wording.compared(message, Family.LOAD)["text"])
    assert "similarity" not in wording.compared(message, Family.LOAD)


def test_the_guides_own_messages_are_read_from_its_excerpts() -> None:
    load, attach = wording.guides_message(Family.LOAD), wording.guides_message(Family.ATTACH)
    assert load is not None
    assert attach is not None
    assert (load.form, attach.form) == (Form.LOAD, Form.ATTACH_LINK)
    assert len(load.fields["log"].splitlines()) == 29
    assert wording.guides_message(Family.APPLIED) is None


def test_the_guides_log_is_wholly_similar_to_itself_and_a_changed_line_is_seen() -> None:
    message = wording.guides_message(Family.LOAD)
    assert message is not None
    log = message.fields["log"].removesuffix("cal...") + "call bpf_map_lookup_elem#1\n17: (55) if r0 != 0x0 goto pc+2"
    assert wording.compare_logs(log).similarity == 1.0
    assert wording.compare_logs(log.replace("0xffff8baa17403400", "0xffff888100000000")).similarity == 1.0
    changed = wording.compare_logs(log.replace("(r10 -44)", "(r10 -48)"))
    assert (changed.same, changed.guide_total) == (28, 29)


def test_forms_of_maps_and_directories() -> None:
    opened = wording.agents_message(BY_NAME["attach-not-there"], "ENOENT", "")
    assert opened is not None
    assert opened.text.endswith(
        "Failed to open cgroup '/sys/fs/cgroup' with error: No such file or directory (os error 2)"
    )
    created = wording.agents_message(BY_NAME["map-no-cap-bpf"], "EPERM", "")
    assert created is not None
    assert created.form is Form.LOAD_OBJECT
    assert "code -1" in created.text
    kprobe = wording.agents_message(BY_NAME["load-no-cap-perfmon"], "EPERM", "")
    assert kprobe is not None
    assert kprobe.fields["name"] == "tcp_v4_connect"


def test_what_is_accepted_or_applied_has_no_message() -> None:
    assert wording.agents_message(BY_NAME["attach-v1"], ACCEPTED, "") is None
    assert wording.agents_message(BY_NAME["applied-detached"], "ECONNREFUSED", "") is None


def test_stable_masks_addresses_and_times_and_nothing_else() -> None:
    log = "14: (18) r1 = 0xffff8baa17403400\nverification time 1364 usec\nprocessed 12 insns\nR1=0xffff"
    assert (
        wording.stable(log) == "14: (18) r1 = <address>\nverification time <time> usec\nprocessed 12 insns\nR1=0xffff"
    )


def test_the_decisive_line_is_the_last_before_the_statistics_or_what_is_asked_for() -> None:
    log = "0: (95) exit\nR0 !read_ok\nverification time 3 usec\nprocessed 1 insns (limit 1000000)\n"
    assert wording.decisive(log, "") == ["R0 !read_ok"]
    assert wording.decisive(log, "exit") == ["0: (95) exit"]
    assert wording.decisive("", "") == []
