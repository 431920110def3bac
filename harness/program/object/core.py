"""CO-RE: whether what a program wants of the kernel's types is in a given kernel's BTF, and where it is there.

What a loader does when it relocates (tools/lib/bpf/relo_core.c tells the rules): the path of a relocation's access,
`0:1:2`, is followed through the object's own types, which gives names; the same names are looked for in each type of
the kernel that has the root's name. A field that is not found makes the loader put in an instruction which the verifier
refuses if it can be reached; asking whether something exists never fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache

from harness.program.object.btf import CHAIN, COMPOSITE, DEEP, ENUMS, Btf, Kind, Type, essential
from harness.program.object.btf_ext import Relocation
from harness.program.object.elf import Malformed

ACCESS = 64  # numbers in an access; BPF_CORE_SPEC_MAX_LEN
DIFFERENT = 4096  # relocations that are not the same as an earlier one
WORK = 20_000_000  # members looked at for one object; an object of the agent's makes some hundred


class Wanted(IntEnum):
    """enum bpf_core_relo_kind."""

    FIELD_OFFSET = 0
    FIELD_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT = 4
    FIELD_RSHIFT = 5
    LOCAL_TYPE_ID = 6
    TARGET_TYPE_ID = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUM_VALUE_EXISTS = 10
    ENUM_VALUE = 11
    TYPE_MATCHES = 12


_WORDS = ("offset of", "size of", "whether there is", "sign of", "shift of", "shift of", "own id of", "kernel's id of",
          "whether there is", "size of", "whether there is", "value of", "match of")  # fmt: skip
_QUESTIONS = frozenset({Wanted.FIELD_EXISTS, Wanted.TYPE_EXISTS, Wanted.ENUM_VALUE_EXISTS, Wanted.TYPE_MATCHES})
_FIELDS = frozenset(range(Wanted.FIELD_OFFSET, Wanted.FIELD_RSHIFT + 1))
_ENUM_VALUES = frozenset({Wanted.ENUM_VALUE_EXISTS, Wanted.ENUM_VALUE})


class Fate(StrEnum):
    """What becomes of a relocation: RESOLVED; ABSENT, where it only asks whether there is one; MISSING; AMBIGUOUS."""

    RESOLVED = "resolved"
    ABSENT = "absent"
    MISSING = "missing"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class Resolution:
    """What a relocation wants, in words, and what a kernel's BTF says to it. own and there: bytes, bits or a value."""

    instruction: int
    wants: str  # "offset of sock.__sk_common.skc_daddr"
    fate: Fate
    own: int | None  # what the object was compiled with
    there: int | None
    why: str = ""

    @property
    def works(self) -> bool:
        return self.fate in (Fate.RESOLVED, Fate.ABSENT)

    def __str__(self) -> str:
        moved = f", compiled with {self.own}" if self.own != self.there and self.own is not None else ""
        found = f": {self.there}{moved}" if self.there is not None else ""
        return f"{self.wants}: {self.fate}{found}{f' ({self.why})' if self.why else ''}"


@dataclass(frozen=True)
class _Step:
    """One number of an access, followed: a member's name, or an element of an array."""

    name: str | None
    index: int


@dataclass(frozen=True)
class _Place:
    """What a path leads to: a type, where in the root it lies (bits), and its width where it is a bit field."""

    type: int
    offset: int
    bits: int = 0


class Resolver:
    """Resolves an object's relocations against one kernel's types."""

    def __init__(self, own: Btf, kernel: Btf):
        self._own, self._kernel = own, kernel
        self._work = WORK
        self._known: dict[tuple[int, str, int], tuple[str, Fate, int | None, int | None, str]] = {}

    def resolve(self, relocation: Relocation) -> Resolution:
        """Raises Malformed where the object's own types do not make sense."""
        key = (relocation.type, relocation.access, relocation.kind)
        if key not in self._known:  # thousands of relocations are often the same few
            if len(self._known) == DIFFERENT:
                raise Malformed(f"it has more than {DIFFERENT} different CO-RE relocations")
            self._known[key] = self._resolve(relocation)
        return Resolution(relocation.instruction, *self._known[key])

    def _resolve(self, relocation: Relocation) -> tuple[str, Fate, int | None, int | None, str]:
        if relocation.kind >= len(Wanted):
            return (f"a relocation of kind {relocation.kind}", Fate.MISSING, None, None, "a kind that is not known")
        wanted = Wanted(relocation.kind)
        root = self._own.bare(relocation.type) if wanted in _FIELDS else self._own.type(relocation.type)
        named = self._own.type(relocation.type)
        name = named.name or root.name or "(anonymous)"
        numbers = _numbers(relocation.access)
        if wanted is Wanted.LOCAL_TYPE_ID:
            return f"{_WORDS[wanted]} {name}", Fate.RESOLVED, relocation.type, relocation.type, ""
        if wanted in _FIELDS:
            return self._field(wanted, name, root, numbers)
        if wanted in _ENUM_VALUES:
            return self._enum_value(wanted, name, root, numbers)
        return self._whole_type(wanted, name)

    # --- fields ---------------------------------------------------------------------------------------------------

    def _field(
        self, wanted: Wanted, name: str, root: Type, numbers: Sequence[int]
    ) -> tuple[str, Fate, int | None, int | None, str]:
        steps, place = _follow(self._own, root, numbers)
        path = "".join(f".{step.name}" if step.name else f"[{step.index}]" for step in steps[1:])
        wants = f"{_WORDS[wanted]} {essential(name)}{path}"
        own = _value(self._own, wanted, place)
        if essential(name) not in self._kernel.names:
            return _outcome(wants, wanted, own, [], f"no type {essential(name)}")
        there = [
            _value(self._kernel, wanted, found)
            for candidate in self._candidates(name, root)
            if (found := self._look_for(candidate, steps, place)) is not None
        ]
        return _outcome(wants, wanted, own, there, f"no such field in {essential(name)}")

    def _candidates(self, name: str, root: Type) -> Iterator[Type]:
        """Types of the kernel that have the name and, behind typedefs, the kind of the root."""
        for number in self._kernel.names.get(essential(name), ())[:CHAIN]:
            candidate = self._kernel.bare(number)
            if candidate.kind is root.kind or {candidate.kind, root.kind} <= COMPOSITE | {Kind.FWD}:
                yield candidate

    def _look_for(self, root: Type, steps: Sequence[_Step], own: _Place) -> _Place | None:
        place = _Place(root.id, steps[0].index * 8 * self._kernel.size(root.id))
        for step in steps[1:]:
            current = self._kernel.bare(place.type)
            if step.name is not None:
                found = self._member(current, step.name, {current.id}, 0)
                if found is None:
                    return None
                place = _Place(found.type, place.offset + found.offset, found.bits)
            else:
                if current.kind is not Kind.ARRAY:
                    return None
                element, _ = self._kernel.array(current)
                place = _Place(element, place.offset + step.index * 8 * self._kernel.size(element))
        return place if _alike(self._own, own.type, self._kernel, place.type) else None

    def _member(self, one: Type, name: str, seen: set[int], depth: int) -> _Place | None:
        """A member by name, also within anonymous members; offsets in bits from the start of one."""
        if one.kind not in COMPOSITE or depth == DEEP:
            return None
        self._spend(one.entries)
        for member in self._kernel.members(one):
            if member.name == name:
                return _Place(member.type, member.offset, member.bits)
            inner = self._kernel.bare(member.type) if not member.name else None
            if inner is not None and inner.id not in seen:
                seen.add(inner.id)
                found = self._member(inner, name, seen, depth + 1)
                if found is not None:
                    return _Place(found.type, member.offset + found.offset, found.bits)
        return None

    def _spend(self, members: int) -> None:
        """A kernel's BTF may come from a stranger too: structs within themselves, a million of one name."""
        self._work -= members
        if self._work < 0:
            raise Malformed("resolving its CO-RE relocations takes more work than those of any honest object")

    def place_of(self, struct: str, path: str) -> int | None:
        for root in self._kernel.named(struct, Kind.STRUCT):
            place: _Place | None = _Place(root.id, 0)
            for name in path.split("."):
                if place is not None:
                    current = self._kernel.bare(place.type)
                    found = self._member(current, name, {current.id}, 0)
                    place = None if found is None else _Place(found.type, place.offset + found.offset)
            if place is not None:
                return place.offset // 8
        return None

    # --- whole types and enumerators --------------------------------------------------------------------------------

    def _whole_type(self, wanted: Wanted, name: str) -> tuple[str, Fate, int | None, int | None, str]:
        """By name and kind: the loader's comparison of the members' kinds (TYPE_MATCHES) is not made here."""
        kernel = self._kernel
        sizes = [kernel.size(one.id) if wanted is Wanted.TYPE_SIZE else one.id for one in kernel.named(name)]
        there = sizes if wanted in (Wanted.TYPE_SIZE, Wanted.TARGET_TYPE_ID) else [1] * bool(sizes)
        own = next((self._own.size(one.id) for one in self._own.named(name)), None)
        wants = f"{_WORDS[wanted]} type {essential(name)}"
        return _outcome(wants, wanted, own if wanted is Wanted.TYPE_SIZE else None, there, f"no type {essential(name)}")

    def _enum_value(
        self, wanted: Wanted, name: str, root: Type, numbers: Sequence[int]
    ) -> tuple[str, Fate, int | None, int | None, str]:
        root = self._own.bare(root.id)
        if root.kind not in ENUMS or numbers[0] >= root.entries:
            raise Malformed(
                f"a CO-RE relocation names enumerator {numbers[0]} of {name}, which has none of that number"
            )
        word, own = self._own.enumerator(root, numbers[0])
        there = []
        for one in self._kernel.named(name, Kind.ENUM, Kind.ENUM64)[:CHAIN]:
            self._spend(one.entries)
            rows = self._kernel.enumerators(one)
            there += [
                value if wanted is Wanted.ENUM_VALUE else 1
                for other, value in rows
                if essential(other) == essential(word)
            ]
        wants = f"{_WORDS[wanted]} {essential(word)} of enum {essential(name)}"
        return _outcome(wants, wanted, own if wanted is Wanted.ENUM_VALUE else 1, there, "no such enumerator")


def _outcome(
    wants: str, wanted: Wanted, own: int | None, there: Sequence[int], missing: str
) -> tuple[str, Fate, int | None, int | None, str]:
    values = sorted(set(there))
    if len(values) > 1 and wanted not in _QUESTIONS:
        return wants, Fate.AMBIGUOUS, own, None, f"types of one name give {values[:4]}"
    if values:
        return wants, Fate.RESOLVED, own, values[0], ""
    if wanted in _QUESTIONS:
        return wants, Fate.ABSENT, own, 0, missing
    return wants, Fate.MISSING, own, None, missing


@lru_cache(maxsize=1024)
def _numbers(access: str) -> Sequence[int]:
    words = access.split(":")
    if len(words) > ACCESS or not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise Malformed(f"a CO-RE relocation has the access {access[:40]!r}")
    return tuple(int(word) for word in words)


def _follow(types: Btf, root: Type, numbers: Sequence[int]) -> tuple[Sequence[_Step], _Place]:
    """The object's own path: what each number means, and where it leads."""
    steps = [_Step(None, numbers[0])]
    place = _Place(root.id, numbers[0] * 8 * types.size(root.id))
    for number in numbers[1:]:
        current = types.bare(place.type)
        if current.kind in COMPOSITE:
            if number >= current.entries:
                raise Malformed(
                    f"a CO-RE relocation names member {number} of {current.name}, which has {current.entries}"
                )
            member = types.member(current, number)
            if member.name:  # an anonymous struct is no step: elsewhere the field may lie in another one, or in none
                steps.append(_Step(member.name, number))
            place = _Place(member.type, place.offset + member.offset, member.bits)
        elif current.kind is Kind.ARRAY:
            element, _ = types.array(current)
            steps.append(_Step(None, number))
            place = _Place(element, place.offset + number * 8 * types.size(element))
        else:
            raise Malformed(f"a CO-RE relocation goes into {types.describe(current.id)}, which has no members")
    return steps, place


def _alike(own: Btf, own_type: int, kernel: Btf, kernel_type: int) -> bool:
    """Whether a field of the one type can stand for one of the other: the kinds decide, names and sizes do not."""
    for _ in range(CHAIN):
        a, b = own.bare(own_type), kernel.bare(kernel_type)
        if {a.kind, b.kind} <= COMPOSITE or {a.kind, b.kind} <= ENUMS | {Kind.FWD}:
            return True
        if a.kind is not b.kind:
            return False
        if a.kind is not Kind.ARRAY:
            return True
        own_type, kernel_type = own.array(a)[0], kernel.array(b)[0]
    return False


def _value(types: Btf, wanted: Wanted, place: _Place) -> int:
    """What the loader would write into the instruction, in bytes; for a bit field's shifts in bits."""
    size = types.size(place.type)
    if wanted is Wanted.FIELD_EXISTS:
        return 1
    if wanted is Wanted.FIELD_SIZE:
        return size
    if wanted is Wanted.FIELD_SIGNED:
        return int(types.signed(types.bare(place.type)))
    width = place.bits or 8 * size
    if wanted is Wanted.FIELD_OFFSET:
        return place.offset // (8 * size) * size if place.bits and size else place.offset // 8
    if wanted is Wanted.FIELD_RSHIFT:
        return 64 - width
    within = place.offset % (8 * size) if place.bits and size else 0
    return 64 - width - within  # LSHIFT of a little-endian load


def place_of(kernel: Btf, struct: str, path: str) -> int | None:
    """Where a field lies in a kernel's struct, in bytes: of "sock", "__sk_common.skc_num"; None where there is none."""
    return Resolver(kernel, kernel).place_of(struct, path)
