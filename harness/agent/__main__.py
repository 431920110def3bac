"""The reference agent's command line: `python -m harness.agent`, in the form of azure-proxy-agent's.

    python -m harness.agent [--config FILE]              run until SIGTERM
    python -m harness.agent --status [--wait SECONDS]    is it provisioned? 0: yes; 1: no, and why
    python -m harness.agent --version

Exit codes besides: 2 for wrong usage or a configuration that cannot be read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import __version__
from harness.agent import config as settings
from harness.errors import HarnessError

EXIT_OK, EXIT_USAGE = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.agent", description="The reference agent of msp-harness: for laboratories, not for use."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"its settings (default {settings.DEFAULT_PATH})")
    parser.add_argument("--status", action="store_true", help="ask a running agent whether it is provisioned")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="with --status: ask for so long")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        config = settings.read(options.config) if options.config else _default()
    except HarnessError as error:
        print(f"harness.agent: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.status:
        from harness.agent import provisioning

        status, text = provisioning.wait(config, options.wait)
        print(text, file=sys.stderr if status else sys.stdout)
        return status
    from harness.agent import reference

    asyncio.run(reference.serve(config))
    return EXIT_OK


def _default() -> settings.Config:
    return settings.read(settings.DEFAULT_PATH) if settings.DEFAULT_PATH.exists() else settings.Config()


if __name__ == "__main__":
    sys.exit(main())
