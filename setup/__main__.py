"""Set-up: `sh setup/bootstrap.sh runtime|dev|vagrant`, silent and quick where all is there."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from setup import environment, system

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in system.BESIDES:
        print("usage: sh setup/bootstrap.sh runtime|dev|vagrant", file=sys.stderr)
        return 2
    (level,) = arguments
    locks = "runtime" if level == "runtime" else "dev"
    venv = environment.Venv(ROOT, Path(os.environ.get("VENV") or ROOT / ".venv").absolute(), locks)
    try:
        require_version()
        if system.missing(level).any or not venv.is_current():
            with lock(ROOT):
                system.install(level)
                venv.make()
    except HarnessError as error:
        if error.detail:
            print("\n".join(error.detail.splitlines()[-30:]), file=sys.stderr)
        print(f"set-up: {error}", file=sys.stderr)
        return environment.CANNOT_RUN
    except KeyboardInterrupt:
        print("set-up: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


def require_version() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 -- this is what tells the user of an old machine
        raise HarnessError(
            f"use {sys.executable}",
            f"it is Python {sys.version.split()[0]} and the harness needs 3.11 or newer; another python3 will not do, "
            "since BCC's module is built for the system's own",
            "use a newer release of the distribution (Debian 12, Ubuntu 24.04)",
        )


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """One set-up of a checkout at a time; the kernel lets go of the lock when its holder dies, however it dies."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: waiting for another set-up of this checkout", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
