"""The row of the guide's table and the outcome, from what the checks found."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.image import checks, predict
from harness.image.image import Image
from harness.image.predict import ROWS, Prediction, Provisions
from harness.image.tree import Tree
from harness.msp import guide, guide_walk
from harness.report import Outcome, Result
from tests.image import trees
from tests.image.checks.breaks import (
    AGENT,
    CLOUD,
    CONFIG,
    DATASOURCE,
    WANTS,
    both,
    driver,
    edit,
    lay,
    line,
    no_agent,
    no_package,
    old_systemd,
    option,
    service,
    unit,
)
from tests.image.trees import KERNEL, file, link, unread

Change = Callable[[Image], Image]
OLD = lay({DATASOURCE: trees.OLD_DATASOURCE})


def predicted(*changes: Change) -> tuple[Prediction, dict[str, Result]]:
    image = both(*changes)(trees.debian())
    found = list(checks.check(image))
    return predict.predict(image, found), {row.id: row for row in predict.results(image, found)}


@pytest.mark.parametrize("name", trees.GOOD)
def test_a_good_image_will_provision(name: str) -> None:
    image = trees.GOOD[name]()
    checked = list(checks.check(image))
    found = predict.predict(image, checked)
    assert (found.row, found.provisions, found.portal_text) == (ROWS[3], Provisions.YES, "")
    outcome = list(predict.results(image, checked))[-1]
    assert outcome.outcome is Outcome.PASS
    assert "MSP-P205" in str(outcome.evidence["if it fails all the same"])
    assert outcome.summary.startswith("it will provision, as far as can be read: ")
    loaded = Result("own-kernel.load.connect4", "", Outcome.PASS, "")
    tried = list(predict.results(image, [*checked, loaded]))[-1]
    assert tried.summary.startswith("it will provision: ")
    assert len(outcome.evidence["not tried"]) == len(tried.evidence["not tried"]) + 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "changes", "provisions", "code", "portal"),
    [
        (1, [no_agent, OLD], Provisions.NO, "MSP-P201",
         "Linux.OSProvisioningInternalError\nLinux.cloud-init successfully reported ready for provisioning but the "
         "platform failed to record success"),
        (2, [no_agent], Provisions.NO, "MSP-P202", "Linux.Cloud-Init failed due to azure-proxy-agent not found"),
        (3, [OLD], Provisions.MAYBE, "MSP-P203", "Linux.OSProvisioningInternalError"),
        (4, [lay({CONFIG: "{"})], Provisions.NO, "MSP-P204", "Cloud-init reports GPA is unhealthy"),
    ],
)  # fmt: skip
def test_the_four_rows(number: int, changes: list[Change], provisions: Provisions, code: str, portal: str) -> None:
    found, results = predicted(*changes)
    assert found.row is ROWS[number - 1]
    assert found.provisions is provisions
    assert found.code is not None
    assert found.code.id == results["prediction.outcome"].code == code
    assert found.portal_text == portal
    assert results["prediction.outcome"].evidence["portal"] == portal
    assert results["prediction.outcome"].outcome is (Outcome.WARN if number == 3 else Outcome.FAIL)
    assert results["prediction.row"].evidence["row"] == number
    assert results["prediction.outcome"].guide == guide.NEW_VM_LINUX


def test_the_texts_are_the_guides_byte_for_byte() -> None:
    text = guide.excerpt(guide_walk.TEXT)
    lines = [one for one in text.splitlines() if one.startswith(("| No |", "| Yes |"))]
    assert len(lines) == len(ROWS) == 4
    for row, words in zip(ROWS, lines, strict=True):
        assert [cell.strip() for cell in words.strip().strip("|").split("|")][:4] == list(row.cells)
        assert row.cells[0] == ("Yes" if row.agent else "No")
        assert row.cells[1] == ("`>= 24.3`" if row.asks else "`< 24.3`")
        for part in row.failure.splitlines():
            assert part in words.replace("`", "")
    causes = ROWS[3].cause.removeprefix("Any of: ")
    assert [cause.name for cause in predict.CAUSES] == re.split(r", ", causes)


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("eBPF setup failure", option("CGROUP_BPF")),
        ("eBPF setup failure", option("DEBUG_INFO_BTF")),
        ("eBPF setup failure", line("lockdown=confidentiality")),
        ("eBPF setup failure", lay({"/usr/lib/azure-proxy-agent/ebpf_cgroup.o": None})),
        ("eBPF setup failure", service("CapabilityBoundingSet=CAP_CHOWN")),
        ("Cgroups v2 not enabled", old_systemd(239, "legacy")),
        ("Cgroups v2 not enabled", line("systemd.unified_cgroup_hierarchy=0")),
        ("generic startup failure", lay({AGENT: file(trees.elf(), 0o644)})),
        ("generic startup failure", lay({AGENT: file(trees.elf(183), 0o755)})),
        ("generic startup failure", lay({"/etc/systemd/system/azure-proxy-agent.service": link("/dev/null")})),
        ("generic startup failure", lay({WANTS: None})),
        ("generic startup failure", unit("DefaultDependencies=no\n", "")),
        ("generic startup failure", lay({CONFIG: None})),
    ],
)  # fmt: skip
def test_the_causes_of_the_fourth_row(cause: str, change: Change) -> None:
    found, results = predicted(change)
    assert found.row is ROWS[3]
    assert found.provisions is Provisions.NO
    assert cause in found.causes
    assert results["prediction.outcome"].remedy
    assert not set(found.reasons) - {row.id for row in checks.check(change(trees.debian()))}


def test_a_key_of_another_vm_is_the_fourth_cause_and_may_be_refused() -> None:
    found, results = predicted(lay({"/var/lib/azure-proxy-agent/keys/a.key": trees.KEY}))
    assert found.provisions is Provisions.YES
    assert "leftovers.keys" in found.reasons
    assert "unless the platform refuses a key" in results["prediction.outcome"].summary


def test_support_decides_and_not_the_version() -> None:
    old = edit(f"{CLOUD}/version.py", "25.1.4", "22.4.2")
    assert predicted(old)[0].row is ROWS[3]  # taken back
    assert predicted(lay({DATASOURCE: trees.PARSING_DATASOURCE}))[0].row is ROWS[2]  # taken out


def test_the_race_with_an_agent_that_cannot_start_is_no_race() -> None:
    found, _ = predicted(OLD, option("CGROUP_BPF"))
    assert found.row is ROWS[2]
    assert found.provisions is Provisions.NO


@pytest.mark.parametrize("name", ["udf", "sr_mod"])
def test_whoever_cannot_read_the_provisioning_disk_does_not_ask(name: str) -> None:
    """cloud-init then takes IMDS's word, which does not say ProvisionGuestProxyAgent."""
    found, results = predicted(driver(name))
    assert (found.row, found.provisions) == (ROWS[2], Provisions.MAYBE)
    assert f"modules.{name}" in found.reasons
    assert "cannot read the provisioning disk" in results["prediction.outcome"].summary
    assert results["prediction.outcome"].code == "MSP-P334"
    assert predicted(driver(name), no_agent)[0].row is ROWS[0]


def test_waagent_without_an_agent_reports_ready_in_vain() -> None:
    waagent = edit("/etc/waagent.conf", "Agent=auto", "Agent=waagent")
    assert predicted(waagent)[0].provisions is Provisions.MAYBE
    assert predicted(waagent, no_agent)[0].provisions is Provisions.NO


def test_an_agent_outside_of_path_is_one_that_cloud_init_does_not_find() -> None:
    found, _ = predicted(lay({AGENT: None, "/opt/a": file(trees.elf(), 0o755)}), unit(AGENT, "/opt/a"))
    assert found.row is ROWS[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit("/etc/waagent.conf", "Agent=auto", "Agent=waagent"), "waagent provisions"),
        (both(lay({CLOUD: None}), no_package("cloud-init")), "cloud-init is not in the image"),
        (lay({"/etc/cloud/cloud-init.disabled": ""}), "cloud-init does not run"),
        (lay({"/etc/cloud/cloud.cfg.d/90.cfg": "datasource_list: [Ec2]"}), "Azure is not in datasource_list"),
    ],
)
def test_where_another_or_nobody_provisions_no_row_applies(change: Change, words: str) -> None:
    found, results = predicted(change)
    assert found.row is None
    assert found.provisions in (Provisions.NO, Provisions.MAYBE)
    assert words in found.summary
    assert results["prediction.row"].outcome is Outcome.SKIP
    assert results["prediction.outcome"].outcome in (Outcome.FAIL, Outcome.WARN)


def test_a_vm_that_does_not_start_has_no_portal_text() -> None:
    for change in (lay({f"/boot/vmlinuz-{KERNEL}": None}), driver("hv_storvsc"), driver("sd_mod")):
        found, results = predicted(change)
        assert found.provisions is Provisions.NO
        assert not found.portal_text
        assert "does not get as far" in results["prediction.outcome"].summary


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lay({DATASOURCE: unread()}), "cloud-init.msp"),
        (lay({f"/boot/config-{KERNEL}": None}), "kernel.config"),
        (lay({AGENT: unread(mode=0o755)}), "agent.executable"),
        (lay({f"/usr/lib/modules/{KERNEL}/modules.dep": unread()}), "modules.drivers"),
        (lay({"/etc/waagent.conf": unread()}), "waagent.provisioning"),
        (lay({"/etc/cloud/cloud.cfg": unread()}), "cloud-init.datasource"),
        (both(lay({"/usr/lib/x86_64-linux-gnu": None}), no_package("systemd")), "cgroup.layout"),
    ],
)
def test_what_could_not_be_found_out_is_no_prediction(change: Change, missing: str) -> None:
    found, results = predicted(change)
    assert found.provisions is Provisions.UNKNOWN
    assert any(missing in one for one in found.missing)
    outcome = results["prediction.outcome"]
    assert outcome.outcome is Outcome.ERROR
    assert missing in str(outcome.evidence["missing"])


def test_of_nothing_nothing_is_predicted() -> None:
    image = Image("empty", trees.DISK, Tree({}))
    found = list(checks.check(image))
    assert {row.outcome for row in predict.results(image, found)} == {Outcome.ERROR}
    assert {row.outcome for row in predict.results(image, [])} == {Outcome.ERROR}
