"""The recipes of lab kernels, and what a build does when something is missing, lost or killed. Nothing is compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.kernel.features import FEATURES
from harness.lab.worker import wait_until
from harness.vm import lab_build, lab_kernels
from harness.vm.lab_build import Source
from harness.vm.lab_kernels import LAB_KERNELS, LabKernel

ROOT = Path(__file__).parents[3]
SOURCE = Source("5.10.1-1", Path("source.tar.xz"))


@pytest.mark.parametrize("row", LAB_KERNELS, ids=lambda row: row.name)
def test_a_row_has_its_recipe_and_knows_its_features(row: LabKernel) -> None:
    assert set(row.lacks) <= {feature.name for feature in FEATURES}
    if row.fragment is not None:
        wanted = lab_build.lines_of([row.fragment])
        assert wanted["CONFIG_LOCALVERSION"] == f'CONFIG_LOCALVERSION="-lab-{row.name}"'


def test_every_recipe_is_somebodys() -> None:
    fragments = {path.name for path in lab_build.RECIPES.glob("*.config")}
    assert fragments == {f"{row.name}.config" for row in LAB_KERNELS}


def test_every_option_of_the_patch_is_used() -> None:
    added = {line.split()[1] for line in lab_build.PATCH.read_text().splitlines() if line.startswith("+config LAB_")}
    used = lab_build.lines_of(list(lab_build.RECIPES.glob("*.config")))
    assert added == {name.removeprefix("CONFIG_") for name in used if name.startswith("CONFIG_LAB_")}


@pytest.mark.parametrize(("name", "near"), [("lab:no-pid-tgit", "lab:no-pid-tgid"), ("xyz", "there are lab:base")])
def test_a_name_that_is_nobodys(name: str, near: str) -> None:
    with pytest.raises(HarnessError, match=near):
        lab_kernels.named(name)


def test_a_name_with_and_without_its_prefix() -> None:
    assert lab_kernels.named("lab:base") is lab_kernels.named("base")


def test_the_recipe_tells_apart_all_that_a_kernel_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = lab_kernels.named("base")
    recipes = [lab_kernels.recipe_of(row, SOURCE, "gcc 1") for row in LAB_KERNELS]
    recipes.append(lab_kernels.recipe_of(base, Source("5.10.2-1", SOURCE.archive), "gcc 1"))
    recipes.append(lab_kernels.recipe_of(base, SOURCE, "gcc 2"))
    patch = tmp_path / "lab.patch"
    patch.write_text(lab_build.PATCH.read_text() + "\n")
    monkeypatch.setattr(lab_build, "PATCH", patch)
    recipes.append(lab_kernels.recipe_of(base, SOURCE, "gcc 1"))
    assert len(set(recipes)) == len(recipes)


# --- configuration ----------------------------------------------------------------------------------------------

_options = st.dictionaries(
    st.from_regex(r"CONFIG_[A-Z0-9_]{1,20}", fullmatch=True), st.sampled_from(["y", "n", "64", '"-lab"']), max_size=20
)


def _line(option: str, value: str) -> str:
    return f"# {option} is not set" if value == "n" else f"{option}={value}"


@given(_options, _options)
def test_what_kconfig_took_is_not_lost_and_what_it_did_not_take_is(
    wanted: dict[str, str], other: dict[str, str]
) -> None:
    lines = {option: _line(option, value) for option, value in wanted.items()}
    config = "\n".join(_line(option, value) for option, value in {**other, **wanted}.items())
    assert lab_build.lost_lines(lines, config) == []
    nothing = [line for line in lines.values() if not line.startswith("#")]
    assert lab_build.lost_lines(lines, "# a comment\n") == nothing
    against = "\n".join(f"{option}=m" for option in wanted)
    assert lab_build.lost_lines(lines, against) == list(lines.values())


@given(st.text())
def test_a_fragment_may_hold_anything(text: str) -> None:
    place = Path(os.devnull)
    assert lab_build.lines_of([place]) == {}
    for line in text.splitlines():
        assert lab_build.lost_lines({}, line) == []


def test_a_later_fragment_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "a.config", tmp_path / "b.config"
    first.write_text("# a comment\nCONFIG_A=y\nCONFIG_B=64\n")
    second.write_text("# CONFIG_A is not set\n")
    assert lab_build.lines_of([first, second]) == {"CONFIG_A": "# CONFIG_A is not set", "CONFIG_B": "CONFIG_B=64"}


# --- the build --------------------------------------------------------------------------------------------------


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("flex", "pahole") else which(name))
    with pytest.raises(HarnessError, match=r"there is no flex, pahole; install .*flex"):
        lab_build.tools()


class Tree:
    """A tree in which make is told, and does what Kconfig and the linker would."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, config: Callable[[str], str] = lambda text: text):
        self.path = place / "tree"
        self.path.mkdir()
        self.made: list[str] = []
        self._config = config
        monkeypatch.setenv("MSP_HARNESS_CACHE", str(place))
        monkeypatch.setattr(lab_build, "_tree", lambda source, tell: self.path)
        monkeypatch.setattr(lab_build, "_make", self._make)

    def _make(self, tree: Path, words: Sequence[str], each: Callable[[str], None]) -> None:
        self.made.append(words[-1])
        config = tree / ".config"
        if words[-1] == "tinyconfig":
            config.write_text("CONFIG_EMBEDDED=y\n")
        if words[-1] == "olddefconfig":
            config.write_text(self._config(config.read_text()))
        if words[-1] == "vmlinux":
            assert (tree / lab_build._UNFINISHED).exists()
            for number in range(250):
                each(f"  CC      kernel/{number}.o\n")
            raise HarnessError("run `make vmlinux`", "exit status 2: error: it does not compile")


def built(fragment: Path | None, place: Path, told: list[str]) -> None:
    lab_build.build(fragment, "lab:test", SOURCE, place, told.append)


def test_a_build_that_fails_says_why_and_its_objects_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, told = Tree(tmp_path, monkeypatch), list[str]()
    with pytest.raises(HarnessError, match="it does not compile"):
        built(None, tmp_path, told)
    assert tree.made == ["tinyconfig", "olddefconfig", "vmlinux"]
    assert told[-1] == "lab:test: 200 steps, kernel/199.o"
    with pytest.raises(HarnessError, match="it does not compile"):  # as after a kill: what is there is thrown away
        built(None, tmp_path, told)
    assert tree.made[3:] == ["clean", "tinyconfig", "olddefconfig", "vmlinux"]


def test_a_line_that_kconfig_drops_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path, monkeypatch, lambda text: text.replace("CONFIG_BPF_SYSCALL=y\n", ""))
    with pytest.raises(HarnessError, match="Kconfig did not take CONFIG_BPF_SYSCALL=y;"):
        built(None, tmp_path, [])
    assert "vmlinux" not in tree.made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a pid namespace")
def test_make_gives_its_lines_and_its_last_ones_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("good:\n\t@echo '  CC      a.o'\nbad:\n\t@echo 'a.c:1: error: no'; exit 1\n")
    lines: list[str] = []
    lab_build._make(tmp_path, ["good"], lines.append)
    assert "  CC      a.o\n" in lines
    with pytest.raises(HarnessError, match=r"make bad.*a\.c:1: error: no"):
        lab_build._make(tmp_path, ["bad"], lines.append)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a pid namespace")
def test_nothing_of_a_build_outlives_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo started; sleep 1000 & sleep 1000\n")
    code = (
        "from pathlib import Path\n"
        "from harness.vm import lab_build\n"
        f"lab_build._make(Path({str(tmp_path)!r}), ['all'], lambda line: print(line, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout as told:
        while b"started" not in (line := told.readline()):
            assert line, "it ended before it began"
    assert running(tmp_path)
    parent.kill()
    parent.wait()
    assert wait_until(time.monotonic() + 20, lambda: not running(tmp_path))


def running(place: Path) -> list[str]:
    """The processes whose current directory is this one: make and all that it started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink() == place:
                found.append(path.parent.name)
    return found
