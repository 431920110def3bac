"""Jobs that end as they should, from a saved guest and from a cold boot; what is left of them: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.report import Outcome, Report
from harness.vm import accelerator, cache, criu, frozen, migrated, saved, sparse
from harness.vm.guest import Guest
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine
from harness.vm.run import run
from harness.vm.saved import Saved
from tests.vm.script import evidence, qemus, script

ROOT = Path(__file__).resolve().parents[2]

SPEC = "bookworm"  # the kernel of these tests


FORMS = ("frozen", "migrated")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """In which form guests are saved by this process: frozen by CRIU, where one works, or QEMU's own."""
    if request.param == "migrated":
        monkeypatch.setattr(criu, "command", lambda tell=None: ())
    elif not criu.command():
        pytest.skip(f"no CRIU works here: {json.loads((cache.directory() / 'criu.json').read_text())['why']}")
    return str(request.param)


@pytest.mark.usefixtures("form")
def test_guests_that_were_just_saved_resumed_and_booted_say_the_same(kernel: Kernel, guest_image: Guest) -> None:
    def said(report: Report) -> list[tuple[str, Outcome]]:
        return [(result.id, result.outcome) for result in report.results]

    def whole(report: Report) -> list[object]:
        return [(result.id, result.title, result.outcome, result.summary, result.evidence) for result in report.results]

    job, machine = Job(("verify", "--quick")), Machine(kernel)
    saved.discard(saved.name(machine, guest_image, accelerator.usable(machine, guest_image)))
    first, second, booted = run(machine, job), run(machine, job), run(machine, Job(job.arguments, fresh=True))
    assert ["saved" in first.target, "resumed" in second.target, "booted" in booted.target] == [True, True, True]
    assert whole(first) == whole(second)
    assert said(second) == said(booted)
    assert {outcome for _, outcome in said(second)} == {Outcome.PASS}
    assert len({report.run for report in (first, second, booted)}) == 3


@pytest.mark.usefixtures("form")
def test_what_the_first_job_left_is_not_saved(kernel: Kernel, guest_image: Guest) -> None:
    """It is done by the guest that was saved, whose memory was copied before, or by a copy."""
    name = saved.name(Machine(kernel), guest_image, accelerator.usable(Machine(kernel), guest_image))
    saved.discard(name)
    first = script(kernel, LEAVE + LOOK)
    assert len(evidence(first)["found"]) == 3  # type: ignore[arg-type]
    assert saved.find(name) is not None
    assert evidence(script(kernel, LOOK))["found"] == []


LEAVE = """
pathlib.Path("/tmp/left").write_text("")
pathlib.Path("/sys/fs/cgroup/left").mkdir()
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
pathlib.Path("/sys/fs/bpf/left").mkdir()
os.environ["LEFT"] = "1"
"""
LOOK = """
ports = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
found = [path for path in ("/tmp/left", "/sys/fs/cgroup/left", "/sys/fs/bpf/left") if os.path.exists(path)]
tell(found=found, ports=ports, jobs=len(list(pathlib.Path("/tmp").glob("job*"))), environment="LEFT" in os.environ)
"""


@pytest.mark.usefixtures("form")
def test_no_job_sees_what_another_left(kernel: Kernel) -> None:
    left = script(kernel, LEAVE + LOOK)
    assert len(evidence(left)["found"]) == 3  # type: ignore[arg-type]
    assert evidence(left)["ports"] == ["40000", "40001"]
    seen = evidence(script(kernel, LOOK))
    assert seen["found"] == []
    assert seen["ports"] != ["40000", "40001"]
    assert (seen["jobs"], seen["environment"]) == (1, False)


@pytest.mark.usefixtures("form")
def test_copies_have_the_time_and_randomness_of_their_own(kernel: Kernel) -> None:
    text = "import random; tell(now=time.time(), random=[uuid.uuid4().hex, random.random(), os.urandom(8).hex()])"
    first, second = (evidence(script(kernel, text)) for _ in range(2))
    assert abs(float(str(second["now"])) - time.time()) < 60
    assert all(a != b for a, b in zip(first["random"], second["random"], strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("layout", "root", "found"),
    [
        (Cgroup.V2, "cgroup2", "unified"),
        (Cgroup.HYBRID, "tmpfs", "hybrid"),
        (Cgroup.V1, "tmpfs", "legacy"),
        (Cgroup.NONE, "nothing", "none"),
    ],
)
def test_layouts_of_cgroups(kernel: Kernel, layout: Cgroup, root: str, found: str) -> None:
    text = "here = cgroups.layout()\n"
    text += "tell(name=here.name, root=here.configured_root_type, v2=[str(mount.point) for mount in here.cgroup2])"
    told = evidence(script(Machine(kernel, cgroup=layout), text, fresh=True))
    assert (told["name"], told["root"]) == (found, root)
    assert told["v2"] == {"v2": ["/sys/fs/cgroup"], "hybrid": ["/sys/fs/cgroup/unified"]}.get(layout, [])


def interrupted(kernel: Kernel, number: signal.Signals) -> tuple[list[int], int]:
    """End a host process by a signal while its guest is at work: the QEMUs that it had, and its exit status."""
    code = (
        "import sys\n"
        "from harness import cli, interruption\n"
        "from harness.cli import vm\n"
        "vm.run_verify = lambda options: vm._run(options, ['python', 'script.py'],"
        " {'script.py': b'import time; time.sleep(1000)'}, str, lambda: '')\n"
        f"sys.exit(cli.main(['vm', 'verify', '--kernel', {SPEC!r}]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (started := qemus(parent.pid)):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # well into the job, or still at its start: it makes no difference
    finally:
        parent.send_signal(number)
        status = parent.wait()
    return started, status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_qemu_outlives_who_started_it(kernel: Kernel, number: signal.Signals, status: int) -> None:
    started, found = interrupted(kernel, number)
    assert found == status
    deadline = time.monotonic() + 20
    for pid in started:
        while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}/cmdline").exists()


def test_two_at_once(kernel: Kernel) -> None:
    code = (
        "from harness.vm import spec\n"
        "from harness.vm.job import Job\n"
        "from harness.vm.machine import Machine\n"
        "from harness.vm.run import run\n"
        f"report = run(Machine(spec.resolve({SPEC!r})), Job(('verify', '--only', 'load')))\n"
        "assert ', booted' not in report.target and {result.outcome for result in report.results} == {'PASS'}, report\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]


class TestASavedGuestThatDoesNotComeBack:
    """Its job is done by a cold boot, its Report says why, and the state is thrown away."""

    JOB = Job(("verify", "--only", "load"))

    @pytest.fixture
    def state(
        self, kernel: Kernel, guest_image: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> Saved:
        """A copy of a good state, in a cache of its own that has all else of the usual one."""
        run(Machine(kernel), self.JOB)
        name = saved.name(Machine(kernel), guest_image, accelerator.usable(Machine(kernel), guest_image))
        usual = cache.directory()
        place = tmp_path / "vm"
        (place / saved.KIND).mkdir(parents=True)
        for part in usual.iterdir():
            if part.name == "criu.json":
                (place / part.name).write_bytes(part.read_bytes())  # not for others to distrust
            elif part.name != saved.KIND:
                (place / part.name).symlink_to(part)
        places = [str(top / saved.KIND / name) for top in (usual, place)]
        subprocess.run(["cp", "--recursive", "--sparse=always", *places], check=True)
        monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
        monkeypatch.setattr(cache, "directory", lambda: place)
        return Saved(place / saved.KIND / name)

    def is_booted_cold(self, kernel: Kernel, state: Saved, why: str) -> None:
        report = run(Machine(kernel), self.JOB)
        assert f"booted, for the saved one did not come back: {why}" in report.target
        assert {result.outcome for result in report.results} == {Outcome.PASS}
        assert not state.entry.exists()

    @pytest.mark.parametrize("form", ["migrated"], indirect=True)
    def test_its_devices_are_garbage(self, kernel: Kernel, state: Saved) -> None:
        devices = state.entry / migrated.DEVICES
        devices.write_bytes(b"\xff" * devices.stat().st_size)
        self.is_booted_cold(kernel, state, "")

    @pytest.mark.parametrize("form", ["frozen"], indirect=True)
    def test_its_process_is_garbage(self, kernel: Kernel, state: Saved) -> None:
        """The damage is told, and CRIU is not to blame."""
        (core,) = (state.entry / frozen.IMAGES).glob("mm-*.img")
        core.write_bytes(b"\xff" * core.stat().st_size)
        self.is_booted_cold(kernel, state, f"frozen/{core.name} is not what was saved")
        assert criu.command()

    @pytest.mark.parametrize("form", ["frozen"], indirect=True)
    def test_a_whole_one_that_does_not_come_back_is_the_last_of_its_form(self, kernel: Kernel, state: Saved) -> None:
        """What CRIU wrote is whole by its checksum, and no image of CRIU."""
        (core,) = (state.entry / frozen.IMAGES).glob("mm-*.img")
        core.write_bytes(b"\xff" * core.stat().st_size)
        record = json.loads((state.entry / "saved.json").read_text())
        record["checksums"][f"frozen/{core.name}"] = sparse.read(core)
        (state.entry / "saved.json").write_text(json.dumps(record))
        self.is_booted_cold(kernel, state, "Error (criu/")
        assert criu.command() == ()
        assert "saved" in run(Machine(kernel), self.JOB).target
        assert "resumed" in run(Machine(kernel), self.JOB).target

    def test_a_page_of_its_memory_is_not_what_was_saved(self, kernel: Kernel, state: Saved) -> None:
        """One that the job may never read: only the checksum tells."""
        record = json.loads((state.entry / "saved.json").read_text())
        begin, end = record["checksums"]["memory"][1][-1]
        with (state.entry / "memory").open("r+b") as file:
            file.seek(begin)
            content = file.read(64)
            file.seek(begin)
            file.write(bytes(byte ^ 0xFF for byte in content))
        assert end > begin
        self.is_booted_cold(kernel, state, "memory is not what was saved")

    def test_a_state_that_is_cut_off_is_made_anew(self, kernel: Kernel, state: Saved) -> None:
        memory = state.entry / "memory"
        os.truncate(memory, 4096)
        assert "saved" in run(Machine(kernel), self.JOB).target
        assert memory.stat().st_size == Machine(kernel).memory << 20
