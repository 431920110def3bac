"""The one way to run an external command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError, errno_text


def run(
    command: Sequence[str | Path],
    *,
    timeout: float = 60,
    stdin: str | bytes | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command without a shell and give what it printed.

    timeout is in seconds. Raises HarnessError with the whole command line and its stderr when the command cannot
    be started, does not end in time, or (unless check is False) exits with another status than 0.
    """
    words = [str(word) for word in command]
    line = shlex.join(words)
    try:
        done = subprocess.run(
            words,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=dict(environment) if environment is not None else None,
        )
    except OSError as error:
        raise HarnessError(f"run `{line}`", errno_text(error.errno or 0), errno=error.errno or 0) from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(
            f"run `{line}`", f"not done after {timeout:g} s", detail=text(error.stderr or b"")
        ) from error
    if check and done.returncode != 0:
        stderr = text(done.stderr).strip()
        last = stderr.splitlines()[-1] if stderr else "nothing on stderr"
        raise HarnessError(f"run `{line}`", f"exit status {done.returncode}: {last}", detail=stderr)
    return done


def text(output: bytes) -> str:
    return output.decode("utf-8", "replace")
