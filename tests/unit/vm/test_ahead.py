"""The code of what a guest imports, compiled and gathered ahead of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import marshal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.vm import ahead

_RECORD = "import sys; from pathlib import Path; from harness.vm import ahead; ahead.record(Path(sys.argv[1]))"


def point() -> type:
    """A class as it comes with a module that is imported."""

    @dataclasses.dataclass(frozen=True, order=True)
    class Point:
        x: int
        y: list[int] = dataclasses.field(default_factory=list)

    return Point


@pytest.fixture(autouse=True)
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What use() changes in this process is undone at the end."""
    monkeypatch.setitem(vars(dataclasses), "exec", exec)
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders


def written(place: Path, texts: dict[str, object], modules: dict[str, ahead.Known]) -> Path:
    place.write_bytes(marshal.dumps({"modules": modules, "dataclasses": texts}))
    return place


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ahead") / "code"
    subprocess.run([sys.executable, "-c", _RECORD, place], check=True, timeout=120)
    return place


def test_code_that_was_written_down_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, object] = {}
    ahead._replace_exec(known)  # type: ignore[arg-type]
    point()
    assert known
    ahead.use(written(tmp_path / "code", known, {}))
    monkeypatch.setattr(ahead, "compile", None, raising=False)  # from here on nothing can be compiled
    first = point()
    assert first(1, [2]) == first(1, [2]) < first(2)
    assert repr(first(1)).endswith("Point(x=1, y=[])")
    with pytest.raises(dataclasses.FrozenInstanceError):
        first(1).x = 2


def test_what_was_not_written_down_is_compiled(tmp_path: Path) -> None:
    ahead.use(written(tmp_path / "code", {}, {}))
    assert point()(1).x == 1


def test_modules_come_without_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a module below it, and beside that one a module that was not written down."""
    there = tmp_path / "there" / "ahead_of_it"
    there.mkdir(parents=True)
    (there / "late.py").write_text("answer = 3\n")
    modules = {
        "ahead_of_it": (f"{there}/__init__.py", True, marshal.dumps(compile("answer = 1", "a", "exec"))),
        "ahead_of_it.below": (f"{there}/below.py", False, marshal.dumps(compile("answer = 2", "b", "exec"))),
    }
    ahead.use(written(tmp_path / "code", {}, modules))
    names = ("ahead_of_it", "ahead_of_it.below", "ahead_of_it.late")
    answers = []
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        answers.append(module.answer)
        monkeypatch.delitem(sys.modules, name)
        sys.modules[name] = module
    assert answers == [1, 2, 3]
    package = sys.modules["ahead_of_it"]
    assert package.__file__ == f"{there}/__init__.py"
    assert package.__path__ == [str(there)]
    assert sys.modules["ahead_of_it.below"].__spec__ is not None
    assert importlib.util.find_spec("ahead_of_it.nowhere") is None


def test_a_module_is_given_once_and_then_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "read_again.py").write_text("answer = 'of the file'\n")
    code = marshal.dumps(compile("answer = 'written down'", "c", "exec"))
    ahead.use(written(tmp_path / "code", {}, {"read_again": (f"{tmp_path}/read_again.py", False, code)}))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("read_again")
    assert module.answer == "written down"
    assert importlib.reload(module).answer == "of the file"
    del sys.modules["read_again"]


def test_nearly_all_that_a_guest_imports_is_written_down(recorded: Path) -> None:
    found = marshal.loads(recorded.read_bytes())
    texts, modules = "".join(found["dataclasses"]), found["modules"]
    assert "blocking" in texts  # of harness.report.Result
    assert "source_port" in texts  # of harness.lab.clients.Request
    file, package, code = modules["harness.lab.clients"]
    assert (file, package) == ("/msp/harness/lab/clients.py", False)
    assert marshal.loads(code).co_filename == file
    assert modules["h11"][:2] == ("/usr/lib/python3/dist-packages/h11/__init__.py", True)
    assert ahead.files(recorded) == {file for file, _, _ in modules.values()}


def test_pythons_own_library_and_what_only_this_machine_has_are_not(recorded: Path) -> None:
    modules = marshal.loads(recorded.read_bytes())["modules"]
    assert not {"json", "asyncio", "sitecustomize", "usercustomize", "bcc"} & modules.keys()
    assert {name.partition(".")[0] for name in modules} <= {"harness", "h11", "pyroute2", "rich", "certifi"}


def test_no_code_has_a_path_of_this_machine(recorded: Path) -> None:
    here = str(Path(ahead.__file__).parents[2]).encode()
    assert here not in recorded.read_bytes()
