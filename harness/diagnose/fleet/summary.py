"""What a fleet's rows say together: causes by count, who has them, outliers, and failures that no rule explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.diagnose.fleet.store import Store
from harness.diagnose.verdict import Kind
from harness.msp import codes

DIMENSIONS = ("kernel", "distribution", "agent")
_MOST = 20  # rows of a table
_FEWEST = 5  # machines of a value that an outlier needs
_SIGNIFICANT = 10.83
"""G squared of a 2x2 table with one degree of freedom: p < 0.001 (chi-squared distribution)."""


@dataclass(frozen=True)
class Cause:
    kind: str
    code: str
    title: str
    place: str  # in the guide
    count: int
    example: str  # a bundle


@dataclass(frozen=True)
class Cell:
    """How many machines of a kernel, distribution or agent there are, how many have a cause, and which most."""

    dimension: str
    value: str
    machines: int
    failing: int
    most: str  # the commonest code among them; "" for none


@dataclass(frozen=True)
class Outlier:
    """A cause that machines of one value have far more often than the others."""

    dimension: str
    value: str
    code: str
    title: str
    here: int
    machines: int  # of this value
    elsewhere: int
    others: int


@dataclass(frozen=True)
class Unexplained:
    message: str  # masked
    count: int
    example: str


@dataclass(frozen=True)
class Summary:
    bundles: int
    kinds: dict[str, int]
    causes: Sequence[Cause]
    cells: Sequence[Cell]
    outliers: Sequence[Outlier]
    contradictions: Sequence[tuple[str, str, int]]  # (code, title, count)
    unexplained: Sequence[Unexplained]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _title(code: str) -> str:
    known = codes.all_codes().get(code)
    return known.title if known else code


def summary(store: Store) -> Summary:
    """Everything is counted by SQLite: memory does not grow with the fleet."""
    kinds = {str(kind): int(str(count)) for kind, count in store.query(_KINDS)}
    causes = [
        Cause(str(kind), str(code), _title(str(code)), str(place), int(str(count)), str(example))
        for kind, code, place, count, example in store.query(_CAUSES, _MOST)
    ]
    cells = [cell for dimension in DIMENSIONS for cell in _cells(store, dimension)]
    outliers = sorted(
        (row for dimension in DIMENSIONS for row in _outliers(store, dimension)), key=lambda row: -row.here
    )
    contradictions = [
        (str(code), _title(str(code)), int(str(count))) for code, count in store.query(_CONTRADICTIONS, _MOST)
    ]
    unexplained = [
        Unexplained(str(text), int(str(count)), str(example))
        for text, count, example in store.query(_UNEXPLAINED, _MOST)
    ]
    return Summary(sum(kinds.values()), kinds, causes, cells, outliers[:_MOST], contradictions, unexplained)


_KINDS = "SELECT kind, count(*) FROM bundles GROUP BY kind ORDER BY 2 DESC"
_CAUSES = (
    "SELECT kind, code, max(place), count(*), min(name) FROM bundles GROUP BY kind, code ORDER BY 4 DESC, 2 LIMIT ?"
)
_CONTRADICTIONS = (
    "SELECT value, count(*) FROM bundles, json_each(bundles.contradictions) GROUP BY value ORDER BY 2 DESC, 1 LIMIT ?"
)
_UNEXPLAINED = (
    "SELECT unexplained, count(*), min(name) FROM bundles WHERE unexplained != ''"
    " GROUP BY unexplained ORDER BY 2 DESC, 1 LIMIT ?"
)


def _cells(store: Store, dimension: str) -> list[Cell]:
    question = (
        f"SELECT {dimension}, count(*), sum(kind = ?) FROM bundles WHERE {dimension} != '' GROUP BY 1"
        " ORDER BY 3 DESC, 2 DESC, 1 LIMIT ?"
    )
    most = f"SELECT code FROM bundles WHERE {dimension} = ? AND kind = ? GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
    cells = []
    for value, machines, failing in store.query(question, str(Kind.CAUSE), _MOST):
        commonest = store.query(most, value, str(Kind.CAUSE))
        code = str(commonest[0][0]) if commonest else ""
        cells.append(Cell(dimension, str(value), int(str(machines)), int(str(failing)), code))
    return cells


def _outliers(store: Store, dimension: str) -> list[Outlier]:
    """Among the machines whose value is known: a 2x2 table for each value and cause, by its G squared."""
    known = f"FROM bundles WHERE {dimension} != ''"
    (everybody,) = (int(str(row[0])) for row in store.query(f"SELECT count(*) {known}"))
    of_code = {
        str(code): int(str(count))
        for code, count in store.query(f"SELECT code, count(*) {known} AND kind = ? GROUP BY 1", str(Kind.CAUSE))
    }
    sizes = {
        str(value): int(str(count))
        for value, count in store.query(
            f"SELECT {dimension}, count(*) {known} GROUP BY 1 HAVING count(*) >= ?", _FEWEST
        )
    }
    question = f"SELECT {dimension}, code, count(*) {known} AND kind = ? GROUP BY 1, 2 HAVING count(*) >= ?"
    found = []
    for value, code, count in store.query(question, str(Kind.CAUSE), _FEWEST):
        here, machines = int(str(count)), sizes[str(value)]
        elsewhere, others = of_code[str(code)] - here, everybody - machines
        more_often = others > 0 and here * others > 2 * elsewhere * machines
        if more_often and g_squared(here, machines - here, elsewhere, others - elsewhere) > _SIGNIFICANT:
            title = _title(str(code))
            found.append(Outlier(dimension, str(value), str(code), title, here, machines, elsewhere, others))
    return found


def g_squared(a: int, b: int, c: int, d: int) -> float:
    """The likelihood-ratio statistic of a 2x2 table of counts [[a, b], [c, d]]."""
    total = a + b + c + d
    rows, columns = (a + b, c + d), (a + c, b + d)
    table = ((a, 0, 0), (b, 0, 1), (c, 1, 0), (d, 1, 1))
    return 2 * sum(n * math.log(n * total / (rows[i] * columns[j])) for n, i, j in table if n)
