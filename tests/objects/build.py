"""Objects as an agent could ship them, compiled from redirector.c by Debian's clang; nothing foreign is committed.

`build(Style.CO_RE)` gives the path of an object, which is made once for a source, compiler and style, and kept in a
directory of this user below the temporary one. It raises HarnessError when there is no clang.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages

SOURCE = Path(__file__).with_name("redirector.c")
_FLAGS = ("-O2", "-Wall", "-Werror")
_ARCHITECTURE = {"x86_64": "x86", "aarch64": "arm64", "riscv64": "riscv"}  # libbpf's names, bpf_tracing.h


@dataclass(frozen=True)
class Recipe:
    """How a style is compiled: -D definitions, -g or not, a target other than bpf, and whether -g is taken off again.

    loads: libbpf 1.x loads its connect4 into a kernel of today. kprobe, sock_ops: how it completes audit records.
    """

    definitions: Sequence[str]
    debug: bool = True
    target: str = "bpf"
    strip: bool = False
    loads: bool = True

    @property
    def kprobe(self) -> bool:
        return "KPROBE" in self.definitions

    @property
    def sock_ops(self) -> bool:
        return "SOCK_OPS" in self.definitions


class Style(Enum):
    CO_RE = Recipe(("KPROBE", "CO_RE"))  # as the agent's from July 2026 on
    FIXED = Recipe(("KPROBE",))  # as the agent's before: bpf_probe_read at fixed offsets, BTF maps
    NO_KPROBE = Recipe(())  # connect4 alone: redirects, completes no audit record
    SOCK_OPS = Recipe(("SOCK_OPS",))  # completes audit records where there are no kprobes
    SOCK_OPS_KPROBE = Recipe(("SOCK_OPS", "KPROBE", "CO_RE"))  # three programs
    STRIPPED = Recipe(("KPROBE", "CO_RE"), strip=True)  # llvm-strip -g: no DWARF; .BTF and .BTF.ext stay
    GLOBAL_DATA = Recipe(("GLOBAL_DATA",))  # its format string in .rodata: a fifth map
    WEAK_FIELD = Recipe(("KPROBE", "CO_RE", "WEAK_FIELD"))  # asks for a field that no kernel has
    KFUNC = Recipe(("KFUNC=bpf_rcu_read_lock", "KFUNC_AFTER=bpf_rcu_read_unlock"))  # 6.2
    NO_KFUNC = Recipe(("KFUNC=bpf_msp_no_such_kfunc",), loads=False)
    LEGACY = Recipe(("KPROBE", "LEGACY_MAPS"), loads=False)  # libbpf 1.0 took the section "maps" out
    NO_BTF = Recipe(("KPROBE", "LEGACY_MAPS"), debug=False, loads=False)  # the old style, no -g
    NO_BTF_MAPS = Recipe(("KPROBE",), debug=False, loads=False)  # BTF maps without BTF: nobody can tell their sizes
    BIG_ENDIAN = Recipe((), target="bpfeb", loads=False)
    BUG_NULL_CHECK = Recipe(("BUG_NULL_CHECK",), loads=False)  # the verifier refuses it
    BUG_NO_REDIRECT = Recipe(("SOCK_OPS", "BUG_NO_REDIRECT"))  # loads, attaches, and redirects nothing
    BUG_DENY = Recipe(("SOCK_OPS", "BUG_DENY"))  # every redirected connect fails with EPERM
    BUG_POLICY_SIZE = Recipe(("BUG_POLICY_SIZE",))  # policy_map's key has 8 bytes
    BUG_AUDIT_LAYOUT = Recipe(("SOCK_OPS", "BUG_AUDIT_LAYOUT"))  # audit_map's value has 32 bytes
    BUG_NO_CONNECT4 = Recipe(("SOCK_OPS", "BUG_NO_CONNECT4"))  # no such program


LOADABLE = tuple(style for style in Style if style.value.loads)


def build(style: Style) -> Path:
    """The object of a style; `STYLE.o` in a directory that changes with sources, compiler and flags."""
    recipe = style.value
    path = _cache() / f"{style.name.lower()}.o"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        made = Path(directory) / path.name
        words = [f"-D{word}" for word in (*recipe.definitions, f"__TARGET_ARCH_{_ARCHITECTURE[platform.machine()]}")]
        debug = ("-g",) if recipe.debug else ()
        run([_tool("clang"), "-target", recipe.target, *_FLAGS, *debug, *words, *_includes(), "-c", SOURCE, "-o", made])
        if recipe.strip:
            run([_tool("llvm-strip"), "-g", made])
        made.replace(path)
    return path


@functools.cache
def _cache() -> Path:
    content = Path(__file__).read_bytes() + SOURCE.read_bytes() + run([_tool("clang"), "--version"]).stdout
    name = f"msp-harness-test-objects-{os.getuid()}"
    directory = Path(tempfile.gettempdir()) / name / hashlib.sha256(content).hexdigest()[:16]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise HarnessError(
            "compile a test object",
            f"there is no {name}",
            packages.install_hint((packages.CLANG, packages.LIBBPF_HEADERS)),
        )
    return path


def _includes() -> Sequence[str]:
    """Debian keeps asm/ in a directory of the architecture, which `-target bpf` does not know."""
    return [f"-I{path.parent}" for path in sorted(Path("/usr/include").glob(f"{platform.machine()}-linux-gnu/asm"))]
