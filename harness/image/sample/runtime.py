"""The reference agent with an interpreter of its own: no suite's Python is asked whether it is new enough.

Interpreter, standard library and shared libraries are those of this machine's own suite, out of the guests' root file
system; the loader that comes with them starts it, so that nothing of the image's is used. All is compiled, since
cloud-init waits for `--status`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import guest

HOME = "usr/lib/azure-proxy-agent"
"""Where an agent's package keeps what is its own."""

SOURCES = (
    "__init__.py", "command.py", "errors.py", "agent", "kernel", "msp", "program", "lab/__init__.py", "lab/channel.py",
    "lab/http.py", "lab/http_client.py",
)  # fmt: skip
"""What of this package the agent imports."""

_UNUSED = (
    "test", "idlelib", "lib2to3", "distutils", "pydoc_data", "tkinter", "turtledemo", "turtle.py", "ensurepip", "venv",
    "curses", "sqlite3", "dbm", "unittest", "xmlrpc", "wsgiref", "sitecustomize.py",
)  # fmt: skip
_UNUSED_EXTENSIONS = ("_sqlite3", "_curses", "readline", "_dbm", "_gdbm", "_tkinter", "_test", "xx", "nis", "ossaudio")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"
_FOUND = re.compile(r"=> (/\S+)")
_SECONDS = 300
LAUNCHER = f"""\
#!/bin/sh
runtime=/{HOME}/runtime
exec "$runtime/ld.so" --library-path "$runtime/lib64" "$runtime/bin/python3" -I -S /{HOME}/agent.py "$@"
"""
_ENTRY = f"""\
import sys

sys.path.append("/{HOME}/lib")
from harness.agent.__main__ import main

sys.exit(main())
"""


def package_directory() -> Path:
    """Where this package's sources are."""
    return Path(guest.__file__).parents[1]


def sources() -> list[Path]:
    """The files of SOURCES, sorted."""
    top = package_directory()
    found = (
        path for name in SOURCES for path in ([top / name] if name.endswith(".py") else (top / name).rglob("*.py"))
    )
    return sorted(found)


def lay_out(root: Path, tell: Callable[[str], None] = lambda line: None) -> None:
    """Put interpreter, libraries, the agent's code and what starts it below a root.

    Raises HarnessError when the guests' root cannot be had.
    """
    if shutil.which("debugfs") is None:
        hint = packages.install_hint([packages.E2FSPROGS])
        raise HarnessError("take an interpreter out of the guests' root", "there is no debugfs", hint)
    home = root / HOME
    runtime, own, taken = home / "runtime", home / "lib", root.parent / "taken"
    for path in (runtime / "bin", runtime / "lib64", runtime / "lib", own, taken):
        path.mkdir(mode=0o755, parents=True)
    library = _take(guest.get(tell).root, taken)
    for name in _UNUSED:
        path = library / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    extensions = library / "lib-dynload"
    for path in extensions.iterdir():
        if path.name.startswith(_UNUSED_EXTENSIONS):
            path.unlink()
    interpreter = runtime / "bin/python3"
    shutil.copy2(taken / library.name / "python3", interpreter)
    shutil.copytree(library, runtime / "lib" / library.name, ignore=shutil.ignore_patterns("__pycache__", "*.a"))
    shutil.copytree(taken / "h11", own / "h11", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    _libraries(taken / "x86_64-linux-gnu", runtime, [interpreter, *extensions.glob("*.so")])
    top = package_directory()
    for path in sources():
        target = own / "harness" / path.relative_to(top)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (home / "agent.py").write_text(_ENTRY)
    command: list[str | Path] = [
        runtime / "ld.so",
        "--library-path",
        runtime / "lib64",
        interpreter,
        "-I",
        "-S",
        "-m",
        "compileall",
    ]
    for place in (runtime / "lib", own):  # no time of a file is looked at
        run([*command, "-q", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", place], timeout=_SECONDS)
    shutil.rmtree(taken)


def _take(image: Path, place: Path) -> Path:
    """Copy the interpreter and what it may want out of a root's image; the standard library's directory."""
    shown = text(run(["debugfs", "-R", "ls -p /usr/lib", image]).stdout)
    found = re.search(r"/(python3\.[0-9]+)/", shown)
    if found is None:
        raise HarnessError("take an interpreter out of the guests' root", "it has none in /usr/lib")
    name = found[1]
    for path in (f"usr/lib/{name}", _LIBRARIES, "usr/lib/python3/dist-packages/h11"):
        run(["debugfs", "-R", f"rdump /{path} {place}", image], timeout=_SECONDS)
    run(["debugfs", "-R", f"dump -p /usr/bin/{name} {place}/{name}/python3", image])
    return place / name


def _libraries(place: Path, runtime: Path, programs: list[Path]) -> None:
    """Copy the libraries that these programs load, and their loader."""
    loader = place / _LOADER
    listing: list[str | Path] = [loader, "--library-path", place, "--list"]
    wanted = {Path(path) for program in programs for path in _FOUND.findall(text(run([*listing, program]).stdout))}
    for path in sorted(wanted):
        if path.parent == place:
            shutil.copy2(path, runtime / "lib64" / path.name)
    shutil.copy2(loader, runtime / "ld.so")
