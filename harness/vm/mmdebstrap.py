"""mmdebstrap(1): a tree of a suite's packages, from this machine's own sources (harness.vm.apt)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import apt


def unpack(
    suite: str, root: Path, variant: str, include: Sequence[str], words: Sequence[str] = (), *, seconds: float = 900
) -> None:
    """Make the directory root of a variant of a suite and of these packages; words are further options.

    What it needs meanwhile lies beside root. Raises HarnessError.
    """
    if shutil.which("mmdebstrap") is None:
        attempted, remedy = f"unpack packages of {suite}", packages.install_hint([packages.MMDEBSTRAP])
        raise HarnessError(attempted, "there is no mmdebstrap", remedy)
    sources = root.with_name("sources.list")
    scratch = root.with_name("scratch")  # its own, which a kill would leave in /tmp
    scratch.mkdir()
    sources.write_text("".join(f"{source.line()}\n" for source in apt.sources_of(suite)))
    run(
        [
            # A kill leaves neither a process nor a mount: the kernel ends unshare with its parent, and all with it.
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--quiet", "--mode=root", "--format=directory", f"--variant={variant}",
            f"--include={','.join(include)}", *words, suite, root, sources,
        ],
        timeout=seconds,
        environment={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    shutil.rmtree(scratch)
    sources.unlink()
