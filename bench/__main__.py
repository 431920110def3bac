"""`python -m bench [NAME …]`: run the benchmarks, all or those named."""

from __future__ import annotations

import sys

from bench import connect, diagnose, fleet, image, matrix, verify, vm

BENCHMARKS = {
    "verify": verify.main,
    "connect": connect.main,
    "diagnose": diagnose.main,
    "fleet": fleet.main,
    "matrix": matrix.main,
    "vm": vm.main,
    "image": image.main,
}


def main() -> int:
    wanted = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in wanted if name not in BENCHMARKS]
    if unknown:
        print(f"bench: no benchmark is named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
