"""What Results are made of a boot: each PASS has a boot beside it that fails."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from harness.image import azure
from harness.image.azure import boot_results, check, full_results
from harness.image.azure.check import Boot
from harness.image.azure.health import HealthReport
from harness.image.azure.inside import Inside
from harness.image.image import Disk, Image
from harness.image.tree import Tree
from harness.report import Outcome, Result
from harness.report.model import Json
from tests.image.azure.boots import NOT_FOUND, READY, UNHEALTHY, booted, observation

PASS, FAIL, SKIP, ERROR, WARN = Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.ERROR, Outcome.WARN
DISK = Inside("Found provisioning metadata in /dev/sr0\n", agent="/usr/sbin/azure-proxy-agent")
GOOD = booted(observation(READY, asks=True, latched=35.0, claims=True), DISK)


def found(boot: Boot) -> dict[str, Result]:
    return {result.id: result for result in boot_results.results(boot)}


def test_a_good_boot_passes_in_everything() -> None:
    assert {result.outcome for result in found(GOOD).values()} == {PASS}


CASES = [
    ("boot.kernel-started", observation(leases=False, console=""), ERROR, "nothing of a kernel"),
    ("boot.kernel-started", observation(leases=False, console="Gave up waiting for root device"), FAIL, "initramfs"),
    ("boot.kernel-started", observation(leases=False, console="Kernel panic - not syncing: VFS"), FAIL, "panics"),
    ("boot.network", observation(leases=False), FAIL, "never asked"),
    ("boot.azure-recognised", observation(), FAIL, "nothing that provisions"),
    ("boot.azure-recognised", observation(READY, client="curl/8"), FAIL, "nothing that provisions"),
    ("boot.agent-started", observation(READY, asks=True), FAIL, "no key is latched"),
    ("boot.agent-started", observation(READY), FAIL, "there is no agent"),
    ("boot.redirected", observation(READY, asks=True, latched=35.0), FAIL, "came directly"),
    ("boot.redirected", observation(READY, asks=True, latched=60.0), SKIP, "nothing but the agent asked"),
    ("boot.redirected", observation(READY), SKIP, "no key was latched"),
    ("boot.ready", observation(), FAIL, "nothing was reported"),
    ("boot.ready", observation(READY, status=403), FAIL, "refused with 403"),
    ("boot.ready", observation(NOT_FOUND), FAIL, "azure-proxy-agent not found"),
]


@pytest.mark.parametrize(("id", "seen", "outcome", "says"), CASES, ids=lambda value: str(value)[:24])
def test_what_goes_wrong_is_told(id: str, seen: object, outcome: Outcome, says: str) -> None:
    result = found(booted(seen))[id]  # type: ignore[arg-type]
    assert result.outcome is outcome
    assert says in result.summary


@pytest.mark.parametrize(
    ("inside", "outcome"),
    [(Inside(problem="gone"), SKIP), (Inside(), SKIP), (Inside("nothing of a disk\n"), FAIL), (DISK, PASS)],
)
def test_the_provisioning_disk_is_told_from_inside(inside: Inside, outcome: Outcome) -> None:
    assert found(booted(observation(READY), inside))["boot.provisioning-disk"].outcome is outcome


def test_the_console_is_kept_without_escapes() -> None:
    tail = boot_results.console_tail(observation(console="\x1b[0;32mOK\x1b[0m\rone\n\n\x07two\n"))
    assert list(tail) == ["OK", "one", "two"]


def full(boot: Boot, expected: Mapping[str, Json] | None = None) -> dict[str, Result]:
    before = [Result("prediction.outcome", "t", PASS, "s", expected)] if expected else []
    return {result.id: result for result in full_results.results(boot, before)}


def test_a_full_run_of_a_good_image() -> None:
    results = full(GOOD, {"will provision": "yes", "row": 4})
    assert [results[id].outcome for id in ("full.report", "full.outcome", "full.row")] == [PASS] * 3
    assert "as predicted" in results["full.row"].summary
    assert "0 s before ready" in results["full.timeline"].summary


COMPARED = [
    (observation(READY), {"will provision": "no", "row": 1}, FAIL, "row 1 of the guide's table", "as predicted"),
    (observation(READY), {"will provision": "yes", "row": 4}, FAIL, "row 1", "NOT as predicted"),
    (observation(NOT_FOUND), {"will provision": "no", "row": 2}, FAIL, "row 2", "as predicted"),
    (observation(NOT_FOUND), {"will provision": "no", "row": 1}, FAIL, "row 2", "NOT as predicted"),
    (observation(UNHEALTHY), {"will provision": "no", "row": 4}, FAIL, "row 4", "; as predicted"),
    (observation(READY, asks=True), {"will provision": "by luck", "row": 3}, FAIL, "row 3", "; as predicted"),
    (
        observation(READY, asks=True, latched=9.0),
        {"will provision": "by luck", "row": 3},
        WARN,
        "it provisions",
        "race",
    ),
    (observation(READY, asks=True, latched=9.0), {"will provision": "no", "row": 4}, FAIL, "it provisions", "NOT as"),
    (observation(READY, asks=True, latched=9.0), {}, PASS, "it provisions", "no prediction"),
    (observation(), {"will provision": "no"}, FAIL, "nothing was reported", "; as predicted"),
]


@pytest.mark.parametrize(("seen", "expected", "outcome", "says", "against"), COMPARED)
def test_what_happened_is_compared(
    seen: object, expected: Mapping[str, Json], outcome: Outcome, says: str, against: str
) -> None:
    result = full(booted(seen), expected)["full.row"]  # type: ignore[arg-type]
    assert result.outcome is outcome
    assert says in result.summary
    assert against in result.summary


def test_a_row_brings_its_remedy_and_code() -> None:
    result = full(booted(observation(NOT_FOUND)))["full.row"]
    assert (result.code, result.evidence["row"]) == ("MSP-P202", 2)
    assert result.remedy


def test_a_timeline_without_the_guest_s_side_says_so() -> None:
    assert full(booted(observation(READY), Inside(problem="gone")))["full.timeline"].outcome is SKIP


WON, LOST = (booted(observation(READY, asks=True, latched=at)) for at in (39.0, 41.0))


@pytest.mark.parametrize(
    ("boots", "outcome", "percent"),
    [([WON, WON], PASS, 0), ([WON, LOST], FAIL, 50), ([LOST, LOST], FAIL, 100)],
)
def test_the_rate_is_counted(boots: list[Boot], outcome: Outcome, percent: int) -> None:
    result = full_results.rate(boots, len(boots))
    assert (result.outcome, result.observed["percent"]) == (outcome, percent)


def test_boots_that_were_not_made_are_no_rate() -> None:
    assert full_results.rate([WON], 2).outcome is ERROR


def test_order_is_told_in_every_case() -> None:
    assert full_results.order(LOST).endswith("1.0 s before the key was latched")
    assert full_results.order(WON).endswith("1.0 s before ready")
    assert "never latched" in full_results.order(booted(observation(READY)))
    assert "neither" in full_results.order(booted(observation()))
    late = booted(observation(HealthReport("NotReady", description="x"), latched=5.0))
    assert "ready was never reported" in full_results.order(late)


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    image = Image("disk.raw", Disk("raw"), Tree({}))
    (result,) = azure.boot("disk.raw", image)
    assert (result.id, result.outcome) == ("boot.started", ERROR)
    assert result.remedy == "run it as root"


def test_what_is_no_disk_is_left_out() -> None:
    (result,) = azure.boot("root.tar", Image("root.tar", Disk("tar"), Tree({})))
    assert result.outcome is SKIP
    assert "no disk" in result.summary


def test_further_boots_give_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    boots = iter([GOOD, WON, LOST])
    hows: list[check.How] = []

    def once(disk: object, format: str, how: check.How, tell: object, **more: object) -> Boot:
        hows.append(how)
        return next(boots)

    monkeypatch.setattr(check, "once", once)
    image = Image("disk.raw", Disk("raw", firmware="uefi"), Tree({}))
    results = {result.id: result for result in azure.boot("disk.raw", image, repeat=3, seconds=7)}
    assert results["full.rate"].observed["percent"] == 33
    assert {(how.hardware.firmware, how.seconds) for how in hows} == {("uefi", 7)}


def test_only_a_full_run_tells_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "once", lambda *arguments: GOOD)
    image = Image("disk.raw", Disk("raw"), Tree({}))
    assert {result.group for result in azure.boot("disk.raw", image, provision=False)} == {"boot"}
    assert {result.group for result in azure.boot("disk.raw", image)} == {"boot", "full"}
