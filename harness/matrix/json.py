"""A matrix as JSON, and back. The layout is published as matrix-schema.json beside the report's own schema.json.

Each cell holds a whole Report, as `--json` of any command writes it. What differs from run to run is in members `run`:
of the matrix, and of each report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import HarnessError, errno_text
from harness.matrix.floors import floors
from harness.matrix.model import Cell, Matrix, Program, Row, exit_code
from harness.report import json as report_json

SCHEMA = "msp-harness.matrix/1"
"""The layout's version: the number grows when a reader of the old layout would misread the new one."""

_LARGEST = 1 << 28  # bytes of a file that is read: some thousand reports
_TOP = ("schema", "harness_version", "exit_code", "checks", "kernels", "programs", "cells", "floors", "run")
_ROW = ("spec", "variation", "release", "origin", "digest")
_CELL = ("kernel", "program", "outcome", "key", "report")
_RUN = ("started", "ended", "seconds", "reused")


def dump(matrix: Matrix) -> str:
    """The matrix as indented ASCII JSON with a newline at the end; the same matrix gives the same text."""
    document = {
        "schema": SCHEMA,
        "harness_version": matrix.harness_version,
        "exit_code": exit_code(matrix),
        "checks": list(matrix.checks),
        "kernels": [{name: getattr(row, name) for name in _ROW} for row in matrix.rows],
        "programs": [{"name": program.name, "digest": program.digest} for program in matrix.programs],
        "cells": [
            {
                "kernel": cell.row,
                "program": cell.program,
                "outcome": cell.outcome.value,
                "key": cell.key,
                "report": json.loads(report_json.dump(cell.report)),
            }
            for cell in matrix.cells
        ],
        "floors": [asdict(floor) for floor in floors(matrix)],
        "run": {
            "started": matrix.started,
            "ended": matrix.ended,
            "seconds": matrix.seconds,
            "reused": [cell.key for cell in matrix.cells if cell.reused],
        },
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read(path: str) -> Matrix:
    """The matrix in a file that dump wrote. Raises HarnessError when it cannot be read or holds something else."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        number = error.errno or 0
        raise HarnessError(
            f"read the matrix {path}", errno_text(number), "give a file that `matrix --json` wrote", errno=number
        ) from error
    if len(data) > _LARGEST:
        raise HarnessError(f"read the matrix {path}", f"it has more than {_LARGEST} bytes")
    return load(data.decode("utf-8", "replace"))


def load(text: str) -> Matrix:
    """The matrix that dump wrote. Raises HarnessError, with the place, when the text is anything else.

    floors are not read: they follow from the reports.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        _refuse("the text", "nested too deeply")
    except ValueError as error:
        _refuse("the text", str(error))
    top = _members(value, "the top level", _TOP)
    if top["schema"] != SCHEMA:
        _refuse("schema", f"{SCHEMA!r} is wanted, not {_short(top['schema'])}")
    rows = [_row(number, row) for number, row in enumerate(_list(top["kernels"], "kernels"))]
    programs = [_program(number, program) for number, program in enumerate(_list(top["programs"], "programs"))]
    run = _members(top["run"], "run", _RUN)
    reused = frozenset(_texts(run["reused"], "run.reused"))
    cells = [_cell(number, cell, reused) for number, cell in enumerate(_list(top["cells"], "cells"))]
    wanted = {(row.name, program.name) for row in rows for program in programs}
    if len(cells) != len(wanted) or {(cell.row, cell.program) for cell in cells} != wanted:
        _refuse("cells", "one is wanted for each kernel and program")
    seconds = run["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e12:
        _refuse("run.seconds", f"a number of seconds is wanted, not {_short(seconds)}")
    return Matrix(
        rows,
        programs,
        _texts(top["checks"], "checks"),
        cells,
        _text(top["harness_version"], "harness_version"),
        _text(run["started"], "run.started"),
        _text(run["ended"], "run.ended"),
        float(seconds),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what dump writes, as published in the package."""
    from importlib.resources import files

    place = files("harness.report").joinpath("matrix-schema.json")
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def _row(number: int, value: object) -> Row:
    place = f"kernels[{number}]"
    found = _members(value, place, _ROW)
    return Row(**{name: _text(found[name], f"{place}.{name}") for name in _ROW})


def _program(number: int, value: object) -> Program:
    place = f"programs[{number}]"
    found = _members(value, place, ("name", "digest"))
    digest = found["digest"]
    return Program(_text(found["name"], f"{place}.name"), None if digest is None else _text(digest, f"{place}.digest"))


def _cell(number: int, value: object, reused: frozenset[str]) -> Cell:
    place = f"cells[{number}]"
    found = _members(value, place, _CELL)
    try:
        report = report_json.load(json.dumps(found["report"]))
    except (HarnessError, RecursionError) as error:
        happened = error.happened if isinstance(error, HarnessError) else "nested too deeply"
        _refuse(f"{place}.report", happened)
    key = _text(found["key"], f"{place}.key")
    cell = Cell(
        _text(found["kernel"], f"{place}.kernel"),
        _text(found["program"], f"{place}.program"),
        key,
        report,
        key in reused,
    )
    if found["outcome"] != cell.outcome.value:
        _refuse(f"{place}.outcome", f"{_short(found['outcome'])} contradicts the report, which gives {cell.outcome}")
    return cell


def _members(value: object, place: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    """The object at the place, which has exactly these members."""
    if not isinstance(value, dict):
        _refuse(place, f"an object is wanted, not {_short(value)}")
    for name in names:
        if name not in value:
            _refuse(place, f"the member {name!r} is missing")
    for name in value:
        if name not in names:
            _refuse(place, f"the member {_short(name)} is unknown")
    return value


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(place, f"a list is wanted, not {_short(value)}")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        _refuse(place, f"text is wanted, not {_short(value)}")
    return value


def _texts(value: object, place: str) -> list[str]:
    return [_text(one, f"{place}[{number}]") for number, one in enumerate(_list(value, place))]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse(place: str, happened: str) -> NoReturn:
    raise HarnessError(
        "read the matrix", f"{place}: {happened}", f"give a file that `matrix --json` of this version wrote ({SCHEMA})"
    )
