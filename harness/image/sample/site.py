"""A sample while it is made: what a fault may change."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.image.sample import base, disk

_SECONDS = 300


@dataclass
class Site:
    """The root's files, the kernel's command line, which menu entry boots (0 is the newest kernel's), and the disk."""

    root: Path
    layout: disk.Layout
    suite: str = ""
    line: str = base.COMMAND_LINE
    default: int = 0
    remarks: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        return self.root / name

    def read(self, name: str) -> str:
        """A file's text. Raises HarnessError where there is no such file: the fault cannot be made there."""
        try:
            return self.path(name).read_text()
        except OSError as error:
            raise HarnessError(
                "break a sample", f"it has no /{name}", "give it an agent", errno=error.errno or 0
            ) from error

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file anew: nothing that another name leads to is changed."""
        base.write(self.root, {name: content}, mode)

    def remove(self, *names: str) -> None:
        """Remove files, links and directories; what is not there is left so."""
        for name in names:
            path = self.path(name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def replace(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace pieces of a file's text, each of which is to be there. Raises HarnessError where one is not."""
        content = self.read(name)
        for old, new in changes:
            if old not in content:
                raise HarnessError(
                    "break a sample", f"/{name} has no {old.strip().splitlines()[0]!r}", "take another suite"
                )
            content = content.replace(old, new, 1)
        self.write(name, content)

    def run(self, *command: str) -> str:
        """Run a program of the root in it; what it starts ends with it. What it printed."""
        alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return text(run([*alone, "chroot", self.root, *command], timeout=_SECONDS).stdout)
