"""The table of failures: names, codes, places in the guide, and how names are chosen."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.failures import catalogue, refusals
from harness.failures.model import ACCEPTED, DIRECT, ELSEWHERE, LATCHED, REDIRECTED, UNLATCHED, Failure, Family
from harness.failures.perform import identity
from harness.failures.table import chosen
from harness.msp import guide
from harness.msp.codes import all_codes
from harness.program import source

BY_NAME = {failure.name: failure for failure in catalogue()}
CLIENTS_WORDS = {DIRECT, ELSEWHERE, REDIRECTED, "timeout"}
HEADINGS = {value for name, value in vars(guide).items() if name.isupper() and isinstance(value, str)}


def test_names_are_unique_and_plain() -> None:
    assert len(BY_NAME) == len(catalogue())
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) for name in BY_NAME)
    assert len({identity(failure) for failure in catalogue()}) == len(catalogue())


@pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.name)
def test_a_failure_has_a_code_a_place_in_the_guide_and_words_that_exist(failure: Failure) -> None:
    assert all_codes()[failure.code.id] is failure.code
    assert failure.guide in HEADINGS
    known = {ACCEPTED, *errno.errorcode.values()} | (CLIENTS_WORDS if failure.family is Family.APPLIED else set())
    if failure.family is Family.KEY:
        known = {LATCHED, UNLATCHED}
    assert failure.expects
    assert {*failure.expects, failure.repaired} <= known
    assert failure.remedy
    re.compile(failure.says)


def test_what_fails_differs_from_what_is_repaired() -> None:
    """But for the guide's log, which no kernel refuses up to its cut."""
    assert [failure.name for failure in catalogue() if failure.repaired in failure.expects] == ["guide-log"]


def test_every_family_of_the_issue_is_there() -> None:
    codes = {failure.code.id for failure in catalogue()}
    verifier = {f"MSP-V{number}" for number in (101, 102, 103, 105, 106, 107, 108, 109, 110, 111, 112, 113, 125, 126)}
    attach = {f"MSP-A{number}" for number in range(101, 111)}
    applied = {f"MSP-A{number}" for number in range(201, 208)} | {"MSP-P101", "MSP-P102"}
    keys = {"MSP-K101", "MSP-K102", "MSP-K103", "MSP-K104", "MSP-K107"}
    assert verifier | attach | applied | keys <= codes


def test_every_variant_in_c_is_used_and_there() -> None:
    files = {path.stem for path in (source.directory() / "variants").glob("*.c")}
    text = Path(refusals.__file__).read_text(encoding="utf-8")
    assert files
    assert all(f'"{name}"' in text or f"{name}.c" in text for name in files)


@pytest.mark.parametrize("names", [[], ["all"], ["attach-v1", "all"]])
def test_all(names: list[str]) -> None:
    assert chosen(names) == list(catalogue())


def test_names_and_beginnings_in_the_tables_order() -> None:
    assert [failure.name for failure in chosen(["attach-type", "guide-log"])] == ["guide-log", "attach-type"]
    exclusive = [failure.name for failure in chosen(["attach-exclusive"])]
    assert len(exclusive) >= 4
    assert all(name.startswith("attach-exclusive-") for name in exclusive)
    assert chosen(["attach-type", "attach-type"]) == [BY_NAME["attach-type"]]


@pytest.mark.parametrize("name", ["attach-exclusiv", "", "guide_log", "loop"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match="there is no failure of that name"):
        chosen(["attach-type", name])


def test_a_near_name_is_offered() -> None:
    with pytest.raises(HarnessError, match=r"did you mean.*load-loop"):
        chosen(["load-loops"])
