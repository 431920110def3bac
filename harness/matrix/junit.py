"""A matrix as JUnit XML: a suite for each kernel, in it every result of every program."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.matrix.model import Matrix, Row
from harness.report import Outcome
from harness.report.junit import attributes, case, document, totals


def render(matrix: Matrix) -> str:
    """The whole document, ASCII, with a newline at the end."""
    results = [result for cell in matrix.cells for result in cell.report.results]
    top = ET.Element("testsuites", attributes(name="msp-harness matrix", **totals(results, matrix.seconds)))
    for number, row in enumerate(matrix.rows):
        top.append(_suite(matrix, number, row))
    return document(top)


def _suite(matrix: Matrix, number: int, row: Row) -> ET.Element:
    cells = [matrix.cell(row, program) for program in matrix.programs]
    results = [result for cell in cells for result in cell.report.results]
    suite = ET.Element(
        "testsuite",
        attributes(
            name=row.name,
            id=str(number),
            timestamp=matrix.started,
            skipped=str(sum(result.outcome is Outcome.SKIP for result in results)),
            **totals(results, sum(cell.report.seconds for cell in cells)),
        ),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("kernel", row.release),
        ("origin", row.origin),
        ("digest", row.digest),
        ("harness_version", matrix.harness_version),
    ):
        ET.SubElement(properties, "property", attributes(name=name, value=value))
    for cell in cells:
        name = cell.program.replace(".", "_")  # what reads it takes dots for levels of a hierarchy
        for result in cell.report.results:
            suite.append(case(result, f"msp-harness.{name}.{result.group}", f"{cell.program}: {result.id}"))
    return suite
