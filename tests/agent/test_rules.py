from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.claims import Claims, claims_of
from harness.agent.rules import Identity, InvalidRules, Item, Mode, Privilege, parse_item
from harness.agent.status import Board, write_whole
from harness.program.maps import AuditRecord

ROOT = Claims(0, "root", ("root",), 10, "/usr/bin/curl", "curl", "curl x", True)
ALICE = Claims(1000, "alice", ("alice", "web"), 11, "/usr/bin/python3.11", "python3.11", "python3 y", False)
BOB = replace(ALICE, user_id=1001, user_name="bob", user_groups=("bob",))

RULES: dict[str, Any] = {
    "privileges": [
        {"name": "instance", "path": "/metadata/instance"},
        {"name": "token", "path": "/metadata/identity", "queryParameters": {"resource": "https://Vault"}},
        {"name": "nobodys", "path": "/nobody"},
    ],
    "roles": [
        {"name": "reader", "privileges": ["instance", "unknown privilege"]},
        {"name": "keys", "privileges": ["token"]},
        {"name": "unassigned", "privileges": ["nobodys"]},
    ],
    "identities": [
        {"name": "by user", "userName": "alice"},
        {"name": "by group", "groupName": "web"},
        {"name": "by path", "exePath": "/usr/bin/curl"},
        {"name": "by process", "processName": "curl"},
        {"name": "by all", "userName": "root", "groupName": "root", "exePath": "/usr/bin/curl", "processName": "curl"},
    ],
    "roleAssignments": [
        {"role": "reader", "identities": ["by user"]},
        {"role": "keys", "identities": ["by all", "unknown identity"]},
        {"role": "unknown role", "identities": ["by group"]},
    ],
}

TOKEN = "/metadata/identity/oauth2/token?api-version=1&resource=https%3A%2F%2Fvault"


def item(access: str = "deny", mode: str = "enforce", rules: dict[str, Any] | None = None) -> Item:
    return parse_item({"defaultAccess": access, "mode": mode, "id": "i", "rules": rules or RULES}, "imds")


@pytest.mark.parametrize(
    ("claims", "target", "access", "allowed", "default"),
    [
        # a privilege fits: only whom it is given may, whatever the default
        (ALICE, "/metadata/instance?api-version=1", "deny", True, False),
        (BOB, "/metadata/instance?api-version=1", "allow", False, False),
        (ROOT, "/metadata/instance", "allow", False, False),
        # a prefix, without regard to case, after decoding
        (ALICE, "/METADATA/Instance/compute/name", "deny", True, False),
        (ALICE, "/metadata/%69nstance", "deny", True, False),
        (BOB, "/metadata/%69nstance", "allow", False, False),
        # query parameters must be there with their value
        (ROOT, TOKEN, "deny", True, False),
        (ALICE, TOKEN, "allow", False, False),
        (ROOT, TOKEN.replace("resource", "Resource"), "deny", True, False),
        (ROOT, "/metadata/identity/oauth2/token?resource=other", "deny", False, True),
        (ROOT, "/metadata/identity/oauth2/token", "allow", True, True),
        # the first of repeated parameters counts, as for the endpoint
        (ALICE, TOKEN + "&resource=x", "allow", False, False),
        (ALICE, "/metadata/identity?resource=x&resource=https://vault", "allow", True, True),
        # a privilege that nobody has
        (ROOT, "/nobody/there", "allow", False, False),
        # none fits
        (BOB, "/metadata/versions", "allow", True, True),
        (BOB, "/metadata/versions", "deny", False, True),
        (BOB, "/", "deny", False, True),
    ],
)
def test_who_may_what(claims: Claims, target: str, access: str, allowed: bool, default: bool) -> None:
    decision = item(access).decide(claims, target)
    assert (decision.allowed, decision.default) == (allowed, default)
    assert decision.why


@pytest.mark.parametrize(
    ("identity", "fitting"),
    [
        (Identity("i", user="alice"), [ALICE]),
        (Identity("i", group="web"), [ALICE]),
        (Identity("i", group="bob"), [BOB]),
        (Identity("i", exe_path="/usr/bin/curl"), [ROOT]),
        (Identity("i", process="python3.11"), [ALICE, BOB]),
        (Identity("i", user="alice", process="curl"), []),
        (Identity("i", user="root", group="root", exe_path="/usr/bin/curl", process="curl"), [ROOT]),
        (Identity("i"), [ROOT, ALICE, BOB]),
        (Identity("i", user="Alice"), []),
    ],
)
def test_identities(identity: Identity, fitting: list[Claims]) -> None:
    assert [claims for claims in (ROOT, ALICE, BOB) if identity.fits(claims)] == fitting


def test_without_rules_the_default_decides() -> None:
    for access in ("allow", "deny"):
        found = parse_item({"defaultAccess": access, "mode": "Enforce", "id": "i"}, "imds")
        assert (found.mode, found.grants) == (Mode.ENFORCE, ())
        assert found.decide(BOB, "/x").allowed is (access == "allow")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "on"}, "imds.mode"),
        ({"mode": None}, "imds.mode"),
        ({"defaultAccess": "maybe"}, "imds.defaultAccess"),
        ({"rules": []}, "imds.rules"),
        ({"rules": {"privileges": {}}}, None),
        ({"rules": {"privileges": {"a": 1}}}, "privileges is not a list"),
        ({"rules": {"privileges": [1]}}, "privileges is not a list"),
        ({"rules": {"privileges": [{"name": "x"}]}}, "privileges[0].path"),
        ({"rules": {"privileges": [{"name": "x", "path": "/", "queryParameters": {"a": 1}}]}}, "queryParameters"),
        ({"rules": {"roles": [{"name": "x", "privileges": "y"}]}}, "roles[0].privileges"),
        ({"rules": {"identities": [{"name": "x", "userName": 1}]}}, "identities[0].userName"),
        ({"rules": {"identities": [{"name": "x"}] * 10_001}}, "more than 10000"),
        ({"rules": {"roleAssignments": [{"role": None}]}}, "roleAssignments[0].role"),
    ],
)
def test_what_is_not_an_item(change: dict[str, Any], said: str | None) -> None:
    data = {"defaultAccess": "allow", "mode": "enforce", "id": "i"} | change
    if said is None:
        assert parse_item(data, "imds").grants == ()
        return
    with pytest.raises(InvalidRules) as caught:
        parse_item(data, "imds")
    assert said in str(caught.value)


# --- properties -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
TARGETS = st.sampled_from(["/", "/a", "/a/b", "/a?x=1", "/A?X=1&y=2", "/b?x=2", "/ab"])
PRIVILEGES = st.fixed_dictionaries(
    {"name": NAMES, "path": st.sampled_from(["/", "/a", "/a/b", "/B"])},
    optional={"queryParameters": st.dictionaries(st.sampled_from("xY"), st.sampled_from("12"), max_size=2)},
)
IDENTITIES = st.fixed_dictionaries(
    {"name": NAMES}, optional={"userName": st.sampled_from(["alice", "bob"]), "processName": st.just("curl")}
)
SETS = st.fixed_dictionaries(
    {
        "privileges": st.lists(PRIVILEGES, max_size=4),
        "roles": st.lists(
            st.fixed_dictionaries({"name": NAMES, "privileges": st.lists(NAMES, max_size=3)}), max_size=3
        ),
        "identities": st.lists(IDENTITIES, max_size=3),
        "roleAssignments": st.lists(
            st.fixed_dictionaries({"role": NAMES, "identities": st.lists(NAMES, max_size=3)}), max_size=3
        ),
    }
)
PEOPLE = st.sampled_from([ROOT, ALICE, BOB])


@given(SETS, PEOPLE, TARGETS)
def test_the_default_decides_just_when_no_privilege_fits(rules: dict[str, Any], who: Claims, target: str) -> None:
    allow, deny = (item(access, rules=rules).decide(who, target) for access in ("allow", "deny"))
    assert allow.default is deny.default
    assert (allow.allowed != deny.allowed) is allow.default


@given(SETS, PEOPLE, TARGETS)
def test_more_assignments_never_take_away(rules: dict[str, Any], who: Claims, target: str) -> None:
    more = copy.deepcopy(rules)
    more["roleAssignments"] += [{"role": name, "identities": list("abc")} for name in "abc"]
    if item(rules=rules).decide(who, target).allowed:
        assert item(rules=more).decide(who, target).allowed


@given(SETS, PEOPLE, TARGETS)
def test_the_case_of_a_target_does_not_matter(rules: dict[str, Any], who: Claims, target: str) -> None:
    assert item(rules=rules).decide(who, target) == item(rules=rules).decide(who, target.swapcase())


JSONS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["mode", "defaultAccess", "rules", "id"]), JSONS), JSONS)
def test_whatever_comes_is_rules_or_invalid(change: dict[str, Any], part: Any) -> None:
    base: dict[str, Any] = {"defaultAccess": "allow", "mode": "audit", "id": "i", "rules": copy.deepcopy(RULES)}
    for data in (
        base | change,
        part,
        base | {"rules": RULES | {"roles": part}},
        base | {"rules": {"identities": [part]}},
    ):
        with contextlib.suppress(InvalidRules):
            assert isinstance(parse_item(data, "x"), Item)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_target_is_decided(target: str, path: str) -> None:
    privilege = Privilege("p", path)
    assert isinstance(privilege.fits(target, {}), bool)
    item().decide(ALICE, target)


# --- claims -----------------------------------------------------------------------------------------------------


def test_claims_of_a_living_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = claims_of(AuditRecord(os.getuid(), process.pid, os.getuid() == 0, "169.254.169.254", 80))
        process.communicate(b"\n")
    assert (found.user_id, found.process_id, found.elevated) == (os.getuid(), process.pid, os.getuid() == 0)
    assert found.process_path == str(Path(sys.executable).resolve())
    assert found.process_name == Path(found.process_path).name
    assert "input()" in found.process_command
    assert found.user_name in found.user_groups or os.getuid() != 0


def test_claims_of_what_is_gone_are_empty() -> None:
    found = claims_of(AuditRecord(4_000_000, 4_194_304, False, "169.254.169.254", 80))
    assert (found.user_name, found.user_groups, found.process_path, found.process_name) == ("", (), "", "")


def test_a_process_whose_path_is_no_text_breaks_nothing(tmp_path: Path) -> None:
    strange = os.fsencode(tmp_path) + b"/\xff\xfe"
    shutil.copy(b"/bin/sleep", strange)
    with subprocess.Popen([strange, "60"]) as process:
        try:
            found = claims_of(AuditRecord(0, process.pid, True, "169.254.169.254", 80))
        finally:
            process.kill()
    assert found.process_name == "\ufffd\ufffd"
    board = Board()
    board.count(found, "169.254.169.254", 80, 200, denied=False)
    write_whole(tmp_path / "status.json", board.text())
    assert json.loads((tmp_path / "status.json").read_text())["proxyConnectionSummary"][0]["count"] == 1


def test_the_claims_header_is_never_too_long_for_an_endpoint() -> None:
    line = [sys.executable, "-c", "input()", '"\u2603' * 4000]
    with subprocess.Popen(line, stdin=subprocess.PIPE) as process:
        found = claims_of(AuditRecord(0, process.pid, True, "169.254.169.254", 80))
        process.communicate(b"\n")
    assert "\u2603" in found.process_command
    crowded = replace(found, user_groups=tuple(f"group-{number}" for number in range(10_000)))
    assert len(crowded.header()[1]) < 10_000


def test_the_claims_header_is_ascii_json_of_one_line() -> None:
    name, value = replace(ALICE, process_command="a\nb \u00e9 \u2603").header()
    assert name == "x-ms-azure-host-claims"
    assert value.isascii()
    assert "\n" not in value
