"""The reference agent as a process of its own in a lab: up to SUCCESS, every scenario, and nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachType
from harness.lab import agent_process, state
from harness.lab.agent_process import QUICK, AgentProcess, in_short, is_latched, is_success, reference_agent, says
from harness.lab.clients import Request
from harness.lab.lab import Lab, open_lab
from harness.lab.scenarios import DEFAULT, SCENARIOS, Scenario, scenario
from harness.lab.state import Run
from harness.lab.worker import wait_until
from harness.msp.endpoints import ENDPOINTS, HOSTGAPLUGIN, IMDS, WIRESERVER, Endpoint
from harness.msp.status import Status
from harness.program import attached
from harness.program.image import Image

PROJECT = Path(__file__).parents[2]
CONNECT4 = AttachType.CGROUP_INET4_CONNECT
NOBODY = 65534
Enter = Callable[..., tuple[Lab, AgentProcess]]


@pytest.fixture
def enter(run: Run, image: Image) -> Iterator[Enter]:
    """Opens a lab with an agent in it; both are closed at the end of the test."""
    with ExitStack() as stack:

        def opened(wanted: Scenario = DEFAULT, **changes: Any) -> tuple[Lab, AgentProcess]:
            lab = stack.enter_context(open_lab(run, proxy_port=0, scenario=wanted))
            return lab, stack.enter_context(reference_agent(lab, run, image, **changes))

        yield opened


def redirected(lab: Lab) -> set[str]:
    """The endpoints that the attached program redirects, as the kernel has them."""
    names = {(endpoint.address, endpoint.port): endpoint.name for endpoint in ENDPOINTS}
    programs = attached.at(lab.attach_cgroup, CONNECT4).programs
    return {names[wanted.address, wanted.port] for program in programs for wanted, _ in program.policies}


def settled(lab: Lab, expected: set[str]) -> bool:
    """Whether just these are redirected, soon."""
    return wait_until(time.monotonic() + 30, lambda: redirected(lab) == expected)


def ask(lab: Lab, endpoint: Endpoint, uid: int = 0) -> tuple[int, bool]:
    """A client's answer: its status, and whether it came through the agent."""
    seen = lab.ask(Request.to(endpoint, uid=uid))
    return seen.status, seen.nonce == lab.nonce


def states(status: Status) -> Mapping[str, str]:
    module = status.module("keyLatchStatus")
    assert module
    return module.states


def test_from_start_to_success(enter: Enter) -> None:
    lab, agent = enter()
    status = agent.wait_for(is_latched, "latch a key")
    platform = lab.platform
    assert states(status)["keyGuid"] == platform.status()["keyGuid"]
    assert states(status)["secureChannelState"] == "WireServer Enforce -  IMDS Enforce - HostGA Enforce"
    assert redirected(lab) == {"imds", "wireserver", "hostgaplugin"}
    (program,) = attached.at(lab.attach_cgroup, CONNECT4).programs
    assert (program.name, program.link is not None) == ("connect4", True)
    events = platform.events()
    assert [event.what for event in events][:3] == ["status", "acquire", "attest"]
    assert events[2].verdict == "verified"
    assert {event.missing for event in events if event.what != "request"} == {()}
    assert [path.stem for path in agent.key_files()] == [states(status)["keyGuid"]]


def test_clients_are_served_by_who_they_are(enter: Enter) -> None:
    lab, agent = enter()
    agent.wait_for(is_latched)
    assert ask(lab, IMDS) == ask(lab, IMDS, NOBODY) == (200, True)
    for endpoint in (WIRESERVER, HOSTGAPLUGIN):
        assert ask(lab, endpoint) == (200, True)
        assert ask(lab, endpoint, NOBODY) == (403, True)
    seen = [event for event in lab.platform.events() if "processId" in event.claims]
    assert [event.verdict for event in seen] == ["verified"] * 4
    agent.wait_for(lambda status: len(agent.document()["failedAuthenticateSummary"]) == 2)
    rows = agent.document()["failedAuthenticateSummary"]
    assert {(row["userName"], row["ip"], row["port"]) for row in rows} == {
        ("nobody", "168.63.129.16", 80),
        ("nobody", "168.63.129.16", 32526),
    }


def test_the_agent_sees_the_runs_cgroup_as_root_and_the_host_sees_nothing(enter: Enter) -> None:
    lab, agent = enter()
    agent.wait_for(is_latched)
    root = cgroups.layout().cgroup2[0].point
    assert attached.at(root, CONNECT4).programs == ()
    mountinfo = Path(f"/proc/{agent.pid}/mountinfo").read_text()
    found = [mount for mount in cgroups.parse_mounts(mountinfo) if mount.type == "cgroup2"]
    assert [str(mount.point) for mount in found] == ["/sys/fs/cgroup"]
    assert cgroups.processes(lab.attach_cgroup / "agent").count(agent.pid) == 1
    for name, same in (("pid", True), ("mnt", False), ("cgroup", False), ("net", False)):
        links = [Path(f"/proc/{pid}/ns/{name}").readlink() for pid in ("self", str(agent.pid))]
        assert (links[0] == links[1]) is same, name


TROUBLE = {
    "unknown": "Failed to acquire key details: ",
    "refused": "Failed to acquire key details: ",
    "attest-refused": "Failed to attest the key: ",
    "clock": "Failed to attest the key: ",
    "status-error": "Failed to get key status - ",
    "status-malformed": "Failed to get key status - ",
    "status-missing": "Failed to get key status - ",
    "status-scheme": "Failed to get key status - ",
    "unreachable": "Failed to get key status - ",
}
OFF = {"disabled", "v1-disabled"}
EVERY = {"imds", "wireserver", "hostgaplugin"}
PARTLY = {"v1-wireserver": {"wireserver", "hostgaplugin"}, "rules-disabled": set[str]()}


@pytest.mark.parametrize("wanted", SCENARIOS, ids=lambda row: row.name)
def test_every_scenario(wanted: Scenario, enter: Enter) -> None:
    if wanted.delay:
        wanted = wanted.changed(delay=0.2)
    lab, agent = enter(wanted)
    if wanted.name in TROUBLE:
        status = agent.wait_for(says(TROUBLE[wanted.name]))
        assert states(status)["secureChannelState"] == "Unknown"
        assert "keyGuid" not in states(status)
        assert is_success(status), "RUNNING says that the loop runs, and no more"
        assert redirected(lab) == set()
        assert agent.ask_status(0).returncode == 1
        return
    if wanted.name in OFF:
        status = agent.wait_for(says("Customer has not enforce"))
        assert states(status)["secureChannelState"] == "disabled"
        expected = set[str]()
    else:
        agent.wait_for(is_latched)
        expected = PARTLY.get(wanted.name, EVERY)
    # the status may be written between the key and the policy
    assert settled(lab, expected), redirected(lab)
    done = agent.ask_status(10)
    assert (done.returncode, done.stdout) == (0, b"provisioned\n")


def test_rules_come_and_go_with_the_status(enter: Enter) -> None:
    lab, agent = enter()
    agent.wait_for(is_latched)
    for name, expected in (
        ("v1-wireserver", {"wireserver", "hostgaplugin"}),
        ("disabled", set[str]()),
        ("audit", EVERY),
    ):
        lab.platform.set(scenario(name))
        assert settled(lab, expected), name


def test_a_reset_heals_without_a_restart(enter: Enter) -> None:
    lab, agent = enter(scenario("unknown"))
    agent.wait_for(says("Failed to acquire"))
    assert ask(lab, IMDS) == (403, False)
    assert not lab.platform.reset(1)
    lab.platform.events()
    assert wait_until(time.monotonic() + 30, lambda: any(event.what == "acquire" for event in lab.platform.events()))
    assert says("Failed to acquire")(agent.wait_for(lambda status: True))
    assert lab.platform.reset(2)
    status = agent.wait_for(is_latched)
    assert states(status)["keyIncarnationId"] == "2"
    assert ask(lab, IMDS) == (200, True)


def test_a_restart_finds_the_key(run: Run, image: Image) -> None:
    with open_lab(run, proxy_port=0, scenario=DEFAULT) as lab:
        with reference_agent(lab, run, image) as agent:
            first = states(agent.wait_for(is_latched))["keyGuid"]
            assert agent.stop() == 0
            stopped = agent.status()
            assert stopped
            assert stopped.status == "ERROR"
        lab.platform.events()
        with reference_agent(lab, run, image) as agent:
            status = agent.wait_for(is_latched)
            assert says("Found key details from local")(status)
            assert states(status)["keyGuid"] == first
            assert "acquire" not in {event.what for event in lab.platform.events()}


def test_sigterm_detaches_and_ends_with_0(enter: Enter) -> None:
    lab, agent = enter()
    agent.wait_for(is_latched)
    assert agent.stop() == 0
    assert attached.at(lab.attach_cgroup, CONNECT4).programs == ()
    assert not agent.alive
    assert agent.told() == ""


def test_sigkill_of_the_agent_leaves_no_program(enter: Enter) -> None:
    lab, agent = enter()
    agent.wait_for(is_latched)
    agent.kill()
    gone = wait_until(time.monotonic() + 30, lambda: attached.at(lab.attach_cgroup, CONNECT4).programs == ())
    assert gone
    assert ask(lab, IMDS) == (403, False)  # nothing signs any more, and the platform wants it signed


def test_an_object_that_is_none_is_told_in_the_agents_words(enter: Enter, run: Run) -> None:
    lab, agent = enter(changes={"image": run.directory / "none"})
    status = agent.wait_for(lambda status: status.status == "ERROR")
    module = status.module("ebpfProgramStatus")
    assert module
    assert module.message == (
        f"Failed to start redirector: Loading BPF object from file path '{run.directory}/none' failed with error: "
        "No such file or directory (os error 2)"
    )
    log = (agent.launch.log_folder / "ProxyAgent.log").read_text()
    assert log.count("Failed to start redirector: ") == 5
    assert "Failed to start eBPF/redirector with multiple retries" in log
    assert attached.at(lab.attach_cgroup, CONNECT4).programs == ()
    done = agent.ask_status(0)
    assert done.returncode == 1


def test_an_exclusive_program_on_the_way_fails_the_attach_in_the_agents_words(run: Run, image: Image) -> None:
    from harness.failures.attach_targets import allowing

    with open_lab(run, proxy_port=0, scenario=DEFAULT) as lab, allowing() as other:
        directory = bpf.Fd(cgroups.open_directory(lab.attach_cgroup))
        with directory:
            bpf.prog_attach(directory.fileno(), other, CONNECT4)
            with reference_agent(lab, run, image) as agent:
                status = agent.wait_for(lambda status: status.status == "ERROR")
                module = status.module("ebpfProgramStatus")
                assert module
                assert module.message == (
                    "Failed to start redirector: Failed to attach program 'connect4' with error: "
                    "`bpf_link_create` failed"
                )
            bpf.prog_detach(directory.fileno(), other, CONNECT4)


def test_provisioning_gives_up_and_says_why(enter: Enter) -> None:
    _, agent = enter(scenario("refused"), times=replace(QUICK, provision=0.2))
    done = agent.ask_status(10)
    assert done.returncode == 1
    line = b'keyLatchStatus - Failed to acquire key details: Key(KeyResponse("acquire", 403))'
    assert done.stderr.strip() == line
    tag = agent.launch.key_folder / "status.tag"
    assert wait_until(time.monotonic() + 30, tag.exists)
    assert tag.read_bytes() == line + b"\r\n"


def test_a_command_that_cannot_be_run_is_an_error_with_its_name(run: Run, image: Image) -> None:
    with open_lab(run, proxy_port=0, scenario=DEFAULT) as lab:
        launch = agent_process.reference_launch(lab, run.directory / "agent", image)
        missing = replace(launch, command=["/nonexistent/agent"])
        with (
            pytest.raises(HarnessError, match="start the agent `/nonexistent/agent`"),
            agent_process.started(lab, missing),
        ):
            pass
        assert cgroups.processes(lab.attach_cgroup / "agent") == [lab.proxy.pid]


def test_an_agent_that_ends_at_once_is_told_with_what_it_printed(run: Run, image: Image) -> None:
    with open_lab(run, proxy_port=0, scenario=DEFAULT) as lab:
        launch = agent_process.reference_launch(lab, run.directory / "agent", image)
        (run.directory / "agent" / "proxy-agent.json").write_text("{")
        with agent_process.started(lab, launch) as agent:
            with pytest.raises(HarnessError, match="it ended with") as caught:
                agent.wait_for(is_success)
            assert "it is not JSON" in caught.value.detail


SCRIPT = """
grep -q given /etc/azure-of-a-test/given || exit 3
mkdir -p /var/log/azure-of-a-test /etc/azure-of-a-test
echo '{"proxyAgentStatus": {"status": "SUCCESS"}}' > /var/log/azure-of-a-test/status.json
grep -q bound /etc/passwd || exit 4
exec sleep 60
"""


def test_an_agent_with_fixed_paths_writes_into_the_run_and_not_onto_the_host(run: Run) -> None:
    folder = Path("/var/log/azure-of-a-test")
    home = run.directory / "agent"
    home.mkdir()
    (home / "bound").write_text("bound")
    if "overlay" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no overlayfs: agents with fixed paths cannot be run here")
    with open_lab(run, proxy_port=0, scenario=DEFAULT) as lab:
        launch = agent_process.Launch(
            ["/bin/sh", "-c", SCRIPT],
            log_folder=folder,
            key_folder=folder,
            output=home / "output",
            binds=[(home / "bound", Path("/etc/passwd"))],
            overlays=[Path("/etc"), Path("/var/log")],
        )
        launch = replace(launch, log_folder=launch.written(folder))
        given = launch.written(Path("/etc/azure-of-a-test/given"))
        given.parent.mkdir(parents=True)
        given.write_text("given")
        with agent_process.started(lab, launch) as agent:
            agent.wait_for(is_success)
            assert agent.alive
        assert not folder.exists()
        assert not Path("/etc/azure-of-a-test").exists()


CHILD = """
import sys
from pathlib import Path
from harness.kernel import cgroups
from harness.lab import state
from harness.lab.agent_process import is_latched, reference_agent
from harness.lab.lab import open_lab
from harness.lab.scenarios import DEFAULT
from harness.program.image import Image

image = Image.parse(Path(sys.argv[1]).read_text())
with state.begin(cgroups.layout().cgroup2[0].point) as run, open_lab(run, proxy_port=0, scenario=DEFAULT) as lab:
    with reference_agent(lab, run, image) as agent:
        print(agent.pid, flush=True)
        agent.wait_for(is_latched)
        print("latched", flush=True)
        sys.stdin.read()
"""


@contextmanager
def harness_process(image: Image, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = tmp_path / "image.json"
    file.write_text(image.dump())
    environment = os.environ | {"MSP_HARNESS_STATE": str(tmp_path / "state")}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file)],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("moment", ["started", "latched"])
def test_sigkill_of_the_harness_leaves_nothing(
    moment: str, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSP_HARNESS_STATE", str(tmp_path / "state"))
    with harness_process(image, tmp_path) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        if moment == "latched":
            assert process.stdout.readline() == b"latched\n"
        (home,) = (path for path in (tmp_path / "state").iterdir() if path.is_dir())
        group = Path((home / "cgroup").read_text().strip())
        assert group.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_until(time.monotonic() + 30, lambda: not Path(f"/proc/{pid}").exists())
    assert state.clean() == [home.name]
    assert not group.exists()
    assert not home.exists()


def test_what_a_status_says_in_short(enter: Enter) -> None:
    _, agent = enter(scenario("unknown"))
    assert "keyLatchStatus RUNNING (Failed to acquire" in in_short(agent.wait_for(says("Failed to acquire")))
