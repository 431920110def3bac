"""From which kernel on a program loads, is attached, redirects: as measured, beside what is documented.

Said only of kernels that were asked, in the order of their versions. Kernels of the lab have things left out on
purpose, so that their version says nothing of others of that version: they are named apart. A measured floor may not
be one: newer kernels may refuse what older ones accept, and then that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.checks.preflight import DOCUMENTED_FLOOR
from harness.kernel.probes import Answer, Probed
from harness.matrix.abilities import ABILITIES, Ability, answer, phrase
from harness.matrix.model import Matrix, Program, Row

Measured = tuple[Row, Probed]


@dataclass(frozen=True)
class Floor:
    """What was measured about one ability of one program on one kind of machine.

    since: the oldest version from which on every kernel that was asked accepts; None where there is none. Names are
    those of rows, oldest first; altered ones are in none of the three lists.
    """

    program: str
    ability: str
    title: str
    variation: str
    since: str | None
    monotonic: bool
    accepted: Sequence[str]
    refused: Sequence[str]
    unknown: Sequence[str]
    text: str
    beside: str  # how it compares with what is documented
    reason: str  # what the newest kernel that refuses said
    altered: str  # what altered kernels did
    documented: str = DOCUMENTED_FLOOR


def floors(matrix: Matrix) -> list[Floor]:
    """For each kind of machine, program and ability; without abilities that no cell was asked about."""
    return [floor for floor in _floors(matrix) if floor.accepted or floor.refused or floor.altered]


def together(found: Sequence[Floor]) -> list[tuple[str, Floor]]:
    """Abilities of a program of which the very same is to be told, in one phrase, with one of their floors."""
    groups: dict[tuple[str, ...], tuple[list[str], Floor]] = {}
    for floor in found:
        same = (floor.program, floor.variation, floor.text, floor.beside, floor.reason, floor.altered)
        groups.setdefault(same, ([], floor))[0].append(floor.title)
    return [(phrase(titles), floor) for titles, floor in groups.values()]


def _floors(matrix: Matrix) -> Iterator[Floor]:
    for variation in dict.fromkeys(row.variation for row in matrix.rows):
        rows = [row for row in matrix.rows if row.variation == variation]
        for program in matrix.programs:
            for ability in ABILITIES:
                asked = [(row, answer(ability, program.own, matrix.cell(row, program).report)) for row in rows]
                yield _floor(program, ability, variation, asked)


def _floor(program: Program, ability: Ability, variation: str, asked: Sequence[Measured]) -> Floor:
    plain = sorted((one for one in asked if not one[0].altered), key=lambda one: (one[0].version, one[0].name))
    known = [one for one in plain if one[1].answer is not Answer.UNKNOWN]
    since = _since(known)
    refused = [one for one in known if one[1].answer is Answer.NO]
    altered = [one for one in asked if one[0].altered]
    return Floor(
        program=program.name,
        ability=ability.name,
        title=ability.title,
        variation=variation,
        since=None if since is None else _version(since[0]),
        monotonic=_breaks(known) is None,
        accepted=[row.name for row, said in known if said.answer is Answer.YES],
        refused=[row.name for row, _ in refused],
        unknown=[row.name for row, said in plain if said.answer is Answer.UNKNOWN],
        text=_text(known) + _not_known(plain),
        beside=_beside(since, refused),
        reason=refused[-1][1].said if refused else "",
        altered=_altered(altered),
    )


def _version(row: Row) -> str:
    return ".".join(map(str, row.version[:2]))


def _since(known: Sequence[Measured]) -> Measured | None:
    """The oldest of the kernels from which on all accept; kernels of one version count together."""
    newest_refusal = max((row.version for row, said in known if said.answer is Answer.NO), default=None)
    later = [one for one in known if newest_refusal is None or one[0].version > newest_refusal]
    return later[0] if later else None


def _breaks(known: Sequence[Measured]) -> tuple[Row, Row] | None:
    """A kernel that refuses and one that is no newer and accepts, the newest such pair; None where there is none."""
    for number in range(len(known) - 1, -1, -1):
        row, said = known[number]
        if said.answer is not Answer.NO:
            continue
        others = [one for one, answer in known if answer.answer is Answer.YES and one.version <= row.version]
        if others:
            return row, others[-1]
    return None


def _text(known: Sequence[Measured]) -> str:
    """The floor in a sentence without its subject."""
    if not known:
        return "not measured on any kernel as distributions ship it"
    yes = [row for row, said in known if said.answer is Answer.YES]
    no = [row for row, said in known if said.answer is Answer.NO]
    broken = _breaks(known)
    if broken is not None:
        refusing, older = broken
        same = "another of that version" if older.version == refusing.version else "older"
        return f"not monotonic: refused by {refusing.label} though accepted by {same} {older.label}; {_runs(known)}"
    if not no:
        return f"accepted by all that were asked, {_range(yes)}; nothing older was asked"
    if not yes:
        return f"refused by all that were asked, {_range(no)}; nothing newer was asked"
    return (
        f"from {_version(yes[0])} on: refused by {no[-1].label}, accepted by {yes[0].label}; nothing between was asked"
    )


def _range(rows: Sequence[Row]) -> str:
    return rows[0].label if len(rows) == 1 else f"{rows[0].label} to {rows[-1].label}"


def _runs(known: Sequence[Measured]) -> str:
    """`yes 5.10 (a) to 6.1 (b), no 6.12 (c), yes 7.2 (d)`: neighbours with the same answer taken together."""
    groups: list[list[Row]] = [[known[0][0]]]
    answers = [known[0][1].answer]
    for (_, before), (row, said) in pairwise(known):
        if said.answer is before.answer:
            groups[-1].append(row)
        else:
            groups.append([row])
            answers.append(said.answer)
    return ", ".join(f"{answer} {_range(rows)}" for answer, rows in zip(answers, groups, strict=True))


def _not_known(plain: Sequence[Measured]) -> str:
    unknown = [(row, said) for row, said in plain if said.answer is Answer.UNKNOWN]
    if not unknown:
        return ""
    return "; not known of " + ", ".join(f"{row.label} ({said.said})" for row, said in unknown)


def _beside(since: Measured | None, refused: Sequence[Measured]) -> str:
    """How what was measured compares with the documented floor, where it can be compared."""
    documented = tuple(map(int, DOCUMENTED_FLOOR.split(".")))
    above = [row for row, _ in refused if row.version[:2] >= documented]
    if above:
        return f"refused by {above[-1].label}, which is not below it"
    if since is None:
        return ""
    return f"accepted below it, by {since[0].label}" if since[0].version[:2] < documented else ""


def _altered(asked: Sequence[Measured]) -> str:
    """`refused by lab:a, lab:b; accepted by lab:c`."""
    words = {Answer.NO: "refused by", Answer.YES: "accepted by", Answer.UNKNOWN: "not known of"}
    parts = []
    for one, verb in words.items():
        names = [row.name for row, said in asked if said.answer is one]
        if names:
            parts.append(f"{verb} {', '.join(names)}")
    return "; ".join(parts)
