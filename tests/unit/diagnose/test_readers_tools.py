"""What real tools print is read: a unit in every state, every output format, mounts, bpftool, logs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from harness.diagnose import facts as f
from harness.diagnose import intake

CORPUS = Path(__file__).parents[2] / "corpus" / "readers"
SYSTEMDS = ("systemd-247", "systemd-252", "systemd-257")
UNIT = "azure-proxy-agent.service"


def read(*names: str) -> f.Evidence:
    found = intake.read([CORPUS.joinpath(name) for name in names])
    assert not [note for note in found.notes if note.kind is not f.NoteKind.NOT_UNDERSTOOD]
    return found


def unit(name: str) -> f.UnitState:
    return next(state for state in read(name).of(f.UnitState) if state.name == UNIT)


# --- systemctl ----------------------------------------------------------------------------------------------------

# state: load, enabled, active, sub, exit code, exit status, result; of systemctl status
STATES = {
    "not-found": ("not-found", None, "inactive", "dead", None, None, None),
    "inactive-disabled": ("loaded", "disabled", "inactive", "dead", None, None, None),
    "running": ("loaded", "enabled", "active", "running", None, None, None),
    "stopped": ("loaded", "enabled", "inactive", "dead", "killed", "TERM", None),
    "failed-exit": ("loaded", "enabled", "failed", None, "exited", "3", "exit-code"),
    "auto-restart": ("loaded", "enabled", "activating", "auto-restart", "exited", "3", "exit-code"),
    "killed": ("loaded", "enabled", "failed", None, "killed", "KILL", "signal"),
    "exec-203": ("loaded", "enabled", "failed", None, "exited", "203/EXEC", "exit-code"),
    "masked": ("masked", None, "failed", None, "exited", "203/EXEC", "exit-code"),
}


@pytest.mark.parametrize("systemd", SYSTEMDS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", ["systemctl-status.txt", "systemctl-colour.txt"])
def test_systemctl_status(systemd: str, state: str, form: str) -> None:
    found = unit(f"{systemd}/{state}/{form}")
    read = (found.load, found.enabled, found.active, found.sub, found.exit_code, found.exit_status, found.result)
    assert read == STATES[state]
    if found.load == "loaded":
        assert found.fragment == f"/etc/systemd/system/{UNIT}"
        assert f"Active: {found.active}" in found.source.text
    if found.active not in ("inactive",):
        assert found.since_at
    if state == "running":
        assert found.pid
        assert found.executable == "sleep"


@pytest.mark.parametrize("systemd", SYSTEMDS)
@pytest.mark.parametrize("state", STATES)
def test_systemctl_show_says_the_same(systemd: str, state: str) -> None:
    found = unit(f"{systemd}/{state}/systemctl-show.txt")
    load, enabled, active, *_ = STATES[state]
    assert (found.load, found.active) == (load, active)
    assert found.enabled == ("masked" if state == "masked" else enabled)


# state: what is-active and is-enabled answer
ANSWERS = {
    "not-found": ("inactive", None),
    "running": ("active", "enabled"),
    "failed-exit": ("failed", "enabled"),
    "auto-restart": ("activating", "enabled"),
    "masked": ("failed", "masked"),
}


@pytest.mark.parametrize("systemd", SYSTEMDS)
@pytest.mark.parametrize("state", ANSWERS)
def test_is_active_and_is_enabled(systemd: str, state: str) -> None:
    states = read(f"{systemd}/{state}/asked.txt").of(f.UnitState)
    active, enabled = ANSWERS[state]
    assert {one.active for one in states if one.active} == {active}
    if enabled:
        assert {one.enabled for one in states if one.enabled} == {enabled}
    else:
        assert any(one.load == "not-found" for one in states)


@pytest.mark.parametrize("systemd", SYSTEMDS)
def test_lists_of_units(systemd: str) -> None:
    running = unit(f"{systemd}/running/list-units.txt")
    assert (running.load, running.active, running.sub) == ("loaded", "active", "running")
    assert unit(f"{systemd}/masked/list-unit-files.txt").enabled == "masked"
    assert unit(f"{systemd}/failed-exit/list-units.txt").active == "failed"


@pytest.mark.parametrize("systemd", SYSTEMDS)
def test_a_units_file(systemd: str) -> None:
    found = read(f"{systemd}/running/systemctl-cat.txt").first(f.UnitFile)
    assert found
    assert found.exec_start == ("/usr/sbin/azure-proxy-agent",)
    assert found.before == ("network-pre.target",)
    assert found.wanted_by == ("multi-user.target",)
    assert unit(f"{systemd}/not-found/systemctl-cat.txt").load == "not-found"
    assert unit(f"{systemd}/masked/systemctl-cat.txt").load == "masked"


def test_systemctl_without_systemd() -> None:
    found = read("hybrid/systemctl.txt")
    assert not found.facts
    assert "no systemd to ask" in found.notes[0].what


# --- the journal --------------------------------------------------------------------------------------------------

FORMS = ("short", "short-iso", "short-iso-precise", "short-full", "short-precise", "short-unix", "short-monotonic",
         "verbose", "export", "json", "json-pretty", "json-sse", "json-seq", "with-unit")  # fmt: skip
WITHOUT_DATE = ("short", "short-precise", "short-monotonic")  # no year, or no date


@pytest.mark.parametrize("systemd", SYSTEMDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_output_of_journalctl(systemd: str, form: str) -> None:
    found = read(f"{systemd}/journal/journal-{form}.txt")
    (entry,) = found.of(f.UnitLog)
    assert entry.message == "started"
    assert (entry.identifier or "").startswith("azure-proxy-agent")
    assert entry.host == "vm1"
    assert entry.pid
    assert (entry.at is None) == (form in WITHOUT_DATE)
    assert [one.value for one in found.of(f.Identity)] == ["vm1"]


def test_journalctl_cat_and_delta() -> None:
    delta = read("systemd-257/journal/journal-short-delta.txt").of(f.UnitLog)
    assert [entry.message for entry in delta] == ["started"]
    text = b"root@vm1:~# journalctl -u azure-proxy-agent -o cat\nstarted\nstarted\nended\n"
    rows = intake.read_bytes(text).of(f.UnitLog)
    assert [(row.unit, row.message, row.count) for row in rows] == [
        ("azure-proxy-agent", "started", 2),
        ("azure-proxy-agent", "ended", 1),
    ]


# --- mounts, file systems, the machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mount.txt", "findmnt.txt", "findmnt-all.json", "proc-mounts", "mountinfo"])
def test_a_hybrid_layout(name: str) -> None:
    (mounts,) = read(f"hybrid/{name}").of(f.Mounts)
    assert mounts.only == ""
    assert [str(mount.point) for mount in mounts.cgroup2] == ["/sys/fs/cgroup/unified"]
    assert len(mounts.v1) > 5
    assert "/sys/fs/cgroup/unified" in mounts.source.text or name.endswith(".json")


@pytest.mark.parametrize("name", ["mount-cgroup2.txt", "findmnt-t-cgroup2.txt", "findmnt.json"])
def test_cgroup2_alone(name: str) -> None:
    (mounts,) = read(f"hybrid/{name}").of(f.Mounts)
    assert [str(mount.point) for mount in mounts.mounts] == ["/sys/fs/cgroup/unified"]
    assert mounts.says_about("cgroup2")
    assert not mounts.says_about("tmpfs")


@pytest.mark.parametrize("systemd", SYSTEMDS)
@pytest.mark.parametrize("name", ["mount.txt", "findmnt.txt", "findmnt.json"])
def test_a_unified_layout(systemd: str, name: str) -> None:
    (mounts,) = read(f"{systemd}/system/{name}").of(f.Mounts)
    assert [str(mount.point) for mount in mounts.cgroup2] == ["/sys/fs/cgroup"]
    assert not mounts.v1


def test_file_systems() -> None:
    (whole,) = read("hybrid/filesystems").of(f.Filesystems)
    assert whole.whole
    assert whole.cgroup2
    assert "ext4" in whole.names
    (part,) = read("hybrid/grep-cgroup.txt").of(f.Filesystems)
    assert not part.whole
    assert part.names == {"cgroup", "cgroup2"}


def test_the_machine() -> None:
    for name in ("hybrid/uname-a.txt", "hybrid/uname-r.txt"):
        (release,) = read(name).of(f.KernelRelease)
        assert release.release == "6.18.44-fc-v669"
        assert release.version == (6, 18)
    for systemd, version in zip(SYSTEMDS, ("11", "12", "13"), strict=True):
        (system,) = read(f"{systemd}/system/os-release").of(f.OsRelease)
        assert (system.id, system.version) == ("debian", version)
        found = read(f"{systemd}/system/hostnamectl.txt")
        assert found.of(f.KernelRelease)[0].release == "6.18.44-fc-v669"
        kinds = {one.kind for one in found.of(f.Identity)}
        assert kinds == {f.IdentityKind.HOST, f.IdentityKind.MACHINE}
        (machine,) = read(f"{systemd}/system/machine-id").of(f.Identity)
        assert machine.kind is f.IdentityKind.MACHINE


def test_packages_and_paths() -> None:
    for name in ("hybrid/dpkg-l.txt", "hybrid/dpkg-s.txt"):
        (package,) = read(name).of(f.Package)
        assert (package.name, package.installed) == ("azure-proxy-agent", False)
    gone = [seen for seen in read("hybrid/ls.txt").of(f.PathSeen) if not seen.exists]
    assert [seen.path for seen in gone] == ["/usr/sbin/azure-proxy-agent"]


# --- bpftool ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "single"])
@pytest.mark.parametrize("form", ["txt", "json"])
def test_bpftool_sees_connect4(way: str, form: str) -> None:
    (programs,) = read(f"attached/{way}-prog.{form}").of(f.BpfPrograms)
    (connect4,) = [program for program in programs.programs if program.name == "connect4"]
    assert connect4.type == "cgroup_sock_addr"
    assert connect4.tag == "bee5f73e48349af6"
    assert "connect4" in programs.source.text
    for name, tree in ((f"attached/{way}-tree.{form}", True), (f"attached/{way}-show.{form}", False)):
        (attached,) = read(name).of(f.CgroupPrograms)
        (one,) = [program for program in attached.programs if program.connect4]
        assert (one.name, one.id) == ("connect4", connect4.id)
        assert one.flags == ("multi" if way == "link" else "")
        assert attached.whole is tree
        assert (one.cgroup is not None) is tree


def test_bpftools_effective_list() -> None:
    (attached,) = read("attached/link-show-effective.txt").of(f.CgroupPrograms)
    assert attached.effective
    assert any(program.connect4 and program.name == "connect4" for program in attached.programs)


def test_bpftool_with_nothing_attached() -> None:
    for name in ("hybrid/bpftool-cgroup-tree.txt", "hybrid/bpftool-cgroup-tree.json"):
        (attached,) = read(name).of(f.CgroupPrograms)
        assert attached.whole
        assert not attached.programs
    assert read("hybrid/bpftool-prog.json").first(f.BpfPrograms) == f.BpfPrograms(
        f.Source(str(CORPUS / "hybrid/bpftool-prog.json"), 1, "[]"), ()
    )


def test_bpftool_with_systemds_programs() -> None:
    text, json = (
        read(f"systemd-257/system/bpftool-cgroup-tree.{form}").of(f.CgroupPrograms)[0] for form in ("txt", "json")
    )
    assert [(one.cgroup, one.id) for one in text.programs] == [(one.cgroup, one.id) for one in json.programs]
    assert len(text.programs) == 9
    listed = read("systemd-257/system/bpftool-prog.txt").of(f.BpfPrograms)[0]
    assert {one.id for one in listed.programs} == {one.id for one in text.programs}


# --- the agent and cloud-init -------------------------------------------------------------------------------------

# scenario: proxyAgentStatus.status, what keyLatchStatus says
SCENARIOS = {
    "enforce": ("SUCCESS", "Successfully attest the key and ready to use."),
    "audit": ("SUCCESS", "Successfully attest the key and ready to use."),
    "disabled": ("SUCCESS", "Customer has not enforce the secure channel state."),
    "refused": ("SUCCESS", 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'),
    "unknown": ("SUCCESS", 'Failed to acquire key details: Key(KeyResponse("acquire", 403))'),
    "attest-refused": ("SUCCESS", 'Failed to attest the key: Key(KeyResponse("attest", 403))'),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_agents_files(scenario: str) -> None:
    found = read(f"agent/{scenario}")
    (status,) = found.of(f.AgentStatus)
    overall, message = SCENARIOS[scenario]
    assert status.status.status == overall
    assert status.status.whole
    key = status.status.module("keyLatchStatus")
    assert key
    assert key.message == message
    assert status.place("keyLatchStatus").text == '"keyLatchStatus": {'
    assert status.at
    events = found.of(f.AgentLogEvent)
    assert events[0].message.startswith("reference agent")
    assert any(message in event.message for event in events)
    assert {event.component for event in events} == {f.Component.AGENT}
    if scenario == "attest-refused":  # the same three lines for each try
        assert max(event.count for event in events) > 10


def test_cloud_inits_own_reports() -> None:
    reports = read("cloud-init/25.1.4/reports.txt").of(f.ProvisioningReport)
    assert [report.reason for report in reports] == [
        "azure-proxy-agent not found",
        "azure-proxy-agent status failure",
        "failure to obtain DHCP lease",
    ]
    assert reports[1].fields["exit_code"] == "1"
    assert reports[1].fields["stdout"].endswith("`bpf_link_create` failed")
    assert reports[1].fields["stderr"] == "a|b'c"
    assert reports[0].agent == "Cloud-Init/25.1.4"


@pytest.mark.parametrize("width", [60, 72, 78])
def test_what_a_mail_wrapped(width: int) -> None:
    """The real outputs, quoted and wrapped at blanks: the same facts."""
    names = ["systemd-252/failed-exit/systemctl-status.txt", "systemd-257/running/systemctl-status.txt",
             "cloud-init/25.1.4/reports.txt", "cloud-init/25.1.4/agent-not-found.log"]  # fmt: skip
    for name in names:
        before = read(name)
        lines = [piece for line in (CORPUS / name).read_text().splitlines() for piece in wrapped(line, width)]
        after = intake.read_bytes("\n".join("> " + line for line in lines).encode(), "mail")
        assert states(after) == states(before), name


def wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True,
                         replace_whitespace=False) or [""]  # fmt: skip


def states(found: f.Evidence) -> list[object]:
    units = [(one.name, one.load, one.enabled, one.active, one.sub, one.since, one.exit_status, one.pid)
             for one in found.of(f.UnitState)]  # fmt: skip
    reports = [one.fields for one in found.of(f.ProvisioningReport)]
    return [*units, *reports, *(event.message for event in found.of(f.CloudInitEvent) if event.level == "ERROR")]


def test_cloud_inits_logs() -> None:
    found = read("cloud-init/25.1.4/agent-not-found.log")
    errors = [event.message for event in found.of(f.CloudInitEvent) if event.level == "ERROR"]
    assert errors[0] == "Failed to activate Azure Guest Proxy Agent: azure-proxy-agent not found"
    assert found.of(f.ProvisioningReport)[0].reason == "azure-proxy-agent not found"
    assert any(event.message == "ProvisionGuestProxyAgent: True" for event in found.of(f.CloudInitEvent))
    unhealthy = read("cloud-init/25.1.4/agent-unhealthy.log")
    assert unhealthy.of(f.ProvisioningReport)[0].reason == "azure-proxy-agent status failure"
    assert unhealthy.of(f.StatusTag)[0].failures == {
        "ebpfProgramStatus": "Failed to start redirector: Failed to attach program connect4"
    }
    for version in ("22.4.2", "25.1.4"):
        found = read(f"cloud-init/{version}/init-local.log")
        assert [one.version for one in found.of(f.CloudInitVersion)] == [version]
        assert len(found.of(f.CloudInitEvent)) > 20


@pytest.mark.parametrize(("systemd", "version"), [*zip(SYSTEMDS, ("20.4.1", "22.4.2", "25.1.4"), strict=True)])
def test_cloud_init_itself(systemd: str, version: str) -> None:
    (found,) = read(f"{systemd}/system/cloud-init-version.txt").of(f.CloudInitVersion)
    assert found.version == version
    (state,) = read(f"{systemd}/system/cloud-init-status.txt").of(f.CloudInitState)
    assert state.status == "disabled"


def test_ovf_env() -> None:
    found = read("cloud-init/ovf-env.xml")
    (settings,) = found.of(f.OvfEnv)
    assert settings.provision_guest_proxy_agent is True
    assert settings.preprovisioned is False
    assert settings.hostname == "vm1"
    assert "ProvisionGuestProxyAgent" in settings.source.text
