"""What --only asks for."""

from __future__ import annotations

import pytest

from harness.checks import names, plan
from harness.checks.base import selected
from harness.checks.options import Options, matches, programs, with_census


@pytest.mark.parametrize(
    ("only", "quick", "expected"),
    [
        (["redirect"], False, ["redirect"]),
        (["redirect.imds"], False, ["redirect"]),
        (["attach"], False, ["attach", "attach.path"]),
        (["attach.link"], False, ["attach"]),
        (["attach.path"], False, ["attach.path"]),
        (["audit.capacity.ours"], False, ["audit.capacity"]),
        (["audit.threads", "chain"], True, ["audit", "chain"]),
        (["audit.capacity"], True, ["audit.capacity"]),  # asked for by name: slow or not
        (["preflight"], False, []),
        (["redirectx"], False, []),
    ],
)
def test_selected(only: list[str], quick: bool, expected: list[str]) -> None:
    assert [check.name for check in selected(plan.CHECKS, only, quick)] == expected


def test_quick_leaves_out_what_is_slow() -> None:
    names = [check.name for check in selected(plan.CHECKS, [], quick=True)]
    assert "audit.capacity" not in names
    assert "redirect" in names
    assert not with_census(Options(quick=True))
    assert with_census(Options())
    assert not with_census(Options(only=("load",)))


def test_unknown_names() -> None:
    assert names.unknown(["redirect", "census.mptcp", "redirecting", "x"]) == ["redirecting", "x"]


def test_both_programs_are_compiled_for_the_census_only() -> None:
    assert programs(Options()) == ["plain"]
    assert programs(Options(program="hardened")) == ["plain", "hardened"]
    assert programs(Options(program="hardened", quick=True)) == ["hardened"]


def test_a_word_matches_up_to_a_dot() -> None:
    assert matches("redirect", "redirect.imds")
    assert not matches("redirect", "redirected.imds")


def test_every_check_has_a_title_under_its_name() -> None:
    inner = list(names.TITLES)[1:-2]
    assert inner == [check.name for check in plan.CHECKS]
    assert [names.TITLES[check.name] for check in plan.CHECKS] == [check.title for check in plan.CHECKS]
