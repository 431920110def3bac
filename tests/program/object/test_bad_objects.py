"""Files that are no object, or a damaged one: Malformed or an answer, and never anything else, in bounded work."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import inspect
from harness.errors import HarnessError
from harness.program.object import btf, contents, core, elf
from harness.program.object.elf import Malformed
from tests.fuzz import fuzz_object
from tests.objects.build import Style, build
from tests.program.object import made
from tests.program.object.mutations import damaged

CO_RE = build(Style.CO_RE).read_bytes()
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
PLACE = "cgroup/connect4"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"#!/bin/sh\n" * 20, "a script"),
        (b"\x7fELF" + bytes(10), "cut ELF"),
        (b"\x7fELF\1" + bytes(100), "32-bit"),
        (made.elf({PLACE: EXIT}, machine=62), r"machine 62 \(x86-64\)"),
        (made.btf([]) + bytes(100), "raw BTF"),
        (bytes(200), "begins with 00 00 00 00"),
        (CO_RE[:64], "damaged or cut off"),
    ],
)
def test_what_is_no_object_is_told(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(data)
    with pytest.raises(HarnessError, match=f"cannot inspect .*{says}"):
        inspect.subject(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.o", "ENOENT"), (tmp_path, "not a file"), (Path("/dev/zero"), "not a file")):
        with pytest.raises(HarnessError, match=says):
            inspect.subject(path)


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.o"
    with path.open("wb") as file:
        file.write(CO_RE)
        file.truncate(100 << 20)
    with pytest.raises(HarnessError, match="larger than 16 MiB"):
        inspect.subject(path)


@pytest.mark.parametrize(
    "style", [Style.CO_RE, Style.NO_BTF, Style.STRIPPED, Style.BIG_ENDIAN], ids=lambda one: one.name
)
def test_cut_at_each_section_it_is_refused(style: Style) -> None:
    """The section headers lie at the end, so that whatever is cut, they are."""
    data = build(style).read_bytes()
    whole = elf.parse(data)
    places = {0, 1, 63, 64, len(data) - 1}
    places |= {edge for one in whole.sections for edge in (one.offset, one.offset + one.size)} - {len(data)}
    for place in sorted(places):
        if place < len(data):
            with pytest.raises(Malformed):
                contents.read(data[:place])


@pytest.mark.parametrize("word", [0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("field", ["table", "count", "names", "offset", "size", "link"])
def test_a_section_table_that_points_outside_is_refused_or_harmless(field: str, word: int) -> None:
    data = bytearray(CO_RE)
    table = struct.unpack_from("<Q", data, 40)[0]
    places = {"table": (40, 8), "count": (60, 2), "names": (62, 2)}
    entry = {"offset": (24, 8), "size": (32, 8), "link": (40, 4)}
    at, size = places[field] if field in places else (table + 64 * 3 + entry[field][0], entry[field][1])
    data[at : at + size] = word.to_bytes(8, "little")[:size]
    try:
        contents.read(bytes(data))
    except Malformed as error:
        assert str(error)  # noqa: PT017 -- both ends are right


def test_sections_that_lie_upon_each_other_are_refused() -> None:
    """Else a file of 16 MiB could stand for 4096 sections of 16 MiB."""
    data = bytearray(made.elf({f"a/{number}": bytes(4000) for number in range(8)}))
    table = struct.unpack_from("<Q", data, 40)[0]
    for number in range(1, 9):
        struct.pack_into("<QQ", data, table + 64 * number + 24, 64, 32000)
    with pytest.raises(Malformed, match="damaged"):
        elf.parse(bytes(data))


def test_a_program_of_too_many_instructions_is_refused() -> None:
    code = EXIT * 600_000
    with pytest.raises(Malformed, match="instructions"):
        contents.read(made.elf({"xdp/a": code, "xdp/b": code}))


# --- BTF --------------------------------------------------------------------------------------------------------------


def test_types_in_circles_are_refused() -> None:
    typedefs = btf.Btf(made.btf([made.head(0, 8, 2), made.head(0, 8, 1)]))
    arrays = btf.Btf(made.btf([made.head(0, 3, 0) + struct.pack("<III", 1, 1, 2)]))
    for types in (typedefs, arrays):
        with pytest.raises(Malformed, match="circles"):
            types.size(1)
        assert types.describe(1).startswith(("…", "("))


def test_a_struct_within_itself_is_refused_or_bounded() -> None:
    once = btf.Btf(made.btf([made.struct_of(0, 8, (0, 1, 0))]))
    assert len(once.fields(1)) == 1
    many = btf.Btf(made.btf([made.struct_of(0, 8, *[(0, 1, 0)] * 1000)]))
    with pytest.raises(Malformed, match="within itself"):
        many.fields(1)


def test_huge_names_are_cut() -> None:
    strings = b"\0" + b"x" * 2_000_000
    types = btf.Btf(made.btf([made.integer(1 + number, 4) for number in range(2000)], strings))
    assert max(len(name) for name in types.names) == elf.NAME + 1
    assert types.type(1).name.endswith("…")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "magic"),
        (b"\x9f\xeb", "cut off in the header"),
        (made.btf([made.integer(0, 4)])[:-2], "more than its"),
        (made.btf([made.integer(0, 4)[:-2]]), "cut off in type 1"),
        (made.btf([made.head(0, 25, 0)]), "kind 25"),
        (made.btf([made.head(0, 0, 0)]), "kind 0"),
    ],
)
def test_damaged_btf_is_told(data: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        btf.Btf(data)
    if data:
        found = contents.read(made.elf({PLACE: EXIT, ".BTF": data}))
        assert found.types is None
        assert says in " ".join(found.problems)


def test_a_type_that_is_not_there_is_told() -> None:
    types = btf.Btf(made.btf([made.head(0, 8, 77)]))
    with pytest.raises(Malformed, match="type 77"):
        types.bare(1)


def test_many_maps_of_large_structs_are_bounded() -> None:
    """512 maps of 1,000 fields, each of a struct of its own: told, and not read to the end."""
    count = 100
    shapes = [made.struct_of(0, 8, *[(0, 1, 0)] * 1000) for _ in range(count)]
    pointers = [made.head(0, 2, 2 + number) for number in range(count)]
    maps = [made.struct_of(0, 8, (7, 2 + count + number, 0)) for number in range(count)]
    variables = [made.head(7, 14, 2 + 2 * count + number) + struct.pack("<I", 1) for number in range(count)]
    group = made.head(1, 15, 0, count) + b"".join(
        struct.pack("<III", 2 + 3 * count + number, 0, 8) for number in range(count)
    )
    blob = made.btf([made.integer(0, 4), *shapes, *pointers, *maps, *variables, group], b"\0.maps\0key\0")
    found = contents.read(made.elf({PLACE: EXIT, ".maps": bytes(8), ".BTF": blob}))
    assert "more than 65536 fields" in found.problems[0]
    assert 0 < len(found.maps) < count


# --- relocations ------------------------------------------------------------------------------------------------------

STRINGS = b"\0sock\0a\0int\0" + b"0:0\0"
TYPES = [made.struct_of(1, 4, (6, 2, 0)), made.integer(8, 4)]
KERNEL = btf.Btf(made.btf(TYPES, STRINGS))


def with_relocations(rows: list[tuple[int, int, int, int]]) -> contents.Contents:
    strings = STRINGS + PLACE.encode() + b"\0"
    types = made.btf(TYPES, strings)
    more = made.extension(rows, len(STRINGS))
    return contents.read(made.elf({PLACE: EXIT * 8, ".BTF": types, ".BTF.ext": more}))


def test_thousands_of_relocations_are_resolved_once() -> None:
    found = with_relocations([(8 * (number % 8), 1, 12, 0) for number in range(100_000)])
    (program,) = found.programs
    assert len(program.relocations) == 100_000
    assert found.types is not None
    resolver = core.Resolver(found.types, KERNEL)
    assert {resolver.resolve(row).works for row in program.relocations} == {True}


def test_more_relocations_than_any_object_has_are_told() -> None:
    found = with_relocations([(0, 1, 12, 0)] * 140_000)
    assert "more than 131072 records" in found.problems[0]


@pytest.mark.parametrize(("type", "access"), [(1, 5), (2, 12), (99, 12), (1, 0)])
def test_relocations_that_make_no_sense_are_told(type: int, access: int) -> None:
    found = with_relocations([(0, type, access, 0)])
    (program,) = found.programs
    assert found.types is not None
    with pytest.raises(Malformed):
        core.Resolver(found.types, KERNEL).resolve(program.relocations[0])


# --- chance -----------------------------------------------------------------------------------------------------------

OBJECTS = fuzz_object.seeds()
OTHER = contents.read(CO_RE)


@given(st.integers(0, 1 << 32))
def test_damaged_objects_give_an_answer_or_malformed(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(10):
        fuzz_object.check(damaged(dice.choice(OBJECTS), dice), KERNEL, OTHER)


def test_the_damage_reaches_the_readers() -> None:
    """A fuzz that only ever hits the first check of the header would prove nothing."""
    dice = random.Random(1)
    rows = [fuzz_object.check(damaged(dice.choice(OBJECTS), dice), KERNEL, OTHER) for _ in range(200)]
    assert 20 < sum(rows) < 180


@given(st.binary(max_size=300), st.sampled_from([".BTF", ".BTF.ext", ".maps", "maps", "license", PLACE]))
def test_noise_in_a_section_is_an_answer_or_malformed(noise: bytes, name: str) -> None:
    sections = {PLACE: EXIT, ".BTF": made.btf(TYPES, STRINGS), name: noise}
    fuzz_object.check(made.elf(sections), KERNEL, OTHER)


@given(st.binary(max_size=200))
def test_noise_as_btf_is_types_or_malformed(noise: bytes) -> None:
    data = made.btf([noise], STRINGS)
    try:
        types = btf.Btf(data)
        for number in range(1, len(types) + 1):
            types.describe(number)
            types.fields(number)
    except Malformed:
        pass
