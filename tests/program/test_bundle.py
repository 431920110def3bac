"""Bundles: an image is used for exactly its own source, and nothing that is damaged is used at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import preflight, programs
from harness.errors import HarnessError
from harness.program import bundle, images
from harness.program.bundle import Bundle
from harness.program.compile import Compilation, Join, Source, compile_source, redirector
from harness.program.image import Image, MapSpec, ProgramSpec
from harness.report import Outcome

EXIT = bytes.fromhex("9500000000000000")
LOAD_MAP = bytes.fromhex("18110000000000000000000000000000")
IMAGE = Image(
    (MapSpec("policy_map", 1, 24, 24, 10),),
    (ProgramSpec("connect4", 18, 10, LOAD_MAP + EXIT, ((0, "policy_map"),)),),
    compiler="a compiler",
)
CODE = redirector()
OTHERS = [
    replace(CODE, text=CODE.text + "\n"),
    replace(CODE, functions=["connect4"]),
    replace(CODE, definitions=["HARDENED"]),
    replace(CODE, name="other.c"),
]


def give(path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path.write_bytes(data)
    monkeypatch.setenv(bundle.VARIABLE, str(path))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bcc", None)


def test_an_image_of_a_bundle_is_used_and_nothing_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    give(tmp_path / "programs", monkeypatch, bundle.pack({CODE.digest: IMAGE}))
    with Compilation(CODE) as compilation:
        assert compilation.result() == IMAGE
        assert compilation.digest == IMAGE.digest


@pytest.mark.parametrize("other", OTHERS, ids=["text", "functions", "definitions", "name"])
def test_it_is_used_for_exactly_that_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None, other: Source
) -> None:
    give(tmp_path / "programs", monkeypatch, bundle.pack({CODE.digest: IMAGE}))
    with pytest.raises(HarnessError, match="has no program of this source") as refused:
        compile_source(other)
    assert "bpfcc" in (refused.value.remedy or "")


def test_a_header_of_ours_is_part_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CODE.digest
    monkeypatch.setattr("harness.program.compile._own_headers", lambda: {"connect4.h": "changed"})
    assert CODE.digest != before


def test_an_image_under_another_sources_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bundle.pack({CODE.digest: IMAGE}).decode().replace(CODE.digest, OTHERS[0].digest)
    give(tmp_path / "programs", monkeypatch, data.encode())
    with pytest.raises(HarnessError, match="damaged"):
        compile_source(OTHERS[0])


def test_a_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bundle.pack({CODE.digest: IMAGE}).replace(b'"key_size": 24', b'"key_size": 25')
    give(tmp_path / "programs", monkeypatch, data)
    with pytest.raises(HarnessError, match="damaged") as refused:
        compile_source(CODE)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bundle"),
        (b"\xff\xfe\x00", "no bundle"),
        (bundle.pack({CODE.digest: IMAGE})[:-1], "end is missing"),
        (b"msp-harness-programs 1\nabc def\n", "line 2"),
        (bundle.pack({CODE.digest: IMAGE}) + bundle.pack({CODE.digest: IMAGE}).split(b"\n", 1)[1], "before"),
    ],
    ids=["empty", "garbage", "cut off", "a line of another form", "twice"],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str) -> None:
    give(tmp_path / "programs", monkeypatch, data)
    with pytest.raises(HarnessError, match=says):
        compile_source(CODE)
    for result in (preflight.bcc(), preflight.kernel_headers()):
        assert (result.outcome, result.blocking) == (Outcome.FAIL, True)
        assert says in result.summary


def test_a_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(HarnessError, match="ENOENT"):
        compile_source(CODE)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: b"msp-harness-programs 1\n" + text.encode()))
def test_any_bytes_are_a_bundle_or_a_clear_error(data: bytes) -> None:
    try:
        found = Bundle.parse(data)
        for digest in found.rows:
            found.find(digest)
    except HarnessError as refused:
        error = refused
    else:
        return
    assert error.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES: list[tuple[str | int, ...]] = [
    ("maps",), ("programs",), ("licence",), ("compiler",), ("maps", 0), ("programs", 0),
    *(("maps", 0, name) for name in ("name", "type", "key_size", "value_size", "entries", "flags")),
    *(("programs", 0, name) for name in ("name", "type", "attach", "instructions", "relocations")),
    ("programs", 0, "relocations", 0), ("programs", 0, "relocations", 0, 0), ("programs", 0, "relocations", 0, 1),
]  # fmt: skip


@given(st.text(max_size=100) | JSON.map(json.dumps))
def test_garbage_is_no_image(text: str) -> None:
    with pytest.raises(HarnessError, match="program image"):
        Image.parse(text)


@given(st.sampled_from(PLACES), JSON)
def test_an_image_with_one_place_changed_is_an_image_or_a_clear_error(
    path: tuple[str | int, ...], value: object
) -> None:
    content = json.loads(IMAGE.dump())
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        image = Image.parse(json.dumps(content))
    except HarnessError as refused:
        error = refused
    else:
        assert Image.parse(image.dump()) == image
        assert all(len(program.instructions) % 8 == 0 for program in image.programs)
        return
    assert "program image" in str(error)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"programs": [replace(IMAGE.programs[0], relocations=((0, "other"),))]}, "not there"),
        ({"programs": [replace(IMAGE.programs[0], relocations=((1, "policy_map"),))]}, "loads none"),
        ({"programs": [replace(IMAGE.programs[0], instructions=EXIT[:-1])]}, "8 bytes each"),
        ({"programs": [replace(IMAGE.programs[0], type=999)]}, "type 999"),
        ({"programs": [replace(IMAGE.programs[0], attach=999)]}, "999"),
        ({"maps": [replace(IMAGE.maps[0], type=999)]}, "type 999"),
        ({"maps": [IMAGE.maps[0], IMAGE.maps[0]]}, "twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(changed: dict[str, list[object]], says: str) -> None:
    broken = replace(IMAGE, **{name: tuple(rows) for name, rows in changed.items()})  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match=says):
        Image.parse(broken.dump())


def test_a_command_names_its_programs() -> None:
    def names(*arguments: str) -> set[tuple[str, tuple[str, ...]]]:
        return {(code.name, tuple(code.functions)) for code in programs.of_command(arguments)}

    plain = {("connect4.c", tuple(redirector(join=join).functions)) for join in Join}
    assert plain <= names("verify")
    assert not any("connect6" in functions for _, functions in names("verify"))
    assert any("connect6" in functions for _, functions in names("verify", "--program", "hardened"))
    assert any(name == "loop.c" for name, _ in names("reproduce", "all"))
    assert len(programs.of_command(["verify", "--self-test"])) > 40


def test_the_cache_is_for_one_source_and_a_damaged_entry_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    class Counting(Compilation):
        def __init__(self, code: Source):
            compiled.append(code.digest)
            self._given = IMAGE

    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "Compilation", Counting)
    monkeypatch.setattr(images, "_toolchain", lambda: "one")
    first = images.bundled([CODE])
    assert images.bundled([CODE]) == first
    assert compiled == [CODE.digest]
    images.bundled([OTHERS[0]])
    assert compiled == [CODE.digest, OTHERS[0].digest]
    for entry in images.directory().iterdir():
        entry.write_bytes(entry.read_bytes()[:-20])
    assert images.bundled([CODE]) == first
    assert compiled[2:] == [CODE.digest]
    monkeypatch.setattr(images, "_toolchain", lambda: "another compiler")
    images.bundled([CODE])
    assert len(compiled) == 4
    assert Bundle.parse(first).find(CODE.digest) == IMAGE


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(images, "_toolchain", lambda: "one")
    give(tmp_path / "programs", monkeypatch, bundle.pack({CODE.digest: IMAGE}))
    with pytest.raises(HarnessError, match="ENOTDIR"):
        images.bundled([CODE])
