"""The rows of a fleet in SQLite: written in batches, so that a run that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import harness
from harness.diagnose.fleet.bundles import Bundle
from harness.diagnose.fleet.judgement import COLUMNS, Row
from harness.errors import HarnessError

_NUMBERS = {"notes": "INTEGER"}
_TABLE = ", ".join(f"{name} {_NUMBERS.get(name, 'TEXT')} NOT NULL" for name in COLUMNS)


class Store:
    """Keeps a row a bundle. Rows that other rules made are not used again: they are forgotten when it is opened."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._base = sqlite3.connect(path)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT)")
            self._base.execute(
                f"CREATE TABLE IF NOT EXISTS bundles ({_TABLE}, seen INTEGER NOT NULL, PRIMARY KEY (name))"
            )
            self._run = self._begin()
        except sqlite3.Error as error:
            raise self._failed("open", error) from error

    def _failed(self, attempted: str, error: sqlite3.Error) -> HarnessError:
        remedy = "give another --store, or remove the file"
        return HarnessError(f"{attempted} the fleet's rows in {self._path}", str(error), remedy)

    def _begin(self) -> int:
        about = dict(self._base.execute("SELECT name, value FROM about"))
        with self._base:
            if about.get("rules") != rules_digest():
                self._base.execute("DELETE FROM bundles")
            run = int(about.get("run", "0")) + 1
            self._base.execute("INSERT OR REPLACE INTO about VALUES ('rules', ?)", (rules_digest(),))
            self._base.execute("INSERT OR REPLACE INTO about VALUES ('run', ?)", (str(run),))
        return run

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def unknown(self, bundles: Sequence[Bundle]) -> list[Bundle]:
        """Those that have no row yet, or one of another content; the others' rows count for this run."""
        marks = ",".join("?" * len(bundles))
        names = [bundle.name for bundle in bundles]
        known = dict(self._base.execute(f"SELECT name, stamp FROM bundles WHERE name IN ({marks})", names))
        same = [
            (self._run, bundle.name) for bundle in bundles if bundle.stamp and known.get(bundle.name) == bundle.stamp
        ]
        with self._base:
            self._base.executemany("UPDATE bundles SET seen = ? WHERE name = ?", same)
        kept = {name for _, name in same}
        return [bundle for bundle in bundles if bundle.name not in kept]

    def add(self, rows: Iterable[Row]) -> None:
        """One transaction: all of them or none."""
        marks = ",".join("?" * (len(COLUMNS) + 1))
        try:
            with self._base:
                values = [(*row.values(), self._run) for row in rows]
                self._base.executemany(f"INSERT OR REPLACE INTO bundles VALUES ({marks})", values)
        except sqlite3.Error as error:
            raise self._failed("write", error) from error

    def finish(self) -> None:
        """Forget bundles that the fleet no longer has."""
        with self._base:
            self._base.execute("DELETE FROM bundles WHERE seen != ?", (self._run,))

    def query(self, question: str, *values: object) -> list[tuple[object, ...]]:
        return self._base.execute(question, values).fetchall()

    def batches(self, size: int = 50_000) -> Iterator[list[tuple[object, ...]]]:
        """Every row, in order of names, as COLUMNS has them."""
        cursor = self._base.execute(f"SELECT {', '.join(COLUMNS)} FROM bundles ORDER BY name")
        while rows := cursor.fetchmany(size):
            yield rows


def rules_digest() -> str:
    """A hash of what a verdict depends on: this package's own code for diagnosis."""
    top = Path(harness.__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for part in ("diagnose", "msp", "verifier"):
        for path in sorted((top / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
