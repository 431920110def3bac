"""Floors: what is said follows from what was measured, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.matrix.floors import Floor, floors, together
from harness.report import Outcome, Result
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, matrix, without_link


def floor(found: Mapping[str, Sequence[Result]], ability: str = "loads") -> Floor:
    return next(one for one in floors(matrix(found)) if one.ability == ability)


def test_a_floor_between_two_kernels() -> None:
    found = floor({"5.4 old": REFUSED, "5.10 bullseye": PASSED, "6.1 bookworm": PASSED})
    assert found.text == ("from 5.10 on: refused by 5.4 (old), accepted by 5.10 (bullseye); nothing between was asked")
    assert (found.since, found.monotonic, found.documented) == ("5.10", True, "5.15")
    assert found.beside == "accepted below it, by 5.10 (bullseye)"
    assert found.reason == "the verifier refused it: unknown func"
    assert (list(found.accepted), list(found.refused)) == (["bullseye", "bookworm"], ["old"])


def test_the_order_of_rows_does_not_matter() -> None:
    one = floor({"6.1 bookworm": PASSED, "5.4 old": REFUSED, "5.10 bullseye": PASSED})
    assert one == floor({"5.4 old": REFUSED, "5.10 bullseye": PASSED, "6.1 bookworm": PASSED})


def test_5_9_is_older_than_5_10() -> None:
    assert floor({"5.10 b": PASSED, "5.9 a": REFUSED}).since == "5.10"


def test_all_accept() -> None:
    found = floor({"5.10 bullseye": PASSED, "6.1 bookworm": PASSED})
    assert found.text == "accepted by all that were asked, 5.10 (bullseye) to 6.1 (bookworm); nothing older was asked"
    newer = floor({"6.1 bookworm": PASSED})
    assert newer.text == "accepted by all that were asked, 6.1 (bookworm); nothing older was asked"
    assert newer.beside == ""  # 6.1 says nothing about 5.15


def test_all_refuse() -> None:
    found = floor({"5.10 bullseye": REFUSED, "6.1 bookworm": REFUSED})
    assert found.text == "refused by all that were asked, 5.10 (bullseye) to 6.1 (bookworm); nothing newer was asked"
    assert found.since is None
    assert found.beside == "refused by 6.1 (bookworm), which is not below it"


def test_what_is_not_monotonic_is_said() -> None:
    found = floor({"5.10 a": PASSED, "6.1 b": REFUSED, "6.12 c": PASSED})
    assert found.text == (
        "not monotonic: refused by 6.1 (b) though accepted by older 5.10 (a); yes 5.10 (a), no 6.1 (b), yes 6.12 (c)"
    )
    assert not found.monotonic
    assert found.since == "6.12"


def test_newer_kernels_refuse() -> None:
    found = floor({"5.10 a": PASSED, "6.1 b": REFUSED})
    assert found.text.startswith("not monotonic: refused by 6.1 (b) though accepted by older 5.10 (a)")
    assert found.since is None


def test_two_kernels_of_one_version_differ() -> None:
    found = floor({"6.1 a": PASSED, "6.1 b": REFUSED})
    assert "refused by 6.1 (b) though accepted by another of that version 6.1 (a)" in found.text
    assert found.since is None


def test_what_could_not_be_found_out_is_neither() -> None:
    found = floor({"5.10 a": PASSED, "6.1 b": PANIC})
    assert found.text == (
        "accepted by all that were asked, 5.10 (a); nothing older was asked"
        "; not known of 6.1 (b) (the kernel panicked: no init)"
    )
    assert list(found.unknown) == ["b"]


def test_a_way_of_attaching_has_its_own() -> None:
    found = {"5.4 old": without_link(), "5.10 bullseye": PASSED}
    assert floor(found, "attach.link").text.startswith("from 5.10 on: refused by 5.4 (old)")
    assert floor(found, "attach.multi").text.startswith("accepted by all")


def test_what_was_not_tried_is_not_known() -> None:
    found = floor({"5.4 old": REFUSED, "5.10 b": PASSED}, "attach.link")
    assert "not known of 5.4 (old) (not tried, since it does not load)" in found.text


def test_a_kernel_of_the_lab_says_nothing_of_its_version() -> None:
    found = floor({"5.10 bullseye": PASSED, "5.10 lab:no-pid-tgid": REFUSED, "5.10 lab:base": PASSED})
    assert found.text.startswith("accepted by all that were asked, 5.10 (bullseye)")
    assert found.altered == "refused by lab:no-pid-tgid; accepted by lab:base"
    assert found.monotonic


def test_only_kernels_of_the_lab() -> None:
    found = floor({"5.10 lab:base": PASSED})
    assert found.text == "not measured on any kernel as distributions ship it"


def test_lacking_what_is_needed_is_a_refusal_with_its_reason() -> None:
    probes = {"pid-tgid": "no: unknown func (mainline from 5.7)", "connect4": "yes: loads"}
    lacks = Result("preflight.kernel", "", Outcome.FAIL, "5.4 lacks pid_tgid", {"probes": probes}, blocking=True)
    found = floor({"5.4 old": [lacks], "5.10 b": PASSED})
    assert found.reason == "5.4 lacks pid_tgid"
    assert found.since == "5.10"


def test_what_our_programs_need_is_no_refusal_of_somebodys() -> None:
    probes = {"pid-tgid": "no: unknown func"}
    lacks = Result("preflight.kernel", "", Outcome.FAIL, "5.4 lacks pid_tgid", {"probes": probes}, blocking=True)
    made = matrix({"5.4 old": [lacks], "5.10 b": PASSED}, ("plain", "co-re.o"))
    said = {one.program: one for one in floors(made) if one.ability == "loads"}
    assert said["plain"].text.startswith("from 5.10 on: refused by 5.4 (old)")
    assert "not known of 5.4 (old) (not tried: 5.4 lacks pid_tgid)" in said["co-re.o"].text


def test_lacking_what_only_attaching_needs_is_not() -> None:
    probes = {"cgroup2": "no: ENODEV", "connect4": "yes: loads"}
    lacks = Result("preflight.kernel", "", Outcome.FAIL, "5.4 lacks cgroup2", {"probes": probes}, blocking=True)
    found = floor({"5.4 old": [lacks], "5.10 b": PASSED})
    assert list(found.refused) == []
    assert "not known of 5.4 (old) (not tried: 5.4 lacks cgroup2)" in found.text


def test_a_machine_that_cannot_run_it_is_not_a_refusal() -> None:
    blocked = Result("preflight.cgroup2", "", Outcome.FAIL, "nothing mounts it", blocking=True)
    found = floor({"5.4 old": [PASSED[0], blocked], "5.10 b": PASSED})
    assert "not known of 5.4 (old) (not tried: nothing mounts it)" in found.text


def test_each_kind_of_machine_for_itself() -> None:
    usual, other = matrix({"5.10 a": PASSED}), matrix({"5.10 a": REFUSED}, variation="cgroup=v1")
    both = replace(usual, rows=[*usual.rows, *other.rows], cells=[*usual.cells, *other.cells])
    found = {one.variation: one for one in floors(both) if one.ability == "loads"}
    assert found[""].text.startswith("accepted by all")
    assert found["cgroup=v1"].text.startswith("refused by all")


def test_abilities_with_the_same_floor_are_told_together() -> None:
    found = floors(matrix({"5.10 a": PASSED}))
    assert [phrase for phrase, _ in together(found)] == ["loads, attaches by link, multi, override, single, redirects"]


@pytest.mark.parametrize("ability", ["loads", "redirects"])
def test_what_nobody_asked_is_left_out(ability: str) -> None:
    found = floors(matrix({"5.10 a": [PASSED[0]]}))
    assert [one for one in found if one.ability == ability] == []


@given(
    st.lists(st.tuples(st.integers(3, 7), st.integers(0, 20), st.sampled_from([PASSED, REFUSED, PANIC])), max_size=7)
)
def test_since_holds_for_every_kernel_that_was_asked(kernels: list[tuple[int, int, tuple[Result, ...]]]) -> None:
    named = {f"{major}.{minor} k{number}": results for number, (major, minor, results) in enumerate(kernels)}
    for one in floors(matrix(named)):
        if one.ability != "loads":
            continue
        versions = {name.partition(" ")[2]: tuple(map(int, name.split()[0].split("."))) for name in named}
        accepted, refused = ([versions[name] for name in names] for names in (one.accepted, one.refused))
        if one.since is not None:
            since = tuple(map(int, one.since.split(".")))
            assert since in accepted
            assert all(version < since for version in refused)
        mixed = any(no >= yes for no in refused for yes in accepted)
        assert one.monotonic is not mixed
