"""`msp-harness kernels`, with a cache of its own and kernels that are made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli import main
from harness.vm import cache, inventory, kernels, saved
from tests.unit.vm import made

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("depmod") is None, reason="needs depmod")

USER = (
    "import sys\n"
    "from harness.vm import spec\n"
    "print(spec.resolve(sys.argv[1]).release, flush=True)\n"
    "sys.stdin.read()\n"
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.interruption.install", lambda: None)
    return tmp_path / "cache" / "vm"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return made.deb(tmp_path, made.FILES, name="linux-image-x")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, so that this one holds nothing."""
    return subprocess.run(
        [sys.executable, "-m", "harness", "kernels", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@contextmanager
def used(spec: str) -> Iterator[None]:
    """Another process, such as a matrix, that uses a kernel."""
    words = [sys.executable, "-c", USER, spec]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
        process.communicate(b"")


def entries() -> list[str]:
    return [entry.name for entry in cache.entries(kernels.KIND)]


def saved_guest(place: Path, origin: str) -> Path:
    """A saved guest as far as the cache's list looks at it."""
    entry = place / saved.KIND / "9.9.0-test-1-2"
    record = {"sizes": {}, "checksum": 0, "kernel": origin, "variation": "cpus=8"}
    made.write(entry, {"saved.json": json.dumps(record).encode(), "memory": os.urandom(1 << 20)})
    return entry


def test_an_empty_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "list"]) == 0
    assert "no kernels in" in capsys.readouterr().out
    assert main(["kernels", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"] == []
    assert main(["kernels", "prune"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_what_is_got_is_listed(package: Path, place: Path) -> None:
    got = command("get", str(package))
    assert (got.returncode, got.stderr) == (0, "")
    assert f"{package}: {made.RELEASE}, {package.name} sha256:" in got.stdout
    again = command("get", str(package))
    assert "as it was just now; --refresh asks again" in again.stdout
    (row,) = json.loads(command("list", "--json").stdout)["kernels"]
    saved_guest(place, row["origin"])
    (row,) = json.loads(command("list", "--json").stdout)["kernels"]
    assert row["release"] == made.RELEASE
    assert list(row["specs"]) == [str(package)]
    assert row["digest"].startswith("sha256:")
    assert row["verified"].startswith("a local file: by its sha256 only")
    assert row["size"] > 0
    assert (row["damage"], row["in_use"], row["current"]) == ("", False, True)
    assert [(guest["name"], guest["variation"]) for guest in row["saved"]] == [("9.9.0-test-1-2", "cpus=8")]
    assert row["saved"][0]["size"] >= 1 << 20
    said = command("list", "-v").stdout
    for words in (str(package), made.RELEASE, "1 saved guest of 1 MB", "used just now", row["digest"], "cpus=8"):
        assert words in said


def test_several_at_once_and_one_that_is_none(package: Path, tmp_path: Path) -> None:
    got = command("get", str(tmp_path / "nothing"), str(package))
    assert got.returncode == 3
    assert "cannot take a kernel from" in got.stderr
    assert made.RELEASE in got.stdout  # the other one is there all the same


def test_damage_is_found_by_a_check(package: Path) -> None:
    command("get", str(package))
    (entry,) = cache.entries(kernels.KIND)
    assert command("list", "--check").returncode == 0
    image = entry / "vmlinuz"
    before = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    os.utime(image, ns=(before, before))
    assert "damaged" not in command("list").stdout
    checked = command("list", "--check")
    assert checked.returncode == 1
    assert "damaged: vmlinuz was changed" in checked.stdout


def test_prune_leaves_what_is_good_and_what_is_used(package: Path, place: Path) -> None:
    command("get", str(package))
    good = entries()
    (place / "kernels" / ".half-done.unfinished").mkdir()
    made.write(place / "kernels" / ".half-done.unfinished", {"vmlinuz": b"half" * 5000})
    (place / "kernels" / "old-00000000").mkdir()
    orphan = saved_guest(place, "a kernel that is gone")
    dry = command("prune", "--dry-run")
    assert "would remove kernel old-00000000" in dry.stdout
    assert orphan.exists()
    done = command("prune")
    assert "removed kernel old-00000000, 0 MB (made by another version)" in done.stdout
    assert "removed kernel half-done, 0 MB (half done by a run that was killed)" in done.stdout
    assert "(its kernel is gone)" in done.stdout
    assert not orphan.exists()
    assert entries() == good
    assert not list((place / "kernels").glob(".half*"))


def test_prune_of_all_leaves_what_a_run_uses(package: Path) -> None:
    with used(str(package)):
        row = json.loads(command("list", "--json").stdout)["kernels"][0]
        assert row["in_use"] is True
        assert "left, for it is in use: kernel" in command("prune", "--all", "--dry-run").stdout
        assert "left, for it is in use: kernel" in command("prune", "--all").stdout
        assert len(entries()) == 1
    assert "removed kernel" in command("prune", "--all").stdout
    assert entries() == []
    assert kernels.answers() == []


def test_prune_by_age(package: Path, place: Path) -> None:
    command("get", str(package))
    (entry,) = cache.entries(kernels.KIND)
    guest = saved_guest(place, json.loads((entry / "kernel.json").read_text())["origin"])
    week = time.time() - 7 * 86400
    for path in (guest, entry, entry / cache.USED):
        os.utime(path, (week, week))
    assert command("prune", "--older-than", "8").stdout == "nothing to remove\n"
    assert "not used for 7 days" in command("prune", "--older-than", "6.5").stdout
    assert entries() == []
    assert not guest.exists()


@pytest.mark.parametrize("days", ["-1", "x", "nan"])
def test_an_age_that_is_none(days: str) -> None:
    assert command("prune", "--older-than", days).returncode == 2


def test_a_build_of_what_is_no_lab_kernel() -> None:
    built = command("build", "lab:base", "lab:nothing")
    assert built.returncode == 3
    assert "there is none of that name" in built.stderr


def test_prune_takes_apts_lists_and_half_downloads(place: Path) -> None:
    made.write(place / "apt" / "testing", {"download/half.deb": bytes(9999), "state/lists/list": bytes(9999)})
    rows = list(inventory.prune())
    assert [(row.name, row.why) for row in rows] == [("apt/testing", "half a download")]
    assert (place / "apt" / "testing" / "state").exists()
    assert [row.why for row in inventory.prune(everything=True)] == ["all"]
    assert not (place / "apt" / "testing").exists()
