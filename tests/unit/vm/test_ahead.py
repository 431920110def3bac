"""What dataclasses compiles, compiled ahead."""

from __future__ import annotations

import dataclasses
import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.vm import ahead


def point() -> type:
    """A class as it comes with a module that is imported."""

    @dataclasses.dataclass(frozen=True, order=True)
    class Point:
        x: int
        y: list[int] = dataclasses.field(default_factory=list)

    return Point


def test_code_that_was_written_down_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(dataclasses), "exec", exec)  # and so undone at the end
    known: dict[str, object] = {}
    ahead._replace_exec(known)  # type: ignore[arg-type]
    point()
    assert known
    place = tmp_path / "code"
    place.write_bytes(marshal.dumps(known))
    ahead.use(place)
    monkeypatch.setattr(ahead, "compile", None, raising=False)  # from here on nothing can be compiled
    first = point()
    assert first(1, [2]) == first(1, [2]) < first(2)
    assert repr(first(1)).endswith("Point(x=1, y=[])")
    with pytest.raises(dataclasses.FrozenInstanceError):
        first(1).x = 2


def test_what_was_not_written_down_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(dataclasses), "exec", exec)
    place = tmp_path / "code"
    place.write_bytes(marshal.dumps({}))
    ahead.use(place)
    assert point()(1).x == 1


def test_nearly_all_that_a_guest_imports_is_written_down(tmp_path: Path) -> None:
    place = tmp_path / "code"
    script = "import sys; from pathlib import Path; from harness.vm import ahead; ahead.record(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, place], check=True, timeout=120)
    texts = "".join(marshal.loads(place.read_bytes()))
    assert "blocking" in texts  # of harness.report.Result
    assert "source_port" in texts  # of harness.lab.clients.Request
