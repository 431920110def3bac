"""The gate: what blocks, what is allowed and why, and what a policy may not have."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.recording import Recording
from harness.errors import HarnessError
from harness.image import baseline, policy
from harness.report import Outcome, Report, Result, json


def report(**outcomes: Outcome) -> Report:
    """A Report with one result for each, `agent_unit` standing for agent.unit."""
    results = [Result(name.replace("_", "."), name, outcome, name) for name, outcome in outcomes.items()]
    return Recording("image").report(results)


def written(tmp_path: Path, text: str) -> policy.Policy:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return policy.read(file)


FOUND = report(
    agent_unit=Outcome.FAIL, disk_format=Outcome.WARN, kernel_config=Outcome.ERROR, kernel_default=Outcome.PASS
)


def test_without_a_policy_what_failed_or_was_not_found_out_blocks() -> None:
    gate = policy.judged(FOUND, policy.Policy())
    assert gate.outcome is Outcome.FAIL
    assert gate.evidence["blocking"] == ["agent.unit", "kernel.config"]


@pytest.mark.parametrize(
    ("text", "blocking"),
    [
        ('[block]\nFAIL = []\nERROR = []\nWARN = ["disk.*"]\n', ["disk.format"]),
        ("[block]\nERROR = []\n", ["agent.unit"]),
        ('[allow]\n"agent.*" = "known"\n"kernel.config" = "built in"\n', []),
        ('[block]\nFAIL = ["kernel.*"]\nERROR = ["kernel.?onfig"]\n', ["kernel.config"]),
    ],
)
def test_a_policy_says_what_blocks(tmp_path: Path, text: str, blocking: list[str]) -> None:
    gate = policy.judged(FOUND, written(tmp_path, text))
    assert gate.evidence["blocking"] == blocking
    assert gate.outcome is (Outcome.FAIL if blocking else Outcome.PASS)


def test_what_is_allowed_is_told_with_its_reason(tmp_path: Path) -> None:
    gate = policy.judged(FOUND, written(tmp_path, '[allow]\n"agent.unit" = "ours starts it"\n"kernel.config" = "x"\n'))
    assert gate.evidence["allowed"] == {"agent.unit": "ours starts it", "kernel.config": "x"}
    assert "agent.unit" in gate.summary


def test_an_exception_that_fits_nothing_is_told(tmp_path: Path) -> None:
    passed = report(agent_unit=Outcome.PASS)
    gate = policy.judged(passed, written(tmp_path, '[allow]\n"agent.unti" = "a slip"\n'))
    assert gate.outcome is Outcome.WARN
    assert "agent.unti" in gate.summary


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[block\n", "not TOML"),
        ("[blocks]\n", "known are"),
        ("[block]\nPASS = []\n", "known are"),
        ('[block]\nFAIL = "*"\n', "no list"),
        ("[block]\nFAIL = [1]\n", "no list"),
        ('[allow]\nx = ""\n', "no reason"),
        ("allow = 3\n", "no table"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        written(tmp_path, text)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="ENOENT"):
        policy.read(tmp_path / "none.toml")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_a_policy(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_bytes(data)
    with contextlib.suppress(HarnessError):
        assert isinstance(policy.read(file), policy.Policy)


def test_what_changed_since_the_last_image(tmp_path: Path) -> None:
    last = report(agent_unit=Outcome.PASS, disk_format=Outcome.WARN, gone_one=Outcome.PASS, kernel_config=Outcome.ERROR,
                  kernel_default=Outcome.PASS, depth_kernel=Outcome.SKIP)  # fmt: skip
    file = tmp_path / "last.json"
    file.write_text(json.dump(last))
    worse, changed = baseline.compared(baseline.read(file), FOUND)
    assert worse.outcome is Outcome.WARN
    assert list(worse.evidence) == ["agent.unit"]
    assert changed.outcome is Outcome.PASS
    assert list(changed.evidence) == ["gone.one"]


def test_the_same_image_twice_has_no_changes() -> None:
    assert [result.summary for result in baseline.compared(FOUND, FOUND)] == ["nothing", "nothing"]


def test_a_new_check_that_fails_is_worse() -> None:
    worse, _ = baseline.compared(
        report(kernel_default=Outcome.PASS), report(kernel_default=Outcome.PASS, x_y=Outcome.FAIL)
    )
    assert list(worse.evidence) == ["x.y"]
