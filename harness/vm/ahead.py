"""The code of what a guest imports, compiled and gathered ahead of it: to find it, and to compile it, takes long there.

Emulated, Python takes longer to look for a module's file and to read it than to run what is in it; and for each of its
classes dataclasses writes some six functions as text and has Python compile them. Here all of that lies in one file:
of this package, and of what it requires. Python's own library is the guest's, and may be of another build. What is not
written down comes as it always does.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import marshal
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import harness

LIBRARIES = "/usr/lib/python3/dist-packages"
"""Where the guest's root has what this package requires (harness.vm.guest)."""

PACKAGE = "/msp"
"""Where a guest finds this package (harness.vm.initramfs)."""


def use(place: Path) -> None:
    """Have what is imported from here on take its code from what record() wrote, as far as it is there."""
    written = marshal.loads(place.read_bytes())
    sys.meta_path.insert(0, _Finder(written["modules"]))
    _replace_exec(written["dataclasses"])


Known = tuple[str, bool, bytes]
"""Of a module: its file, whether it is a package, its code."""


class _Finder:
    """Knows the modules that were written down; each is given once, and let go."""

    def __init__(self, modules: dict[str, Known]):
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        known = self._modules.pop(name, None)
        if known is None:
            return None
        file, package, code = known
        loader = _Loader(name, file, code)
        found = importlib.machinery.ModuleSpec(name, loader, origin=file, is_package=package)
        found.has_location = True
        if package:
            found.submodule_search_locations = [file.rpartition("/")[0]]
        return found


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module without its file, the first time."""

    def __init__(self, name: str, file: str, code: bytes):
        super().__init__(name, file)
        self._code: bytes | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        if self._code is None:
            return super().get_code(fullname)
        code: CodeType = marshal.loads(self._code)
        self._code = None
        return code


def record(place: Path) -> None:
    """Import all that a guest may import, in a process of its own, and write down what is compiled on the way."""
    texts: dict[str, CodeType] = {}
    _replace_exec(texts)
    before = set(sys.modules)  # among them this machine's own, which a guest does not have
    from harness.vm import server

    server.import_all(seldom=True)
    modules: dict[str, Known] = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        loader = getattr(spec, "loader", None)
        if spec is None or spec.name != name or not isinstance(loader, importlib.machinery.SourceFileLoader):
            continue
        file, code = _there(name, spec.origin), loader.get_code(name)
        if code is None or file is None or (name in before and not file.startswith(PACKAGE)):
            continue
        modules[name] = file, spec.submodule_search_locations is not None, marshal.dumps(_renamed(code, file))
    place.write_bytes(marshal.dumps({"modules": modules, "dataclasses": texts}))


def files(place: Path) -> set[str]:
    """The files in a guest whose code was written down."""
    written = marshal.loads(place.read_bytes())
    return {file for file, _, _ in written["modules"].values()}


def _there(name: str, origin: str) -> str | None:
    """Where a guest has a module's file; None for Python's own library."""
    if name.partition(".")[0] == harness.__name__:
        return f"{PACKAGE}/{Path(origin).relative_to(Path(harness.__file__).parents[1])}"
    library = str(Path(os.__file__).parent)
    top = max((place for place in (library, *sys.path) if place and origin.startswith(f"{place}/")), key=len)
    return None if top == library else f"{LIBRARIES}{origin.removeprefix(top)}"


def _renamed(code: CodeType, file: str) -> CodeType:
    """Code as if it had been compiled from this file."""
    constants = tuple(_renamed(each, file) if isinstance(each, type(code)) else each for each in code.co_consts)
    return code.replace(co_filename=file, co_consts=constants)


def _replace_exec(known: dict[str, CodeType]) -> None:
    """Put an exec() where dataclasses looks for Python's; what is not known is compiled, and then known."""
    own = vars(dataclasses)

    def execute(source: str, namespace: dict[str, Any] | None = None, local: Mapping[str, Any] | None = None) -> None:
        code = known.get(source)
        if code is None:
            code = known[source] = compile(source, "<string>", "exec", dont_inherit=True)
        exec(code, own if namespace is None else namespace, local)

    own["exec"] = execute
