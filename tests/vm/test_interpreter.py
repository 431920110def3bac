"""The interpreter that a guest wrote down: it goes on with another kernel as with its own, or is done without."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.report import Outcome
from harness.vm import accelerator, boot, cache, interpreter, spec
from harness.vm.guest import Guest
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import KVM, TCG, Machine
from harness.vm.run import run
from tests.vm.script import evidence, script

OTHER = "bullseye"  # an older kernel than that of these tests

# What a module keeps of the kernel would be the other kernel's. Of what is nested, the first two levels.
LOOK = """
import sys
def texts(value, depth):
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, (tuple, list, set, frozenset)):
        for each in value:
            yield from texts(each, depth - 1)
    elif depth and isinstance(value, dict):
        for each in value.copy().items():
            yield from texts(each, depth - 1)
def holding(release):
    return sorted(
        name for name, module in sys.modules.copy().items() if name != "__main__" and module
        for key, value in vars(module).copy().items() if any(release in text for text in texts(value, 2))
    )
import pyroute2.config
tell(
    own=sorted(set(holding(os.uname().release))), other=holding(OTHER_RELEASE), release=pyroute2.config.uname[2],
    pid=os.getppid(), exe=os.readlink("/proc/1/exe"),
    layout=pathlib.Path("/proc/self/personality").read_text().strip(),
)
"""


@pytest.fixture(scope="module")
def other(guest_image: Guest) -> Kernel:
    return spec.resolve(OTHER)


@pytest.fixture(scope="module")
def written(other: Kernel, guest_image: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that the other kernel's guest wrote down."""
    path = tmp_path_factory.mktemp("interpreter") / "python3"
    path.write_bytes(interpreter._written(Machine(other, words=interpreter._WORDS), guest_image, TCG))
    return path


@pytest.fixture
def distrusted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why it was distrusted."""
    told: list[str] = []
    monkeypatch.setattr(interpreter, "distrust", lambda machine, guest, why: told.append(why))
    return told


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "usable", lambda machine, guest: TCG)


@pytest.fixture
def own(guest_image: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an interpreter that is this test's alone, and is not there yet."""
    monkeypatch.setattr(interpreter, "_VERSION", "a test's")
    name = interpreter._name(guest_image)
    yield name
    held = cache._held.pop(cache.directory() / interpreter.KIND / name, None)
    if held is not None:
        os.close(held)
    assert cache.remove(interpreter.KIND, name)


def use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "get", lambda *_: path)


@pytest.mark.usefixtures("emulated")
def test_it_knows_nothing_of_the_kernel_that_it_was_written_down_with(
    kernel: Kernel, other: Kernel, written: Path, distrusted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(written, monkeypatch)
    text = LOOK.replace("OTHER_RELEASE", repr(other.release))
    found = evidence(script(kernel, text, fresh=True))
    assert distrusted == []
    assert found["other"] == []
    assert found["own"] == ["platform", "pyroute2.config"]  # so that it is seen what is looked for
    assert (found["release"], found["pid"], found["exe"]) == (kernel.release, 1, "/msp/python3")
    assert found["layout"] == "00000000"  # random, as usual


@pytest.mark.usefixtures("emulated")
def test_results_are_those_of_an_interpreter_that_imported_all_itself(
    kernel: Kernel, written: Path, distrusted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def results() -> list[tuple[str, Outcome, str]]:
        report = run(Machine(kernel), Job(("verify", "--quick"), fresh=True))
        return [(result.id, result.outcome, result.summary) for result in report.results]

    monkeypatch.setattr(interpreter, "get", lambda *_: None)
    expected = results()
    use(written, monkeypatch)
    assert results() == expected
    assert distrusted == []
    assert len(expected) > 40


def cut(content: bytes) -> bytes:
    """As if the disk had nothing of its memory."""
    return content[: 1 << 16] + bytes(len(content) - (1 << 16))


def garbled(content: bytes) -> bytes:
    """As if its first instructions were others."""
    return content[:0xB0] + b"\xcc" * 0x100 + content[0x1B0:]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("damage", [cut, garbled])
def test_one_that_does_not_go_on_is_done_without(
    damage: Callable[[bytes], bytes],
    kernel: Kernel,
    written: Path,
    distrusted: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "python3").write_bytes(damage(written.read_bytes()))
    use(tmp_path / "python3", monkeypatch)
    told: list[str] = []
    report = run(Machine(kernel), Job(("verify", "--only", "load"), fresh=True), told.append)
    assert {result.outcome for result in report.results} == {Outcome.PASS}
    assert len(distrusted) == 1
    assert "panicked" in distrusted[0]
    assert [line for line in told if "once more, for what was imported did not go on" in line]


@pytest.mark.usefixtures("emulated")
def test_a_kernel_that_cannot_write_one_down_is_asked_once(
    kernel: Kernel, guest_image: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    monkeypatch.setattr(interpreter, "_WORDS", ())  # with a vDSO
    boots: list[Machine] = []
    before = boot.initial

    def initial(machine: Machine, guest: Guest, *, write_down: bool = False) -> bytes:
        boots.append(machine)
        return before(machine, guest, write_down=write_down)

    monkeypatch.setattr(boot, "initial", initial)
    for _ in range(2):
        assert interpreter.get(Machine(kernel), guest_image, TCG) is None
    assert boots == [Machine(kernel)]
    (why,) = (tmp_path / "interpreters-not").iterdir()
    assert why.read_text() == "writing down what is imported: the server failed, after 0 bytes\n"
    assert cache.entries(interpreter.KIND) == []


@pytest.mark.usefixtures("emulated")
def test_a_kernel_that_does_not_come_up_is_not_booted_twice(
    kernel: Kernel, guest_image: Guest, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "_WORDS", ("rdinit=/nothing",))
    told: list[str] = []
    report = run(Machine(kernel), Job(("verify", "--only", "load"), fresh=True), told.append)
    (result,) = report.results
    assert result.id == "guest.start"
    assert "the kernel found nothing to start" in result.summary
    assert len([line for line in told if line.startswith("booting")]) == 2  # what is to be done, and the one boot
    assert not interpreter._without(Machine(kernel), own).exists()


@pytest.mark.usefixtures("emulated")
def test_one_that_was_damaged_in_the_cache_is_written_anew(kernel: Kernel, guest_image: Guest, own: str) -> None:
    path = interpreter.get(Machine(kernel), guest_image, TCG)
    assert path == cache.directory() / interpreter.KIND / own / "python3"
    before = path.read_bytes()
    path.write_bytes(cut(before))
    assert interpreter.get(Machine(kernel), guest_image, TCG) == path
    assert path.read_bytes()[1 << 16 :] != bytes(len(before) - (1 << 16))


def test_none_is_made_where_nothing_is_won(kernel: Kernel, guest_image: Guest) -> None:
    assert interpreter.get(Machine(kernel), guest_image, KVM) is None


@pytest.mark.usefixtures("emulated")
def test_one_that_cannot_be_kept_is_done_without(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise HarnessError("keep it", "ENOSPC")

    monkeypatch.setattr(interpreter, "get", full)
    told: list[str] = []
    report = run(Machine(kernel), Job(("verify", "--only", "load"), fresh=True), told.append)
    assert {result.outcome for result in report.results} == {Outcome.PASS}
    assert "cannot keep it: ENOSPC" in told


def test_what_a_saved_guest_needs_stays(guest_image: Guest, tmp_path: Path) -> None:
    """A copy maps it as long as it runs, whatever becomes of the one that is kept for others."""
    kept, place = tmp_path / "kept", tmp_path / "place"
    place.mkdir()
    kept.write_bytes(b"content")
    guest = replace(guest_image, interpreter=kept).keeping(place)
    kept.unlink()
    assert guest.interpreter is not None
    assert guest.interpreter.read_bytes() == b"content"
    assert guest_image.kept(place) == guest
    assert guest_image.keeping(place) == guest_image
    assert guest_image.kept(tmp_path) == guest_image
