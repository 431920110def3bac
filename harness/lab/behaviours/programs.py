"""Client programs in other languages: small sources beside this file, compiled once into the cache.

Java's takes a second and is compiled when it is needed. Go's takes a quarter of a minute, since Go brings no compiled
standard library: it is compiled on demand only.

    python -m harness.lab.behaviours.programs go
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.lab.patience import SLOWNESS
from harness.program.headers import CACHE

_PATIENCE = 3.0 * SLOWNESS  # seconds for a compile within a census


@dataclass(frozen=True)
class Language:
    """How a client is compiled and run. In the commands, {source} and {output} are put in; output is a directory."""

    source: str
    tools: Sequence[str]
    compile: Sequence[str]
    run: Sequence[str]
    quick: bool
    environment: Mapping[str, str] = field(default_factory=dict)


# A JVM that starts fast and leaves no file in /tmp
_JAVA = ("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_GO = {"GO111MODULE": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": "{output}/.cache"}

LANGUAGES: Mapping[str, Language] = {
    "java": Language(
        "Client.java",
        ("java", "javac"),
        ("javac", "-J-XX:TieredStopAtLevel=1", "-d", "{output}", "{source}"),
        (*_JAVA, "-cp", "{output}", "Client"),
        quick=True,
    ),
    "go": Language(
        "client.go", ("go",), ("go", "build", "-o", "{output}/client", "{source}"), ("{output}/client",), False, _GO
    ),
}


@contextmanager
def build(languages: Set[str]) -> Iterator[Callable[[str], Mapping[str, Any]]]:
    """Compile in the background; the function waits for a language's and gives a client's options.

    These are `command`, or `unavailable` with the reason.
    """
    started = {name: _Build(name) for name in sorted(languages)}
    try:
        yield lambda name: started[name].options()
    finally:
        for one in started.values():
            one.close()


class _Build:
    def __init__(self, name: str, *, patience: float | None = _PATIENCE):
        self._language = LANGUAGES[name]
        self._name = name
        self._patience = patience
        self._source = Path(__file__).with_name(self._language.source)
        digest = hashlib.sha256(self._source.read_bytes()).hexdigest()[:16]
        self._output = Path(os.environ.get("MSP_HARNESS_CACHE") or CACHE) / "programs" / f"{name}-{digest}"
        self._work: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unavailable = self._start()

    def _start(self) -> str:
        """Begin to compile where that is to be done; why there will be no client, or nothing."""
        missing = [tool for tool in self._language.tools if not shutil.which(tool)]
        if self._output.is_dir():
            missing = [tool for tool in missing if tool == self._language.run[0]]
        if missing:
            return f"{' and '.join(missing)} not installed"
        if self._output.is_dir():
            return ""
        if not self._language.quick and self._patience is not None:
            return f"not compiled yet, which takes long: `python -m {__name__} {self._name}` does it"
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._work = Path(tempfile.mkdtemp(prefix=".new-", dir=self._output.parent))
        except OSError as error:
            return f"nothing can be kept in {self._output.parent}: {error.strerror}"
        environment = {name: self._filled(value) for name, value in self._language.environment.items()}
        self._process = subprocess.Popen(
            [self._filled(word) for word in self._language.compile],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
        return ""

    def _filled(self, word: str) -> str:
        return word.replace("{source}", str(self._source)).replace("{output}", str(self._work or self._output))

    def options(self) -> Mapping[str, Any]:
        if self._process is not None and not self._unavailable:
            self._unavailable = self._finish(self._process)
        if self._unavailable:
            return {"unavailable": self._unavailable}
        return {"command": [self._filled(word) for word in self._language.run]}

    def _finish(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for the compiler and put what it made in its place; why there is nothing."""
        assert self._work is not None
        try:
            _, errors = process.communicate(timeout=self._patience)
        except subprocess.TimeoutExpired:
            return f"{self._language.compile[0]} was not done after {self._patience:g} s"
        if process.returncode:
            last = errors.decode("utf-8", "replace").strip().partition("\n")[0]
            return f"{self._language.compile[0]} ended with status {process.returncode}: {last}"
        self._process = None
        shutil.rmtree(self._work / ".cache", ignore_errors=True)
        try:
            self._work.rename(self._output)
        except OSError:  # another run was faster
            shutil.rmtree(self._work, ignore_errors=True)
        self._work = None
        return ""

    def close(self) -> None:
        """End a compiler that still runs, and take away what it left."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)


def main(names: Sequence[str]) -> int:
    """Compile these languages' clients, however long it takes; status 1 with the reason when one cannot be had."""
    status = 0
    for name in names or sorted(LANGUAGES):
        one = _Build(name, patience=None)
        try:
            options = one.options()
        finally:
            one.close()
        if "unavailable" in options:
            print(f"cannot compile the {name} client: {options['unavailable']}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
