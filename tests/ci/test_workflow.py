"""The CI example: GitHub's workflow is well made, and its steps do here what they are to do there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / ".github/workflows/kernel-matrix.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text("utf-8"))
JOB: dict[str, Any] = WORKFLOW["jobs"]["matrix"]
STEPS: list[dict[str, Any]] = JOB["steps"]
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
"""How GitHub runs a step whose shell is bash."""

KERNELS = "bookworm"  # enough to see that the steps work
NOT_COPIED = (".git", ".vagrant", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


def action(name: str) -> dict[str, Any]:
    (step,) = [step for step in STEPS if step.get("uses", "").startswith(f"{name}@")]
    return step


def uploaded() -> list[str]:
    return str(action("actions/upload-artifact")["with"]["path"]).split()


def scripts() -> list[str]:
    return [step["run"] for step in STEPS if "run" in step]


def test_actions_are_pinned_by_full_versions() -> None:
    assert [step["uses"] for step in STEPS if "uses" in step]
    for step in STEPS:
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step["uses"])


def test_it_may_only_read_and_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert JOB["timeout-minutes"] <= 60


def test_no_host_is_named() -> None:
    assert not re.search(r"https?://|--index-url|--mirror", FILE.read_text("utf-8"))


@pytest.mark.parametrize("script", scripts())
def test_a_script_is_bash_and_holds_no_expression(script: str) -> None:
    """An expression in a script would let the title of a branch be run."""
    assert "${{" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_what_is_kept_is_the_harnesss_cache_keyed_by_what_fills_it() -> None:
    cache = action("actions/cache")["with"]
    assert cache["path"] == JOB["env"]["MSP_HARNESS_CACHE"]
    patterns = re.findall(r"'([^']+)'", cache["key"])
    assert patterns
    assert all(any(ROOT.glob(pattern)) for pattern in patterns)
    # Each run has a key of its own, else what it adds is never saved; the older ones serve it.
    assert cache["key"].endswith("-${{ github.run_id }}")
    assert all(cache["key"].startswith(prefix) for prefix in cache["restore-keys"].splitlines())


def test_what_is_published_is_what_the_matrix_writes() -> None:
    (matrix,) = [script for script in scripts() if "msp-harness matrix" in script]
    (summary,) = [script for script in scripts() if "GITHUB_STEP_SUMMARY" in script]
    written = re.findall(r"--(?:json|junit|html) (\S+)", matrix)
    assert sorted(uploaded()) == sorted(written)
    assert re.findall(r"--markdown (\S+)", matrix) == re.findall(r"cat (\S+)", summary)
    assert (ROOT / re.findall(r"--baseline (\S+)", matrix)[0]).is_file()


def _cannot_run() -> str:
    if os.geteuid() != 0:
        return "needs root, to make a guest"
    missing = [name for name in ("qemu-system-x86_64", "mmdebstrap") if shutil.which(name) is None]
    return f"there is no {', '.join(missing)}" if missing else ""


@pytest.mark.vm
@pytest.mark.slow("sets up in a copy of the tree and runs a matrix: 2 to 5 min")
@pytest.mark.skipif(bool(_cannot_run()), reason=_cannot_run())
def test_its_steps_work(tmp_path: Path) -> None:
    tree, summary = tmp_path / "tree", tmp_path / "summary.md"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    # Of the job's variables those that hold no expression; the cache is the one that the tests use anyway.
    unwanted = ("VENV", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "PYTHONPATH")
    own = {name: value for name, value in os.environ.items() if name not in unwanted}
    job = {name: value for name, value in JOB["env"].items() if "${{" not in value}
    environment = {**job, **own, "KERNELS": KERNELS, "GITHUB_STEP_SUMMARY": str(summary)}
    for number, script in enumerate(scripts()):
        file = tmp_path / f"step{number}.sh"
        file.write_text(script)
        done = subprocess.run(
            [*SHELL, file], cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    for name in uploaded():
        assert (tree / name).stat().st_size > 0, name
    assert KERNELS in summary.read_text("utf-8")
    assert "<testsuite " in (tree / "kernel-matrix.xml").read_text("utf-8")
