"""The CI examples: GitHub's workflows are well made, and their steps do here what they are to do there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Workflow:
    """A workflow with one job, and what its steps are given here in place of GitHub's expressions."""

    file: str
    job: str
    given: Mapping[str, str]
    told: str  # stands in the summary

    @property
    def text(self) -> str:
        return (ROOT / ".github/workflows" / self.file).read_text("utf-8")

    @property
    def document(self) -> dict[Any, Any]:
        found: dict[Any, Any] = yaml.safe_load(self.text)
        return found

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["jobs"][self.job]
        return found

    @property
    def steps(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["steps"]
        return found

    def action(self, name: str) -> dict[str, Any]:
        (step,) = [step for step in self.steps if step.get("uses", "").startswith(f"{name}@")]
        return step

    def uploaded(self) -> list[str]:
        return str(self.action("actions/upload-artifact")["with"]["path"]).split()

    def scripts(self) -> list[str]:
        return [step["run"] for step in self.steps if "run" in step]


WORKFLOWS = (
    Workflow("kernel-matrix.yml", "matrix", {"KERNELS": "bookworm"}, "bookworm"),
    Workflow("image-check.yml", "image", {"DEPTH": "inspect"}, "prediction"),
)
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
"""How GitHub runs a step whose shell is bash."""

NOT_COPIED = (".git", ".vagrant", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")

pytestmark = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.file)


def test_actions_are_pinned_by_full_versions(workflow: Workflow) -> None:
    assert [step["uses"] for step in workflow.steps if "uses" in step]
    for step in workflow.steps:
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step["uses"])


def test_it_may_only_read_and_ends(workflow: Workflow) -> None:
    assert workflow.document["permissions"] == {"contents": "read"}
    assert workflow.body["timeout-minutes"] <= 60


def test_no_host_is_named(workflow: Workflow) -> None:
    assert not re.search(r"https?://|--index-url|--mirror", workflow.text)


def test_scripts_are_bash_and_hold_no_expression(workflow: Workflow) -> None:
    """An expression in a script would let the title of a branch be run."""
    for script in workflow.scripts():
        assert "${{" not in script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_what_is_kept_is_the_harnesss_cache_keyed_by_what_fills_it(workflow: Workflow) -> None:
    cache = workflow.action("actions/cache")["with"]
    assert cache["path"] == workflow.body["env"]["MSP_HARNESS_CACHE"]
    patterns = re.findall(r"'([^']+)'", cache["key"])
    assert patterns
    assert all(any(ROOT.glob(pattern)) for pattern in patterns)
    # Each run has a key of its own, else what it adds is never saved; the older ones serve it.
    assert cache["key"].endswith("-${{ github.run_id }}")
    assert all(cache["key"].startswith(prefix) for prefix in cache["restore-keys"].splitlines())


def test_what_is_published_is_what_the_harness_writes(workflow: Workflow) -> None:
    (command,) = [script for script in workflow.scripts() if "--junit" in script]
    (summary,) = [script for script in workflow.scripts() if "GITHUB_STEP_SUMMARY" in script]
    assert sorted(workflow.uploaded()) == sorted(re.findall(r"--(?:json|junit|html|sbom) (\S+)", command))
    assert re.findall(r"--markdown (\S+)", command) == re.findall(r"cat (\S+)", summary)
    for name in re.findall(r"--(?:baseline|policy) ([\w./-]+)", command):
        assert (ROOT / name).is_file()


def _cannot_run() -> str:
    if os.geteuid() != 0:
        return "needs root, to make a guest"
    missing = [name for name in ("qemu-system-x86_64", "mmdebstrap") if shutil.which(name) is None]
    return f"there is no {', '.join(missing)}" if missing else ""


@pytest.mark.vm
@pytest.mark.slow("sets up in a copy of the tree and runs all of the job: 2 to 5 min")
@pytest.mark.skipif(bool(_cannot_run()), reason=_cannot_run())
def test_its_steps_work(workflow: Workflow, tmp_path: Path) -> None:
    tree, summary = tmp_path / "tree", tmp_path / "summary.md"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    # Of the job's variables those that hold no expression; the cache is the one that the tests use anyway.
    unwanted = ("VENV", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "PYTHONPATH")
    own = {name: value for name, value in os.environ.items() if name not in unwanted}
    job = {name: value for name, value in workflow.body["env"].items() if "${{" not in value}
    environment = {**job, **own, **workflow.given, "GITHUB_STEP_SUMMARY": str(summary)}
    for number, script in enumerate(workflow.scripts()):
        file = tmp_path / f"step{number}.sh"
        file.write_text(script)
        done = subprocess.run(
            [*SHELL, file], cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    for name in workflow.uploaded():
        assert (tree / name).stat().st_size > 0, name
    assert workflow.told in summary.read_text("utf-8")
    (junit,) = [name for name in workflow.uploaded() if name.endswith(".xml")]
    assert "<testsuite " in (tree / junit).read_text("utf-8")
