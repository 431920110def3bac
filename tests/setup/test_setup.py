"""Set-up for real, in a small checkout: quick and silent when all is there, and telling otherwise."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.kernel import packages
from setup import environment
from tests.setup import checkout
from tests.setup.checkout import Checkout

DISTRIBUTION = packages.distribution()
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may make namespaces and become another user")
needs_apt = pytest.mark.skipif(
    DISTRIBUTION is None or not DISTRIBUTION.automatic, reason="set-up installs packages on Debian and Ubuntu only"
)


@pytest.fixture
def fresh() -> Iterator[Checkout]:
    """A checkout in which nothing has been set up, in a place where every user may look."""
    with tempfile.TemporaryDirectory(prefix="msp-test-setup-") as name:
        Path(name).chmod(0o755)
        yield checkout.make(Path(name))


@pytest.fixture(scope="module")
def shared() -> Iterator[Checkout]:
    """A checkout that is set up, for tests that leave it so."""
    with tempfile.TemporaryDirectory(prefix="msp-test-setup-") as name:
        Path(name).chmod(0o755)
        made = checkout.make(Path(name))
        status, output = made.run()
        assert status == 0, output
        yield made


@pytest.fixture
def scene(shared: Checkout) -> Iterator[Checkout]:
    """The checkout that is set up, with what a test pretends about the machine taken back afterwards."""
    before = set(shared.root.iterdir())
    yield shared
    for path in (*shared.commands.iterdir(), *(set(shared.root.iterdir()) - before)):
        path.unlink()


def lacking(tree: Checkout, *names: str) -> None:
    """dpkg-query says of all packages but these that they are installed, until a file says that these are, too."""
    grep = f"case $name in {'|'.join(names)}) [ -e '{tree.root}/installed' ] || continue;; esac"
    tree.command(
        "dpkg-query",
        f'echo dpkg-query >>$LOG; shift 3; for name; do {grep}; echo "$name installed"; done',
    )


def test_first_it_installs_and_then_it_is_silent(shared: Checkout) -> None:
    assert (shared.installed("mspalpha"), shared.installed("mspbeta"), shared.installed("mspgamma")) == (
        "1.0",
        "1.0",
        "",
    )
    assert shared.run() == (0, "")
    assert shared.run("make", "install") == (0, "")


@needs_root
def test_with_all_there_it_needs_no_network_and_changes_nothing(scene: Checkout) -> None:
    places = [scene.venv, *scene.venv.rglob("*")]
    before = {place: place.lstat().st_mtime_ns for place in places}
    scene.command("pip", "exit 9")
    scene.command("apt-get", "exit 9")
    assert scene.run("unshare", "--net", "sh", "setup/bootstrap.sh", "runtime") == (0, "")
    assert {place: place.lstat().st_mtime_ns for place in [scene.venv, *scene.venv.rglob("*")]} == before


def test_one_call_of_dpkg_query_is_all_that_a_set_up_machine_is_asked(scene: Checkout) -> None:
    lacking(scene, "no-such-package")
    assert scene.run() == (0, "")
    assert scene.log() == (["dpkg-query"] if DISTRIBUTION is not None and DISTRIBUTION.automatic else [])


def test_standard_input_may_be_closed(shared: Checkout) -> None:
    assert shared.run("sh", "-c", "exec sh setup/bootstrap.sh runtime <&-") == (0, "")
    assert shared.run("sh", "-c", "exec make verify ARGS='--only x' <&-") == (0, "msp-harness verify --only x\n")


def test_the_first_python3_on_path_is_not_used(scene: Checkout) -> None:
    scene.command("python3", "echo trap; exit 9")
    assert scene.run() == (0, "")


def test_the_first_python3_on_path_is_not_what_the_environment_is_made_of(shared: Checkout) -> None:
    assert shared.python("import sys; print(sys.base_prefix)") == "/usr"
    assert "include-system-site-packages = true" in (shared.venv / "pyvenv.cfg").read_text()


def test_verify_is_set_up_and_then_the_command_with_its_status(shared: Checkout) -> None:
    assert shared.run("make", "verify", "ARGS=--json x") == (0, "msp-harness verify --json x\n")
    status, output = shared.run("make", "verify", "ARGS=--fail")
    assert status != 0
    assert "Error 4" in output


def test_clean_removes_what_was_built_and_lets_the_command_clean_up(shared: Checkout) -> None:
    for name in ("dist", ".mypy_cache", "harness/__pycache__"):
        (shared.root / name).mkdir()
    build = shared.root / "build"
    saved = shutil.copytree(build, shared.root / "saved")
    status, output = shared.run("make", "clean")
    assert (status, output.splitlines()[0]) == (0, "msp-harness clean")
    assert not any((shared.root / name).exists() for name in ("dist", ".mypy_cache", "harness/__pycache__", "build"))
    assert shared.venv.exists()
    saved.rename(build)


def test_what_was_damaged_is_repaired(shared: Checkout) -> None:
    site = next(shared.venv.glob("lib/python*/site-packages"))
    for damage in (
        lambda: shutil.rmtree(site / "mspalpha-1.0.dist-info"),
        lambda: (site / "msp_harness.pth").unlink(),
        lambda: (shared.venv / "bin/msp-harness").unlink(),
        lambda: (shared.venv / environment.STAMP).write_text("{rubbish"),
        lambda: (shared.venv / environment.STAMP).unlink(),
    ):
        damage()
        status, output = shared.run()
        assert status == 0, output
        assert "installing requirements.txt" in output
        assert "making the virtual environment" not in output
        assert shared.run() == (0, "")


def test_another_version_in_the_lock_file_is_installed(shared: Checkout) -> None:
    shared.lock("requirements.txt", mspalpha="2.0")
    assert shared.run()[0] == 0
    assert shared.installed("mspalpha") == "2.0"
    assert shared.run() == (0, "")
    shared.lock("requirements.txt", mspalpha="1.0")
    assert shared.run()[0] == 0


def test_what_the_tests_need_serves_a_user_too(shared: Checkout) -> None:
    assert shared.run("make", "install-dev")[0] == 0
    assert shared.installed("mspgamma") == "1.0"
    assert shared.run() == (0, "")
    assert shared.run("make", "install-dev") == (0, "")


def test_settings_of_pip_that_lead_elsewhere_are_left_out(shared: Checkout, tmp_path: Path) -> None:
    (shared.venv / environment.STAMP).unlink()
    shutil.rmtree(next(shared.venv.glob("lib/python*/site-packages/mspalpha-1.0.dist-info")))
    status, output = shared.run(PIP_TARGET=str(tmp_path / "a"), PIP_PREFIX=str(tmp_path / "b"), PIP_USER="1")
    assert status == 0, output
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_not_the_locked_one_is_refused(shared: Checkout) -> None:
    good = (shared.root / "requirements.txt").read_text()
    shared.lock("requirements.txt", mspalpha="3.0")
    text = (shared.root / "requirements.txt").read_text()
    (shared.root / "requirements.txt").write_text(text[:-10] + "000000000\n")
    status, output = shared.run()
    assert status == environment.CANNOT_RUN
    assert "set-up: cannot install the locked packages with pip: a package is not the one that was locked" in output
    assert shared.installed("mspalpha") == "1.0"
    (shared.root / "requirements.txt").write_text(good)
    assert shared.run()[0] == 0


def test_a_package_that_is_nowhere_is_named(shared: Checkout) -> None:
    good = (shared.root / "requirements.txt").read_text()
    shared.lock("requirements.txt", mspalpha="4.0")
    (shared.wheels / "mspalpha-4.0-py3-none-any.whl").unlink()
    status, output = shared.run()
    assert status == environment.CANNOT_RUN
    assert "mspalpha==4.0" in output
    assert "no such package for this Python" in output
    (shared.root / "requirements.txt").write_text(good)
    assert shared.run()[0] == 0


@pytest.mark.parametrize("script", [None, "exit 1"], ids=["there is none", "without a standard library"])
def test_make_stops_when_set_up_fails(scene: Checkout, script: str | None) -> None:
    if script is not None:
        scene.command("python9", script)
    status, output = scene.run("make", "verify", MSP_SYSTEM_PYTHON=str(scene.commands / "python9"))
    assert status != 0
    assert f"cannot use {scene.commands}/python9: there is none that works; install" in output
    assert "msp-harness verify" not in output


@pytest.mark.parametrize("status", [0, 1, 5])
def test_ci_runs_the_tests_and_has_their_status(scene: Checkout, status: int) -> None:
    """A module of the tree comes before an installed package: it stands in for pytest."""
    (scene.root / "pytest.py").write_text(f"import sys; print('tests ran', sys.stdin.read()); sys.exit({status})")
    got, output = scene.run("sh", "-c", f"cd / && exec bash '{scene.root}/.ci/run' <&-")
    assert "tests ran" in output
    assert (got == 0) == (status == 0)


def test_a_wrong_level_is_a_wrong_use(shared: Checkout) -> None:
    status, output = shared.run("sh", "setup/bootstrap.sh", "everything")
    assert (status, output) == (2, "usage: sh setup/bootstrap.sh runtime|dev|vagrant\n")


def test_a_checkout_that_was_moved_gets_an_environment_of_its_own(shared: Checkout) -> None:
    moved = Checkout(shared.root.parent / "moved to", shared.commands, shared.wheels)
    shutil.copytree(shared.root, moved.root, symlinks=True)
    status, output = moved.run()
    assert status == 0, output
    assert "making the virtual environment" in output
    assert moved.run("make", "verify") == (0, "msp-harness verify\n")


def test_killed_at_any_moment_the_next_run_repairs(fresh: Checkout) -> None:
    """SIGKILL to set-up and all its children: while the environment is made, and in the midst of pip's work."""
    for words, delay in (("making", 0.3), ("installing", 0.4)):
        (fresh.venv / environment.STAMP).unlink(missing_ok=True)
        with fresh.start() as process:
            assert process.stdout is not None
            assert any(words in line for line in iter(process.stdout.readline, ""))
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
        assert (fresh.venv / environment.UNFINISHED).exists()
    status, output = fresh.run()
    assert status == 0, output
    assert "making the virtual environment" in output
    assert fresh.run("make", "verify") == (0, "msp-harness verify\n")


def test_three_at_once_do_not_break_each_other(fresh: Checkout) -> None:
    runs = [fresh.start("make", "verify") for _ in range(3)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert all(output.endswith("msp-harness verify\n") for output in outputs)
    assert sum("making the virtual environment" in output for output in outputs) == 1


def test_nobodys_files_are_removed_to_make_room(fresh: Checkout) -> None:
    fresh.venv.mkdir()
    (fresh.venv / "thesis.tex").write_text("years of work")
    status, output = fresh.run()
    assert status == environment.CANNOT_RUN
    assert "something else is there; move it away, or choose another place with VENV=…" in output
    assert [entry.name for entry in fresh.venv.iterdir()] == ["thesis.tex"]


@needs_root
def test_a_full_disk_is_called_a_full_disk(fresh: Checkout) -> None:
    """A file system of 4 MB, in a mount namespace that ends with the run."""
    fresh.venv.mkdir()
    script = f"mount -t tmpfs -o size=4m none '{fresh.venv}' && exec sh setup/bootstrap.sh runtime"
    status, output = fresh.run("unshare", "--mount", "sh", "-c", script)
    assert status == environment.CANNOT_RUN
    assert "disk is full" in output or "ENOSPC" in output
    assert list(fresh.venv.iterdir()) == []


@needs_root
@needs_apt
def test_another_user_is_told_which_packages_root_must_install(fresh: Checkout) -> None:
    lacking(fresh, "python3-bpfcc", "curl")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    status, output = fresh.run(*nobody, "sh", "setup/bootstrap.sh", "runtime")
    assert status == environment.CANNOT_RUN
    assert "cannot find BCC's Python module: not installed, and this is not root" in output
    assert "apt-get install -y python3-bpfcc curl" in output


@needs_root
@needs_apt
def test_another_user_cannot_write_into_roots_checkout_and_is_told(fresh: Checkout) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    status, output = fresh.run(*nobody, "sh", "setup/bootstrap.sh", "runtime")
    assert status == environment.CANNOT_RUN
    assert "EACCES" in output
    assert "Traceback" not in output


APT_FAILURES = {
    "no network": ("Temporary failure resolving 'mirror'", "no network"),
    "lock": ("E: Could not get lock /var/lib/dpkg/lock-frontend.", "another package manager"),
    "disk": ("dpkg: error: No space left on device", "the disk is full"),
    "unknown": ("E: Something new", "exit status 100, as shown above"),
}


@needs_root
@needs_apt
@pytest.mark.parametrize("failure", APT_FAILURES)
def test_what_apt_get_says_is_shown_and_explained(fresh: Checkout, failure: str) -> None:
    says, happened = APT_FAILURES[failure]
    lacking(fresh, "python3-bpfcc")
    fresh.command("apt-get", f'[ "$2" = update ] && exit; echo "{says}" >&2; exit 100')
    status, output = fresh.run()
    assert status == environment.CANNOT_RUN
    assert says in output
    assert f"cannot install python3-bpfcc with apt-get: {happened}" in output
    assert not fresh.venv.exists()


@needs_root
@needs_apt
def test_apt_get_is_not_allowed_to_ask_or_to_remove(scene: Checkout) -> None:
    lacking(scene, "python3-bpfcc", "curl")
    scene.command(
        "apt-get",
        'echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND $*" >>$LOG; read -r line && echo "asked $line" >>$LOG\n'
        f"case \"$*\" in *install*) touch '{scene.root}/installed';; esac",
    )
    status, output = scene.run()
    assert status == 0, output
    assert "installing python3-bpfcc curl with apt-get" in output
    called = [line for line in scene.log() if line != "dpkg-query"]
    assert called[0] == "noninteractive 1 -q update"
    assert called[1].startswith("noninteractive 1 -y -q --no-install-recommends --no-remove ")
    assert called[1].endswith(" install python3-bpfcc curl")
    assert len(called) == 2


@needs_root
@needs_apt
def test_the_lock_of_the_package_lists_is_waited_for(scene: Checkout) -> None:
    lacking(scene, "python3-bpfcc")
    scene.command(
        "apt-get",
        f"[ \"$2\" = update ] || {{ touch '{scene.root}/installed'; exit; }}\n"
        f"[ -e '{scene.root}/released' ] && exit\ntouch '{scene.root}/released'\n"
        'echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7" >&2; exit 100',
    )
    status, output = scene.run()
    assert status == 0, output
    assert output.count("waiting for another package manager to release apt's lock") == 1


@needs_root
@needs_apt
def test_an_interrupted_dpkg_is_finished_first(scene: Checkout) -> None:
    lacking(scene, "python3-bpfcc")
    scene.command("dpkg", f"echo \"dpkg $*\" >>$LOG; touch '{scene.root}/configured'")
    scene.command(
        "apt-get",
        f"[ \"$2\" = update ] && exit 0\n[ -e '{scene.root}/configured' ] || "
        "{ echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a'\" >&2; exit 100; }\n"
        f"touch '{scene.root}/installed'",
    )
    status, output = scene.run()
    assert status == 0, output
    assert "a package installation was interrupted; finishing it" in output
    assert "dpkg --force-confdef --force-confold --configure -a" in scene.log()


@needs_root
@needs_apt
def test_a_package_that_apt_get_claims_to_have_installed_is_looked_for(fresh: Checkout) -> None:
    lacking(fresh, "python3-bpfcc")
    fresh.command("apt-get", "exit 0")
    status, output = fresh.run()
    assert status == environment.CANNOT_RUN
    assert "it says that it did, and yet BCC's Python module is missing" in output
