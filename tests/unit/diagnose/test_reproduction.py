"""reproduce --from: the recipe, the kernel, and whether the message is the customer's."""

from __future__ import annotations

import pytest

from harness.diagnose import reproduction
from harness.diagnose.reproduction import Grade, Plan
from harness.failures.table import FAILURES
from harness.msp import messages
from harness.msp.messages import Form
from harness.report.model import Outcome, Result
from tests.unit.diagnose.evidence_corpus import cases

CASES = {case.name: case for case in cases()}
LOG = "0: (85) call bpf_x#9\nunknown func bpf_x#9\nprocessed 1 insns (limit 1000000) max_states_per_insn 0"


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("load-guide", "guide-pid-tgid"),
        ("load-whole-in-the-log", "guide-pid-tgid"),
        ("attach-hybrid-ubuntu", "attach-hybrid"),
        ("attach-not-mounted-rhel", "attach-no-cgroup2"),
        ("attach-no-cgroup2-kernel", "attach-no-cgroup2-kernel"),
        ("attach-exclusive", "attach-exclusive-same-link"),
        ("key-disk-moved", "key-moved-disk"),
        ("key-not-saved", "key-not-stored"),
        ("load-memlock", "map-memlock"),
    ],
)
def test_the_diagnosis_names_the_recipe(name: str, failure: str) -> None:
    best = CASES[name].verdict().best
    assert best
    assert reproduction.recipes(best)[0] == failure


def test_every_recipe_named_exists() -> None:
    known = {failure.name for failure in FAILURES}
    assert {name for names in reproduction._RECIPES.values() for name in names} <= known
    assert set(reproduction._LAB) <= known


def test_what_is_not_of_a_kernel_is_said_to_be_so() -> None:
    planned = reproduction.plan(CASES["unit-inactive"].verdict())
    assert planned.names == ()
    assert reproduction.compared(planned, []).outcome is Outcome.SKIP


@pytest.mark.parametrize(
    ("release", "spec"),
    [
        ("6.1.0-44-cloud-amd64", "bookworm/6.1.0-44"),
        ("5.10.0-46-amd64", "bullseye/5.10.0-46:generic"),
        ("6.12.118+deb13-cloud-amd64", "trixie/6.12.118+deb13"),
        ("5.15.0-1064-azure", None),
        ("5.14.0-427.13.1.el9_4.x86_64", None),
        ("6.1.0-$(reboot)-amd64", None),
    ],
)
def test_a_debian_kernel_is_asked_of_its_suite(release: str, spec: str | None) -> None:
    assert reproduction._suite(release) == spec


def load(log: str) -> str:
    return messages.cut(messages.render(Form.LOAD, name="connect4", log=log))


@pytest.mark.parametrize(
    ("theirs", "ours", "grade"),
    [
        (messages.render(Form.ATTACH_LINK, name="connect4"), messages.render(Form.ATTACH_LINK, name="connect4"),
         Grade.EQUAL),
        (messages.render(Form.ATTACH_LINK, name="connect4"), messages.render(Form.ATTACH_LINK, name="other"),
         Grade.ANOTHER),
        (messages.render(Form.ATTACH_LINK, name="connect4"), load(LOG), Grade.ANOTHER),
        (load(LOG), load(LOG), Grade.EQUAL),
        (load("1: r1 = 0xffff8baa17403400\n" + LOG), load("1: r1 = 0xffff8baa99999999\n" + LOG), Grade.EQUAL),
        (load(LOG), load("0: R1=ctx() R10=fp0\n" + LOG), Grade.CONTAINED),
        (load(LOG), load(LOG.replace("bpf_x#9", "bpf_y#8")), Grade.ANOTHER),
        ("words of no known form", "words of no known form", Grade.EQUAL),
        ("words of no known form", "", Grade.ANOTHER),
    ],
)  # fmt: skip
def test_messages_are_compared_after_masking(theirs: str, ours: str, grade: Grade) -> None:
    assert reproduction.same(theirs, ours)[0] is grade


def test_a_cut_log_is_compared_as_far_as_it_goes() -> None:
    long = "\n".join(f"{number}: (bf) r6 = r1" for number in range(90)) + "\n" + LOG
    assert load(long).endswith(messages.CUT_MARK)
    assert reproduction.same(load(long), load(long), long)[0] is Grade.EQUAL


def result(name: str, message: str, outcome: Outcome = Outcome.PASS) -> Result:
    return Result(f"reproduce.{name}", name, outcome, "done", {"message": message})


def test_the_comparison_is_a_result_of_its_own() -> None:
    text = messages.render(Form.ATTACH_LINK, name="connect4")
    planned = Plan(("attach-tmpfs",), None, "here", text)
    assert reproduction.compared(planned, [result("attach-tmpfs", text)]).outcome is Outcome.PASS
    other = reproduction.compared(planned, [result("attach-tmpfs", load(LOG))])
    assert other.outcome is Outcome.WARN
    assert "another message" in other.summary
    skipped = reproduction.compared(planned, [result("attach-tmpfs", text, Outcome.SKIP)])
    assert skipped.outcome is Outcome.SKIP
