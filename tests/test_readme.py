"""Every command of the README runs, and does what the README says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.image import sample
from harness.kernel import facts
from harness.msp import guide
from tests.objects.build import Style, build

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
SET_UP = [command for command in COMMANDS if command.startswith("make ")]
OTHERS = [command for command in COMMANDS if not command.startswith("make ")]
FAILING = ("msp-harness diagnose bundle.zip", "msp-harness diagnose --here")
"""Commands that rightly end with 1: what they are given is broken, or does not decide."""

EVIDENCE = ROOT / "tests" / "corpus" / "evidence"
VM = {"id": "/subscriptions/0/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a", "location": "westus",
      "properties": {"securityProfile": {"proxyAgentSettings": {"enabled": True, "keyIncarnationId": 3}}}}  # fmt: skip


WRITTEN: dict[str, str] = {}
"""The report of the image, once a command has written it: to a later one it is that of the last image."""


def fill(directory: Path) -> None:
    """The files that the README's commands name."""
    (directory / "status.json").write_bytes(guide.excerpt_bytes(guide.LOAD_EXCERPT))
    shutil.copy(build(Style.CO_RE), directory / "ebpf_cgroup.o")
    with zipfile.ZipFile(directory / "bundle.zip", "w") as archive:
        for file in sorted((EVIDENCE / "attach-hybrid-ubuntu" / "bundle").iterdir()):
            archive.write(file, file.name)
    shutil.copytree(EVIDENCE / "healthy-linux" / "bundle", directory / "bundles" / "one")
    shutil.copytree(EVIDENCE / "key-refused-but-success" / "bundle", directory / "bundles" / "two")
    (directory / "vm.json").write_text(json.dumps(VM))


def fill_for_image(command: str, directory: Path) -> None:
    """The image that the commands about images name, a policy, and the report of the last image, which is the same."""
    shutil.copy(sample.good("trixie"), directory / "disk.qcow2")
    shutil.copy(ROOT / "docs/examples/image-policy.toml", directory / "policy.toml")
    if "--baseline last.json" in command:
        if "image.json" not in WRITTEN:
            run("msp-harness image check disk.qcow2 --json image.json", directory)
            WRITTEN["image.json"] = (directory / "image.json").read_text()
        (directory / "last.json").write_text(WRITTEN["image.json"])


def run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", command], cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )  # fmt: skip


def test_the_two_commands_come_first() -> None:
    assert SET_UP == ["make verify", "make test"]


@pytest.mark.kernel
def test_make_verify(tmp_path: Path) -> None:
    done = run(f"make -C {ROOT} verify", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connect4 redirection holds on" in done.stdout


def test_make_test_is_what_runs_this() -> None:
    """`make test` itself cannot be run by its own test; that it runs this directory is seen in the Makefile."""
    done = run(f"make -C {ROOT} --dry-run test", ROOT)
    assert done.returncode == 0
    assert "-m pytest" in done.stdout


@pytest.mark.kernel
@pytest.mark.parametrize("command", OTHERS)
def test_command(command: str, tmp_path: Path) -> None:
    fill(tmp_path)
    if "disk.qcow2" in command:
        fill_for_image(command, tmp_path)
    if "--baseline matrix.json" in command:
        run(next(other for other in OTHERS if "--json matrix.json" in other), tmp_path)
    done = run(command, tmp_path)
    # An object with a kprobe does need what some kernels lack: then exit code 1 is the right answer.
    right = (0, 1) if "inspect-object" in command and not facts.has_kprobes() else (0,)
    right = (1,) if command.startswith(FAILING) else right
    assert done.returncode in right, done.stdout + done.stderr
    for name in re.findall(r"(?:report|failures|matrix|ticket|page|collect|image|found|sample)\.\w+", command):
        assert (tmp_path / name).stat().st_size > 0
    if "--json image.json" in command:
        WRITTEN["image.json"] = (tmp_path / "image.json").read_text()


@pytest.mark.kernel
def test_explain_shows_each_step_of_the_chain(tmp_path: Path) -> None:
    output = run("msp-harness verify --explain", tmp_path).stdout
    for step in ("link", "effective list", "policy row", "socket peer", "bytes at the listener"):
        assert re.search(rf"^ +{step} +\S", output, re.MULTILINE), step


def test_readme_says_how_many_faults_there_are() -> None:
    from harness.checks.selftest import FAULTS

    assert f"break the program in {len(FAULTS)} ways" in README


def test_exit_codes_are_those_of_the_report() -> None:
    from harness import report

    table = dict(re.findall(r"^\| (\d) \| (\w+)", README, re.MULTILINE))
    assert set(map(int, table)) == {report.EXIT_OK, report.EXIT_CHECK_FAILED, report.EXIT_USAGE, report.EXIT_CANNOT_RUN}
