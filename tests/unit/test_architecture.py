"""Imports go one way, as the design has it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent

LAYERS = (
    {"errors", "command", "interruption"},
    {"msp", "report"},
    {"program", "kernel", "verifier"},
    {"agent", "lab"},
    {"checks", "failures"},
    {"vm"},
    {"diagnose", "image", "matrix"},
    {"cli", "__main__"},
)
"""From the bottom up: a module imports from its own layer and from those below."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(name: str) -> int:
    """The layer of `harness.NAME…`; a name that no layer has is a defect of LAYERS."""
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imports(path: Path) -> set[str]:
    """The second word of every `harness.X…` that a module imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "harness":
            words = node.module.split(".")
            found |= {words[1]} if len(words) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("harness.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    upward = {name for name in imports(path) if layer(name) > layer(own)}
    assert not upward


def test_the_walk_sees_imports() -> None:
    assert "lab" in imports(PACKAGE / "checks" / "redirect.py")
    assert "checks" in imports(PACKAGE / "cli" / "verify.py")  # inside functions too
