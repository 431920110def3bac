"""Where the C sources of bpf/ lie: in the package when it is installed, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

import harness


def directory() -> Path:
    package = Path(harness.__file__).resolve().parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def read(name: str) -> str:
    return (directory() / name).read_text(encoding="utf-8")
