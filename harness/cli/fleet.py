"""`msp-harness diagnose --fleet`: run it and print its summary."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report import EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console

    from harness.diagnose.fleet.run import Progress
    from harness.diagnose.fleet.summary import Summary


def add_options(parser: argparse.ArgumentParser) -> None:
    fleet = parser.add_argument_group("a fleet")
    fleet.add_argument("--fleet", metavar="PATH", help="a directory or archive of bundles, or NDJSON, one a machine")
    fleet.add_argument("--store", metavar="FILE", help="the SQLite file with a row a machine (default: fleet.sqlite)")
    fleet.add_argument("--parquet", metavar="FILE", help="write the rows as Parquet too, for DuckDB or Spark")
    fleet.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")


def run(options: argparse.Namespace) -> int:
    import os

    from harness.diagnose.fleet.run import run as judge
    from harness.diagnose.fleet.store import Store
    from harness.diagnose.fleet.summary import summary
    from harness.report import console
    from harness.report.write import write

    jobs = options.jobs or len(os.sched_getaffinity(0))
    to_stdout = {"-", "/dev/stdout"} & {options.json}
    screen = console.console(sys.stderr if to_stdout else sys.stdout)
    path = Path(options.store or "fleet.sqlite")
    with Store(path) as store:
        with _progress(screen) as progress:
            count, judged = judge(Path(options.fleet), store, max(1, jobs), progress)
        if options.parquet:
            from harness.diagnose.fleet import parquet

            parquet.write(store, Path(options.parquet))
        found = summary(store)
    if options.json:
        write(options.json, json.dumps(found.to_json(), indent=2, ensure_ascii=True) + "\n")
    _show(screen, found)
    screen.print(f"{count:,} bundles, {judged:,} judged now, the others were unchanged; every row is in {path}")
    return EXIT_OK


@contextmanager
def _progress(screen: Console) -> Iterator[Progress]:
    """A bar by bytes where the source has a size, else a count; nothing where no person looks."""
    from rich import progress as bars

    columns = (bars.BarColumn(), bars.TextColumn("{task.description}"), bars.TimeElapsedColumn())
    with bars.Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def told(count: int, done: int, size: int | None) -> None:
            bar.update(task, description=f"{count:,} bundles", completed=done, total=size)

        yield told


def _show(screen: Console, found: Summary) -> None:
    """Tables with text as it is: no markup of what comes from outside."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items())
    screen.print(f"{found.bundles:,} machines: {kinds}", markup=False, highlight=False)
    causes = [
        (f"{row.count:,}", row.code or "-", f"{row.title or row.kind} ({row.kind})", row.example)
        for row in found.causes
    ]
    _table(screen, "Verdicts", ("machines", "code", "what", "for example"), causes)
    for dimension in ("kernel", "distribution", "agent"):
        cells = [
            (cell.value, f"{cell.machines:,}", f"{cell.failing:,}", cell.most)
            for cell in found.cells
            if cell.dimension == dimension
        ]
        _table(screen, f"By {dimension}", (dimension, "machines", "with a cause", "mostly"), cells)
    outliers = [
        (f"{row.dimension} {row.value}", f"{row.code} {row.title}", f"{row.here:,} of {row.machines:,}",
         f"{row.elsewhere:,} of {row.others:,}")
        for row in found.outliers
    ]  # fmt: skip
    _table(
        screen, "Outliers: a cause far commoner here than elsewhere", ("where", "cause", "here", "elsewhere"), outliers
    )
    contradictions = [(f"{count:,}", code, title) for code, title, count in found.contradictions]
    _table(screen, "Contradictions", ("machines", "code", "what"), contradictions)
    unexplained = [(f"{row.count:,}", row.message, row.example) for row in found.unexplained]
    _table(screen, "No rule explains these messages", ("machines", "message, masked", "for example"), unexplained)


def _table(screen: Console, title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.report.text import visible

    if not rows:
        return
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("machines", "with a cause") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell, screen.encoding)) for cell in row))
    screen.print(table)
