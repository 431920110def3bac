"""`reproduce provisioning-…`: the table, its names, and how a boot is judged; the boots are in tests/image/azure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.failures.table import FAILURES
from harness.image import provisioning
from harness.image.azure import limits
from harness.image.azure.check import Boot
from harness.image.predict import CAUSES, ROWS
from harness.image.provisioning import RECIPES, Recipe, chosen, judged
from harness.image.sample import base
from harness.image.sample.breaks import BREAKS
from harness.lab import scenarios
from harness.report import Outcome
from tests.image.azure.boots import NOT_FOUND, READY, booted, failure, observation

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
CURED = booted(observation(READY, asks=True, latched=30.0, claims=True, client="Cloud-Init/25.1.4"))


def test_every_row_of_the_guide_and_every_cause_has_a_recipe() -> None:
    assert {recipe.row.number for recipe in RECIPES} == {row.number for row in ROWS}
    assert {recipe.cause for recipe in RECIPES if recipe.row.number == 4} == {cause.name for cause in CAUSES}
    for recipe in RECIPES:
        assert recipe.cause in recipe.row.cause  # the guide's own words


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_names_what_there_is(recipe: Recipe) -> None:
    re.compile(recipe.says)
    for deployed in (recipe.broken, recipe.cured):
        assert deployed.suite in base.SUITES
        assert set(deployed.breaks) <= set(BREAKS)
        scenarios.scenario(deployed.scenario)
    assert recipe.broken != recipe.cured


def test_names_are_beginnings_up_to_a_dash() -> None:
    assert chosen(["provisioning"]) == list(RECIPES)
    assert {recipe.name for recipe in chosen(["provisioning-no-agent"])} == {
        "provisioning-no-agent-old",
        "provisioning-no-agent-new",
    }
    assert len(chosen(["provisioning-unhealthy"])) == 4
    with pytest.raises(HarnessError, match="did you mean provisioning-race"):
        chosen(["provisioning-rac"])


def test_they_are_not_among_all() -> None:
    """A test of every kernel, and `reproduce all`, must not take an hour in silence."""
    assert not [row for row in FAILURES if row.name.startswith("provisioning")]


def said(part: str, text: str) -> Boot:
    report = failure("azure-proxy-agent status failure", exit_code="1", stderr=f"{part} - {text}")
    return booted(observation(report, asks=True, client="Cloud-Init/25.1.4"))


EXAMPLES = {
    "provisioning-no-agent-old": booted(observation(READY)),
    "provisioning-no-agent-new": booted(observation(NOT_FOUND)),
    "provisioning-race": booted(observation(READY, asks=True, latched=45.0)),
    "provisioning-unhealthy-ebpf": said(
        "ebpfProgramStatus", "Failed to start redirector: Failed to load program 'connect4' with error: x"
    ),
    "provisioning-unhealthy-cgroup": said("ebpfProgramStatus", "Failed to start redirector: Failed to open cgroup"),
    "provisioning-unhealthy-startup": said("", "error while loading shared libraries: libssl.so.1.1"),
    "provisioning-unhealthy-key": said("keyLatchStatus", "Failed to acquire key details: Key(KeyResponse(..."),
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_row_that_came_about_and_was_cured_passes(recipe: Recipe) -> None:
    outcome, summary, evidence, observed = judged(recipe, [EXAMPLES[recipe.name]], CURED)
    assert outcome is Outcome.PASS, summary
    assert evidence["row"] == recipe.row.number
    assert evidence["guide"] == recipe.row.failure
    assert evidence["ours"] == EXAMPLES[recipe.name].end.portal
    assert observed["timeline"]


@pytest.mark.parametrize("recipe", [row for row in RECIPES if row.cause], ids=lambda recipe: recipe.name)
def test_the_summary_of_the_last_row_says_which_of_its_causes(recipe: Recipe) -> None:
    boot = EXAMPLES[recipe.name]
    summary = judged(recipe, [boot], CURED)[1]
    assert f"row 4, {recipe.cause}: " in summary
    assert boot.seen.reports[0].report.fields["stderr"] in summary


def test_of_the_agent_s_words_the_beginning_of_the_first_line_is_shown() -> None:
    assert provisioning.agents_words(said("keyLatchStatus", "x" * 1000)) == "keyLatchStatus - " + "x" * 143 + "…"
    assert provisioning.agents_words(said("ebpfProgramStatus", "first\nsecond")) == "ebpfProgramStatus - first"
    assert provisioning.agents_words(CURED) == ""


@pytest.mark.parametrize("recipe", [row for row in RECIPES if row.row.number < 4], ids=lambda recipe: recipe.name)
def test_the_guide_s_words_are_the_portal_s(recipe: Recipe) -> None:
    _, _, evidence, _ = judged(recipe, [EXAMPLES[recipe.name]], CURED)
    assert evidence["compared"] == "the same words"
    assert provisioning.compared(recipe, "Linux.Cloud-Init failed due to something else") == "other words"


def test_of_its_last_row_the_guide_quotes_nothing() -> None:
    recipe = BY_NAME["provisioning-unhealthy-key"]
    assert "describes it" in provisioning.compared(recipe, EXAMPLES[recipe.name].end.portal)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_did_not_come_about_fails(recipe: Recipe) -> None:
    assert judged(recipe, [CURED], CURED)[0] is Outcome.FAIL
    other = next(EXAMPLES[row.name] for row in RECIPES if row.row.number != recipe.row.number)
    assert judged(recipe, [other], CURED)[0] is Outcome.FAIL


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_remedy_that_does_not_help_fails(recipe: Recipe) -> None:
    outcome, summary, _, _ = judged(recipe, [EXAMPLES[recipe.name]], booted(observation(NOT_FOUND)))
    assert outcome is Outcome.FAIL
    assert "the remedy does not work" in summary


def test_another_cause_of_row_4_is_not_this_one() -> None:
    outcome, summary, _, _ = judged(
        BY_NAME["provisioning-unhealthy-key"], [EXAMPLES["provisioning-unhealthy-ebpf"]], CURED
    )
    assert outcome is Outcome.FAIL
    assert "it is not said" in summary


def test_the_race_counts_its_boots() -> None:
    boots = [EXAMPLES["provisioning-race"], CURED, EXAMPLES["provisioning-race"]]
    outcome, summary, _, observed = judged(BY_NAME["provisioning-race"], boots, CURED)
    assert outcome is Outcome.PASS
    assert "in 2 of 3 boots" in summary
    assert len(observed["boots"]) == 3  # type: ignore[arg-type]


def test_a_shared_cure_is_booted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    booted_: list[str] = []
    told: list[str] = []

    @contextmanager
    def image(deployed: provisioning.Deployed, tell: object) -> Iterator[Path]:
        booted_.append(deployed.said)
        yield Path("disk")

    answers = iter([EXAMPLES["provisioning-no-agent-old"], CURED, EXAMPLES["provisioning-no-agent-new"]])
    monkeypatch.setattr(provisioning, "disk_of", image)
    monkeypatch.setattr(provisioning, "once", lambda *arguments: next(answers))
    results = list(provisioning.reproduce(["provisioning-no-agent"], tell=told.append))
    assert [result.outcome for result in results] == [Outcome.PASS] * 2
    assert len(booted_) == 3
    assert told[0].startswith("3 boots, some ")
    assert told[1:] == [f"boot {number} of 3: {said}" for number, said in enumerate(booted_, 1)]


def test_an_image_that_cannot_be_made_is_an_error_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(*arguments: object) -> Boot:
        raise HarnessError("boot it", "there is no disk")

    @contextmanager
    def image(deployed: provisioning.Deployed, tell: object) -> Iterator[Path]:
        yield Path("disk")

    monkeypatch.setattr(provisioning, "disk_of", image)
    monkeypatch.setattr(provisioning, "once", once)
    results = list(provisioning.reproduce(["provisioning-unhealthy"]))
    assert [result.outcome for result in results] == [Outcome.ERROR] * 4


def test_how_long_it_takes_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning, "accelerator", lambda: "tcg")
    monkeypatch.setattr(limits, "expected", lambda accelerator: 90.0)
    # Six rows of one boot, three boots of the race, and two cures: the good image, and that on the slow platform.
    assert provisioning.count(RECIPES, 3) == 11
    assert provisioning.foretold(11).startswith("11 boots, some 17 min (the last boots here)")
    monkeypatch.setattr(limits, "expected", lambda accelerator: 0.0)
    assert "none was measured here" in provisioning.foretold(3)
