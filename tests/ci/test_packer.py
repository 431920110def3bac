"""The example for Packer is run by Packer: what blocks ends the build with an error, what does not lets it end well."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.command import run
from harness.errors import HarnessError
from harness.image import policy
from harness.vm import apt, cache

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "docs/examples/image-check.pkr.hcl"
POLICY = ROOT / "docs/examples/image-policy.toml"

STAND_IN = """\
#!/bin/sh
# msp-harness as far as a pipeline sees it: what it was asked, its files, its exit code
printf '%s\\n' "$@" > "$(dirname "$0")/asked"
while [ $# -gt 0 ]; do
	case $1 in
	--json | --html | --sbom) echo written > "$2"; shift ;;
	esac
	shift
done
exit "$(cat "$(dirname "$0")/status")"
"""


@pytest.fixture(scope="module")
def packer() -> Path:
    """Packer, which Debian 12 was the last to have; unpacked in the cache, not installed."""
    if shutil.which("apt-get") is None:
        pytest.skip("Packer comes from Debian's packages, and there is no apt-get")

    def make(place: Path) -> None:
        source = apt.Apt("bookworm", place / "apt")
        source.update()
        run(["dpkg-deb", "-x", source.download("packer", place / "deb"), place])
        shutil.rmtree(place / "apt")
        shutil.rmtree(place / "deb")

    try:
        return cache.kept("packer", "bookworm-1", make) / "usr/bin/packer"
    except HarnessError as error:
        pytest.skip(f"no Packer to be had: {error}")


def built(packer: Path, place: Path, status: int) -> subprocess.CompletedProcess[str]:
    """Packer's build by the example, with a harness that ends with this status."""
    harness, reports = place / "msp-harness", place / "reports"
    harness.write_text(STAND_IN)
    harness.chmod(0o755)
    (place / "status").write_text(str(status))
    reports.mkdir()
    variables = {"harness": harness, "image": place / "disk image.qcow2", "reports": reports, "depth": "inspect"}
    return subprocess.run(
        [packer, "build", *(f"-var={name}={value}" for name, value in variables.items()), EXAMPLE],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "CHECKPOINT_DISABLE": "1", "PACKER_CONFIG_DIR": str(place), "PACKER_NO_COLOR": "1"},
    )  # fmt: skip


def test_a_gate_that_lets_through(packer: Path, tmp_path: Path) -> None:
    done = built(packer, tmp_path, 0)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:3] == ["image", "check", "--inspect"]
    assert asked[-1].endswith("disk image.qcow2")
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"image.json", "image.html", "image-found.json"}


@pytest.mark.parametrize("status", [1, 3])
def test_a_gate_that_blocks(packer: Path, tmp_path: Path, status: int) -> None:
    assert built(packer, tmp_path, status).returncode != 0


def test_the_example_of_a_policy_is_one() -> None:
    found = policy.read(POLICY)
    assert found.allow["disk.format"]
