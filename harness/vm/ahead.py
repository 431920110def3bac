"""The code that dataclasses makes of text while modules are imported, compiled ahead of it.

For each class dataclasses writes some six functions as text and has Python compile them: emulated, two fifths of the
time in which a guest imports what it needs. What was compiled ahead, by the same interpreter, is the same code.
"""

from __future__ import annotations

import dataclasses
import marshal
from pathlib import Path
from types import CodeType
from typing import Any


def use(place: Path) -> None:
    """Have what is imported from here on take its code from what record() wrote, as far as it is there."""
    _replace_exec(marshal.loads(place.read_bytes()))


def record(place: Path) -> None:
    """Import all that a guest may import, in a process of its own, and write down what is compiled on the way."""
    known: dict[str, CodeType] = {}
    _replace_exec(known)
    from harness.vm import server

    server.import_all(seldom=True)
    place.write_bytes(marshal.dumps(known))


def _replace_exec(known: dict[str, CodeType]) -> None:
    """Put an exec() where dataclasses looks for Python's; what is not known is compiled, and then known."""
    own = vars(dataclasses)

    def execute(source: str, namespace: dict[str, Any] | None = None, local: dict[str, Any] | None = None) -> None:
        code = known.get(source)
        if code is None:
            code = known[source] = compile(source, "<string>", "exec", dont_inherit=True)
        exec(code, own if namespace is None else namespace, local)

    own["exec"] = execute
