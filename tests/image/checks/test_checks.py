"""Each check on good images and on images that are broken in one way each: it says so, for the right reason."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.image import checks
from harness.image.image import Image
from harness.image.tree import Tree
from harness.msp.codes import all_codes
from harness.report import Outcome, Result
from tests.image import trees
from tests.image.checks.breaks import BREAKS, Break, package
from tests.image.trees import changed, file, folder

# What good images of this kind may be told: the pure facts of a test's disk, and what is not looked into.
OF_A_GOOD_ONE = {"disk.format", "disk.alignment", "modules.initramfs", "kernel.floor"}


def checked(image: Image) -> dict[str, Result]:
    rows = list(checks.check(image))
    assert len({row.id for row in rows}) == len(rows), "an id stands twice"
    return {row.id: row for row in rows}


@functools.cache
def of_good(build: Callable[[], Image]) -> dict[str, Result]:
    return checked(build())


@pytest.mark.parametrize("name", trees.GOOD)
def test_a_good_image_passes(name: str) -> None:
    found = checked(trees.GOOD[name]())
    wrong = {row.id: row.summary for row in found.values() if row.outcome is not Outcome.PASS}
    assert wrong.keys() <= OF_A_GOOD_ONE, wrong
    assert not [row for row in found.values() if row.outcome in (Outcome.FAIL, Outcome.ERROR)]


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: row.name)
def test_what_is_broken_is_told(row: Break) -> None:
    good, broken = of_good(row.good), checked(row.do(row.good()))
    assert row.id in broken, f"{row.id} is missing: {sorted(broken)}"
    found = broken[row.id]
    assert (found.outcome, found.code) == (row.outcome, row.code), found.summary
    assert row.words in found.summary
    assert found.remedy or found.outcome in (Outcome.SKIP, Outcome.PASS), "it does not say what to do"
    assert found.code is None or found.code in all_codes()
    before = good.get(row.id)
    assert before is None or before.outcome is not row.outcome or before.summary != found.summary


def test_every_question_has_a_break_of_its_own() -> None:
    """But those whose only other answer is that there is nothing to ask, and the disk's, which has tests of its own."""
    broken = {row.id for row in BREAKS}
    asked = {id for build in trees.GOOD.values() for id in checked(build()) if not id.startswith("disk.")}
    like = {id for id in asked - broken if id.startswith(("kernel.config.", "modules."))}
    assert asked - broken - like == set()


def test_no_key_and_no_password_is_told() -> None:
    image = changed(
        trees.debian(),
        {
            "/var/lib/azure-proxy-agent/keys/1.key": file(trees.KEY),
            "/var/lib/waagent/ovf-env.xml": file("<UserPassword>Geheim1!</UserPassword>"),
            "/etc/shadow": file("root:$6$salt$hash:1::::::\n"),
        },
    )
    text = json.dumps([[row.summary, row.evidence, row.observed, row.remedy] for row in checks.check(image)])
    assert trees.KEY not in text
    assert "Geheim1!" not in text
    assert "$6$" not in text


def test_support_that_was_taken_back_is_seen_whatever_the_version() -> None:
    folder = "/usr/lib/python3/dist-packages"
    image = changed(
        package("cloud-init", "23.1.2-0ubuntu0~22.04.1")(trees.debian()),
        {
            f"{folder}/cloudinit/version.py": file('__VERSION__ = "23.1.2"\n'),
            f"{folder}/cloud_init-25.1.4.dist-info": None,
            f"{folder}/cloud_init-23.1.2.egg-info": file("Name: cloud-init\nVersion: 23.1.2\n"),
        },
    )
    found = checked(image)
    assert found["cloud-init.msp"].outcome is Outcome.PASS
    assert "though older than 24.3" in found["cloud-init.msp"].summary
    assert found["cloud-init.version"].outcome is Outcome.PASS


def test_an_empty_tree_is_no_system_and_nothing_passes_but_the_disk() -> None:
    found = checked(Image("empty", trees.DISK, Tree({})))
    assert found["system.found"].outcome is Outcome.FAIL
    others = [row for row in found.values() if row.group not in ("disk", "system")]
    assert others
    assert {row.outcome for row in others} == {Outcome.SKIP}


ABSENT = {
    "/etc": ("generalised.host-keys", "generalised.machine-id", "cloud-init.enabled", "agent.config", "agent.selinux"),
    "/usr": ("agent.path", "agent.executable", "cloud-init.version", "waagent.installed", "cgroup.layout"),
    "/var": ("leftovers.keys", "leftovers.status", "leftovers.extension", "leftovers.waagent", "generalised.cloud-init",
             "generalised.random-seed"),
    "/boot": ("kernel.default", "kernel.config", "kernel.lockdown", "kernel.command-line"),
    "/root": ("generalised.authorized-keys", "generalised.history"),
}  # fmt: skip
"""What a place has to say something about, by its absence too."""


@pytest.mark.parametrize("place", ABSENT)
def test_what_was_not_read_is_never_passed_as_absent(place: str) -> None:
    good = changed(trees.debian(), {"/etc/os-release": file("ID=debian\n")})
    empty = changed(changed(good, {place: None}), {place: folder()})
    found = checked(replace(empty, unseen={place: "input/output error"}))
    for id in ABSENT[place]:
        if id in found:
            assert found[id].outcome in (Outcome.ERROR, Outcome.WARN), (id, found[id].summary)
    assert any(found[id].outcome is Outcome.ERROR for id in ABSENT[place] if id in found)


def test_a_check_that_raises_is_an_error_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image) -> object:
        raise RuntimeError("led astray")

    rows = [(name, broken if name == "kernel" else one) for name, one in checks.CHECKS]
    monkeypatch.setattr(checks, "CHECKS", rows)
    found = checked(trees.debian())
    assert found["kernel.asked"].outcome is Outcome.ERROR
    assert "led astray" in found["kernel.asked"].summary
    assert found["generalised.hostname"].outcome is Outcome.PASS
