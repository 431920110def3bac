"""KeyIncarnationId: the next value of each shape of model, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cli
from harness.diagnose import vm_models
from harness.diagnose.key_reset import LARGEST, Incarnations, Refused, Reset
from harness.diagnose.vm_models import Kind, parse
from harness.errors import HarnessError

GROUP = "/subscriptions/0000/resourceGroups/web's/providers/Microsoft.Compute"


def settings(value: object, **more: object) -> dict[str, Any]:
    return {"proxyAgentSettings": {"enabled": True, "imds": {"mode": "Enforce"}, "keyIncarnationId": value, **more}}


def vm(value: object = 3, name: str = "vm1") -> dict[str, Any]:
    """As ARM gives it."""
    return {
        "id": f"{GROUP}/virtualMachines/{name}",
        "name": name,
        "type": "Microsoft.Compute/virtualMachines",
        "location": "westus",
        "etag": '"1"',
        "properties": {
            "vmId": "0d0f",
            "provisioningState": "Succeeded",
            "hardwareProfile": {"vmSize": "Standard_D2s_v3"},
            "securityProfile": settings(value),
        },
    }


def scale_set(value: object = 7, policy: str = "Manual") -> dict[str, Any]:
    return {
        "id": f"{GROUP}/virtualMachineScaleSets/set",
        "name": "set",
        "properties": {
            "upgradePolicy": {"mode": policy},
            "virtualMachineProfile": {"securityProfile": settings(value)},
        },
    }


POWERSHELL = {
    "ResourceGroupName": "web",
    "Id": f"{GROUP}/virtualMachines/win",
    "Name": "win",
    "SecurityProfile": {"ProxyAgentSettings": {"Enabled": True, "KeyIncarnationId": 41}},
}


def one(content: object, chooser: Incarnations | None = None) -> Reset | Refused:
    (model,) = parse(json.dumps(content))
    return (chooser or Incarnations()).reset(model)


def done(content: object, chooser: Incarnations | None = None) -> Reset:
    answer = one(content, chooser)
    assert isinstance(answer, Reset), answer
    return answer


def refused(content: object, chooser: Incarnations | None = None) -> str:
    answer = one(content, chooser)
    assert isinstance(answer, Refused)
    return answer.reason


def test_the_next_value_and_a_whole_put_body() -> None:
    reset = done(vm(3))
    assert (reset.before, reset.value) == (3, 4)
    body = reset.put
    assert body is not None
    assert body["properties"]["securityProfile"] == settings(4)  # everything else of it is kept
    assert body["properties"]["hardwareProfile"] == {"vmSize": "Standard_D2s_v3"}
    assert body["location"] == "westus"
    assert not {"id", "name", "type", "etag"} & body.keys()
    assert not {"vmId", "provisioningState"} & body["properties"].keys()
    assert reset.patch == {"properties": {"securityProfile": {"proxyAgentSettings": {"keyIncarnationId": 4}}}}


def test_the_calls_name_the_machine_and_quote_what_needs_it() -> None:
    calls = dict(done(vm(3)).calls)
    assert calls["az"] == """az vm update -g 'web'"'"'s' -n vm1 --key-incarnation-id 4"""
    assert "-ResourceGroupName 'web''s' -Name 'vm1'" in calls["PowerShell"]
    assert "-KeyIncarnationId 4" in calls["PowerShell"]
    assert '"keyIncarnationId":4' in calls["az rest (PATCH)"]
    assert "@put.json" in calls["az rest (PUT)"]


def test_a_scale_set_changes_its_profile_and_says_how_instances_follow() -> None:
    reset = done(scale_set(7))
    assert reset.put is not None
    assert (
        reset.put["properties"]["virtualMachineProfile"]["securityProfile"]["proxyAgentSettings"]["keyIncarnationId"]
        == 8
    )
    assert reset.patch["properties"]["virtualMachineProfile"]["securityProfile"]
    assert any("update-instances" in note for note in reset.notes)
    assert not any("update-instances" in note for note in done(scale_set(7, "Automatic")).notes)


def test_a_flattened_model_gives_no_put_body_and_the_command_that_would() -> None:
    reset = done(POWERSHELL)
    assert (reset.value, reset.put, reset.model.group) == (42, None, "web")
    assert any("az rest --method get" in note for note in reset.notes)
    assert "az rest (PUT)" not in dict(reset.calls)


@pytest.mark.parametrize(
    "content",
    [
        [vm(1, "a"), vm(1, "b")],
        {"value": [vm(1, "a"), vm(1, "b")]},
        {"resources": [vm(1, "a"), {"type": "x"}, vm(1, "b")]},
    ],
    ids=["list", "ARM's list", "template"],
)
def test_every_machine_of_a_text(content: object) -> None:
    models = parse(json.dumps(content))
    assert [model.name for model in models] == ["a", "b"]
    assert all(model.kind is Kind.VM for model in models)


def test_a_machine_that_comes_again_gets_a_larger_value() -> None:
    answers = list(Incarnations().each(parse(json.dumps([vm(5), vm(5, "other"), vm(5), vm(2)]))))
    assert [answer.value for answer in answers if isinstance(answer, Reset)] == [6, 6, 7, 8]


def test_the_value_is_larger_than_what_was_sent_before() -> None:
    assert done(vm(3), Incarnations(after=90)).value == 91
    assert "not larger than 90" in refused(vm(3), Incarnations(wanted=90, after=90))


@pytest.mark.parametrize("wanted", [1, 3])
def test_equal_and_smaller_are_refused(wanted: int) -> None:
    assert "nothing would change" in refused(vm(3), Incarnations(wanted=wanted))
    assert done(vm(3), Incarnations(wanted=4)).value == 4  # and the next is not


def test_what_overflows_is_refused() -> None:
    assert "does not fit" in refused(vm(LARGEST))
    assert done(vm(LARGEST - 1)).value == LARGEST
    assert "does not fit" in refused(vm(1), Incarnations(wanted=LARGEST + 1))


@pytest.mark.parametrize("value", ["3", 3.0, -1, LARGEST + 1, True, [1]])
def test_a_value_that_is_no_number_of_the_field_is_refused(value: object) -> None:
    assert "no number from 0" in refused(vm(value))


def test_a_model_without_a_value_counts_as_0() -> None:
    reset = done(vm(None))
    assert (reset.before, reset.value) == (0, 1)
    assert any("0 is assumed" in note for note in reset.notes)


def test_without_msp_there_is_nothing_to_reset() -> None:
    plain = vm()
    del plain["properties"]["securityProfile"]
    assert "not enabled" in refused(plain)
    disabled = vm()
    disabled["properties"]["securityProfile"]["proxyAgentSettings"]["enabled"] = False
    assert "not enabled" in refused(disabled)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "x"}', "[" * 100_000, "1" * 5000, '{"type": "Microsoft.Compute/disks"}']
)
def test_what_is_no_model_says_so(text: str) -> None:
    with pytest.raises(HarnessError, match="read the VM model"):
        parse(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "name", "properties", "securityProfile", "proxyAgentSettings", "keyIncarnationId", "enabled",
             "virtualMachineProfile", "upgradePolicy", "type", "resourceGroup", "mode"]
        ),
        inner | st.sampled_from(["Microsoft.Compute/virtualMachines", f"{GROUP}/virtualMachines/a"]),
        max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@given(anything)
def test_any_json_is_refused_or_grows(content: object) -> None:
    try:
        models = parse(json.dumps(content))
    except HarnessError:
        return
    for answer in Incarnations().each(models):
        if isinstance(answer, Reset):
            assert answer.before < answer.value <= LARGEST


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=12), st.integers(-1, 12))
def test_values_of_one_machine_only_grow(asked: list[tuple[str, int]], after: int) -> None:
    chooser, sent = Incarnations(after=after), dict[str, int]()
    for name, value in asked:
        reset = done(vm(value, name), chooser)
        assert reset.value > max(sent.get(name, -1), value, after)
        sent[name] = reset.value


def run(path: Path, content: Mapping[str, object], *words: str) -> int:
    path.write_text(json.dumps(content))
    return cli.main(["key-reset", "--vm-model", str(path), *words])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "vm.json", vm(3)) == 0
    printed = capsys.readouterr().out
    assert "keyIncarnationId 3 → 4" in printed
    assert '"keyIncarnationId": 4' in printed
    assert "Nothing was sent" in printed
    assert run(tmp_path / "vm.json", vm(3), "--value", "3") == 1
    assert "refused: 3 is not larger than 3" in capsys.readouterr().out
    assert run(tmp_path / "vm.json", vm(3), "--value", str(2**31)) == 2


def test_json_and_a_name_with_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = vm(3, "vm\x1b[31m")
    assert run(tmp_path / "vm.json", hostile) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert run(tmp_path / "vm.json", hostile, "--json", "-") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["before"], answer["keyIncarnationId"]) == (3, 4)
    assert answer["put"]["properties"]["securityProfile"]["proxyAgentSettings"]["keyIncarnationId"] == 4


def test_names_are_found_whatever_their_case() -> None:
    assert vm_models.get({"A": {"b": 1}}, "a", "B") == 1
    assert vm_models.get({"A": 1}, "a", "b") is None
