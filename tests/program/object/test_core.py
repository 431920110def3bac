"""CO-RE against kernels made up for the purpose, and (marked) against this one."""

from __future__ import annotations

import struct

import pytest

from harness.kernel import facts
from harness.program.object import btf, contents, core
from harness.program.object.btf import Btf
from harness.program.object.btf_ext import Relocation
from harness.program.object.core import Fate, Wanted
from tests.objects.build import Style, build
from tests.program.object import made

TEXT = "\0sock\0common\0port\0num\0int\0__u64\0state\0OPEN\0SHUT\0sock___old\0" + "0:0:1\0" + "0\0" + "1\0" + "0:1\0"
STRINGS = TEXT.encode()


def at(word: str) -> int:
    return TEXT.index("\0" + word + "\0") + 1


INT = made.integer(at("int"), 4)
LONG = made.integer(at("__u64"), 8)


def common(*members: tuple[str, int, int]) -> bytes:
    return made.struct_of(at("common"), 16, *[(at(name) if name else 0, kind, bits) for name, kind, bits in members])


def sock(name: str = "sock") -> bytes:
    return made.struct_of(at(name), 16, (at("common"), 1, 0))


def types(*rows: bytes) -> Btf:
    return Btf(made.btf(rows, STRINGS))


OWN = types(common(("port", 3, 0), ("num", 3, 32)), sock(), INT)


def resolve(
    kernel: Btf, access: str = "0:0:1", kind: int = Wanted.FIELD_OFFSET, own: Btf = OWN, type: int = 2
) -> core.Resolution:
    return core.Resolver(own, kernel).resolve(Relocation(0, type, access, kind))


def test_a_field_that_moved_is_found_by_its_name() -> None:
    kernel = types(common(("num", 3, 64), ("port", 3, 0)), sock(), INT)
    found = resolve(kernel)
    assert (found.wants, found.fate, found.own, found.there) == ("offset of sock.common.num", Fate.RESOLVED, 4, 8)


def test_a_field_within_an_anonymous_member_is_found() -> None:
    inner = made.struct_of(0, 8, (at("num"), 3, 32))
    kernel = types(common(("port", 3, 0), ("", 4, 32)), sock(), INT, inner)
    assert resolve(kernel).there == 8


def test_a_flavour_is_the_same_type() -> None:
    kernel = types(common(("num", 3, 64)), sock(), INT)
    own = types(common(("port", 3, 0), ("num", 3, 32)), sock("sock___old"), INT)
    assert resolve(kernel, own=own).there == 8


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (types(common(("port", 3, 0)), sock(), INT), "no such field in sock"),
        (types(INT), "no type sock"),
        (types(common(("num", 1, 0)), sock(), INT), "no such field in sock"),  # a struct where an int was
    ],
)
def test_what_is_not_there_is_missing_or_absent(kernel: Btf, why: str) -> None:
    missing = resolve(kernel)
    assert (missing.fate, missing.works, missing.why) == (Fate.MISSING, False, why)
    absent = resolve(kernel, kind=Wanted.FIELD_EXISTS)
    assert (absent.fate, absent.works, absent.there) == (Fate.ABSENT, True, 0)


def test_two_types_of_one_name_that_differ_are_ambiguous() -> None:
    other = made.struct_of(at("sock"), 16, (at("common"), 5, 0))
    kernel = types(common(("num", 3, 0)), sock(), INT, other, common(("num", 3, 64)))
    assert resolve(kernel).fate is Fate.AMBIGUOUS
    assert resolve(kernel, kind=Wanted.FIELD_EXISTS).fate is Fate.RESOLVED


@pytest.mark.parametrize(
    ("kind", "there"),
    [(Wanted.FIELD_SIZE, 8), (Wanted.FIELD_LSHIFT, 0), (Wanted.FIELD_RSHIFT, 0), (Wanted.FIELD_SIGNED, 0)],
)
def test_other_questions_about_a_field(kind: int, there: int) -> None:
    kernel = types(common(("num", 3, 64)), sock(), LONG)
    assert resolve(kernel, kind=kind).there == there


def test_enumerators_and_whole_types() -> None:
    def state(*rows: tuple[str, int]) -> bytes:
        values = b"".join(struct.pack("<II", at(name), value) for name, value in rows)
        return made.head(at("state"), 6, 4, len(rows)) + values

    own = types(state(("OPEN", 1), ("SHUT", 2)))
    kernel = types(state(("SHUT", 7)), sock())
    found = [resolve(kernel, access, kind, own, 1) for access, kind in (("1", 11), ("0", 11), ("0", 10), ("1", 10))]
    assert [(row.fate, row.there) for row in found] == [
        (Fate.RESOLVED, 7), (Fate.MISSING, None), (Fate.ABSENT, 0), (Fate.RESOLVED, 1),
    ]  # fmt: skip
    assert found[0].wants == "value of SHUT of enum state"
    assert resolve(kernel, "0", Wanted.TYPE_SIZE).there == 16
    assert resolve(types(INT), "0", Wanted.TYPE_EXISTS).fate is Fate.ABSENT
    assert resolve(types(INT), "0", Wanted.LOCAL_TYPE_ID).there == 2
    assert resolve(types(INT), "0", 99).fate is Fate.MISSING


def test_names_without_flavour() -> None:
    assert [btf.essential(name) for name in ("sock___old", "sock", "___x", "a___", "a___b___c")] == [
        "sock", "sock", "___x", "a___", "a___b",
    ]  # fmt: skip


def test_types_in_words() -> None:
    assert OWN.describe(2) == "struct sock"
    assert types(INT, made.head(0, 2, 1), made.head(0, 3, 0) + struct.pack("<III", 2, 1, 3)).describe(3) == "int *[3]"


@pytest.mark.kernel
def test_against_this_kernel() -> None:
    """libbpf loads both objects here, so both resolve; the field of another kernel is absent."""
    if not facts.has_btf():
        pytest.skip("this kernel has no BTF")
    kernel = btf.load(btf.KERNEL)
    one = contents.read(build(Style.WEAK_FIELD).read_bytes())
    assert one.types is not None
    program = next(found for found in one.programs if found.relocations)
    resolver = core.Resolver(one.types, kernel)
    found = [resolver.resolve(row) for row in program.relocations]
    assert [row.fate for row in found] == [Fate.RESOLVED, Fate.RESOLVED, Fate.RESOLVED, Fate.ABSENT]
    assert [row.there for row in found[:3]] == [0, 12, 14]
    assert core.place_of(kernel, "sock", "__sk_common.skc_num") == 14
    assert core.place_of(kernel, "sock", "__sk_common.no_such_field") is None
