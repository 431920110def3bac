"""inspect-object on the running kernel: its table against what libbpf and the kernel make of the same object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from harness.checks import inspect
from harness.kernel import facts
from harness.program.object import btf, needs
from harness.report import Outcome, Report, Result
from tests.objects.build import LOADABLE, Style, build

pytestmark = pytest.mark.kernel


def by_id(report: Report) -> dict[str, Result]:
    return {result.id: result for result in report.results}


def report(style: Style) -> dict[str, Result]:
    return by_id(inspect.inspect(build(style)))


@pytest.mark.parametrize("style", list(Style), ids=lambda style: style.name)
def test_every_style_is_inspected(style: Style) -> None:
    found = inspect.inspect(build(style))
    assert len(by_id(found)) == len(found.results)
    assert not any(result.outcome is Outcome.ERROR for result in found.results)
    assert {"object", "program", "map", "needs", "floor"} <= set(found.groups())


@pytest.mark.parametrize("style", LOADABLE, ids=lambda style: style.name)
def test_what_loads_here_lacks_nothing_but_kprobes(style: Style) -> None:
    lacks = {
        name for name, result in report(style).items() if name.startswith("needs.") and result.outcome is Outcome.FAIL
    }
    assert lacks <= {"needs.kprobe", "needs.function-tcp_connect"}
    assert ("needs.kprobe" in lacks) is (style.value.kprobe and not facts.has_kprobes())


def test_the_agents_form_is_recognised_and_its_floor_is_the_helpers() -> None:
    found = report(Style.CO_RE)
    assert found["object.role"].outcome is Outcome.PASS
    for name in ("policy_map", "skip_process_map", "audit_map", "local_map"):
        assert "the agent's layout" in found[f"map.{name}"].summary
    assert found["needs.connect4.get_current_pid_tgid"].evidence["first mainline version"] == "5.7"
    assert found["floor.mainline"].evidence["version"] == "5.7"
    assert found["core.tcp_v4_connect"].outcome is (Outcome.PASS if facts.has_btf() else Outcome.SKIP)
    assert "needs.btf" in found


def test_fixed_offsets_need_no_btf_and_are_warned_of() -> None:
    found = report(Style.FIXED)
    assert "needs.btf" not in found
    assert found["core.tcp_v4_connect"].outcome is Outcome.WARN


def test_what_is_wrong_with_an_object_is_a_failure_of_its_own() -> None:
    for style, name in (
        (Style.BUG_POLICY_SIZE, "map.policy_map"),
        (Style.BUG_AUDIT_LAYOUT, "map.audit_map"),
        (Style.BUG_NO_CONNECT4, "object.role"),
        (Style.NO_BTF_MAPS, "object.damage"),
        (Style.BIG_ENDIAN, "object.file"),
        (Style.NO_KFUNC, "needs.connect4.msp_no_such_kfunc"),
    ):
        assert report(style)[name].outcome is Outcome.FAIL
        assert report(style)[name].remedy
    assert report(Style.LEGACY)["maps.legacy"].outcome is Outcome.WARN
    assert report(Style.NO_BTF)["object.btf"].outcome is Outcome.WARN


def test_a_kernel_that_lacks_a_helper_is_told(tmp_path: Path) -> None:
    """Number 9, which no connect4 may call, in the place of pid_tgid."""
    path = tmp_path / "ebpf_cgroup.o"
    data = build(Style.CO_RE).read_bytes()
    path.write_bytes(data.replace(bytes.fromhex("850000000e000000"), bytes.fromhex("8500000009000000")))
    found = by_id(inspect.inspect(path))["needs.connect4.skb_store_bytes"]
    assert found.outcome is Outcome.FAIL
    assert "cannot use helper" in found.summary or "unknown func" in found.summary


def test_another_kernels_btf_can_be_given() -> None:
    """The object's own BTF, as a kernel's, has no struct sock of its kind where it reads none."""
    found = by_id(inspect.inspect(build(Style.CO_RE), build(Style.FIXED)))
    assert found["core.tcp_v4_connect"].outcome is Outcome.FAIL
    assert "no type sock" in str(found["core.tcp_v4_connect"].evidence["relocations"])
    own = by_id(inspect.inspect(build(Style.CO_RE), build(Style.CO_RE)))
    assert own["core.tcp_v4_connect"].outcome is Outcome.PASS
    assert "0 to other values" in own["core.tcp_v4_connect"].summary


def test_two_objects_and_what_the_change_needs() -> None:
    found = by_id(inspect.compare(build(Style.NO_KPROBE), build(Style.KFUNC)))
    assert "kernel functions added: bpf_rcu_read_lock" in found["change.program-cgroup/connect4-connect4"].summary
    assert found["needs.connect4.rcu_read_lock"].summary.startswith("new: ")
    assert found["floor.mainline"].evidence == {"before": "5.7", "after": "6.2"}
    back = by_id(inspect.compare(build(Style.KFUNC), build(Style.NO_KPROBE)))
    assert "dropped.connect4.rcu_read_lock" in back
    assert not any(name.startswith("needs.") for name in back)
    same = inspect.compare(build(Style.KFUNC), build(Style.KFUNC))
    assert same.results[0].summary == "the same file"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.json"
    status = cli.main(["inspect-object", str(build(Style.SOCK_OPS)), "--json", str(target)])
    assert status == 1  # it has no kprobe program, which the agent looks for
    assert "bpf_get_current_pid_tgid" in capsys.readouterr().out
    assert json.loads(target.read_text())["results"]
    assert cli.main(["inspect-object", str(build(Style.CO_RE)), str(build(Style.CO_RE))]) == 0
    assert cli.main(["inspect-object", "/bin/true"]) == 3
    assert "not for BPF" in capsys.readouterr().err
    assert cli.main(["inspect-object", "a", "b", "c"]) == 2


def test_every_need_is_a_question_that_ends() -> None:
    kernel = btf.load(btf.KERNEL) if facts.has_btf() else None
    for style in (Style.SOCK_OPS_KPROBE, Style.GLOBAL_DATA):
        rows = needs.needs(inspect.subject(build(style)).contents, kernel)
        assert len({row.key for row in rows}) == len(rows)
        for row in rows:
            assert row.what
            assert row.probe().answer
