"""Lab kernels: small kernels of Linux 5.10, built here, each without one thing that redirection needs.

The source is the distribution's own package, fetched and checked by apt. The configuration and the few lines that are
patched lie in labkernels/. A kernel is kept under the hash of its recipe: whoever changes the recipe gets another one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import cache, kernels, lab_build
from harness.vm.kernels import Kernel
from harness.vm.lab_build import Source

PREFIX = "lab:"
"""What a lab kernel's name begins with where kernels of all kinds are named."""

_VERSION = 1  # of how a kernel is built, where the recipe does not show it


@dataclass(frozen=True)
class LabKernel:
    """A lab kernel: what it has not got, and what the harness must find missing there.

    lacks: names of harness.kernel.features of which its probe must say no, though 5.10 has them. like: the mainline
    version as which the kernel counts in these. slow: most files are compiled anew when it is built after another one.
    """

    name: str
    title: str
    lacks: tuple[str, ...] = ()
    like: str = ""
    slow: bool = False

    @property
    def fragment(self) -> Path | None:
        """What it has besides base.config."""
        return None if self.name == BASE else lab_build.RECIPES / f"{self.name}.config"


BASE = "base"

LAB_KERNELS = (
    LabKernel(BASE, "everything that verify asks for"),
    LabKernel("no-pid-tgid", "connect4 may not ask who connects, as before 5.7: the guide's verifier failure",
              ("pid-tgid",), like="5.6"),
    LabKernel("no-cgroup-link", "no links, as before 5.7: `bpf_link_create` fails", ("bpf-link",), like="5.6"),
    LabKernel("no-cgroup2", "no file system cgroup2, as before 4.5", ("cgroup2",), like="4.4"),
    LabKernel("memlock", "one page of locked memory, to which 5.10 charges maps"),
    LabKernel("lockdown", "confidentiality from the start: no program reads the kernel's memory", ("probe-read",)),
    LabKernel("no-cgroup-bpf", "no programs on cgroups", ("connect4", "connect6", "socket-cookie", "pid-tgid",
              "uid-gid", "attach-multi", "prog-query", "trace-printk", "bpf-link", "setsockopt"), slow=True),
    LabKernel("no-btf-no-kprobes", "no type information, no kprobes, no JIT", ("btf", "kprobe", "jit"), slow=True),
)  # fmt: skip


def named(name: str) -> LabKernel:
    """The row of this name, with or without `lab:`. Raises HarnessError with the nearest name."""
    plain = name.removeprefix(PREFIX)
    for row in LAB_KERNELS:
        if row.name == plain:
            return row
    names = [row.name for row in LAB_KERNELS]
    near = difflib.get_close_matches(plain, names, 1, 0.4)
    remedy = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(PREFIX + each for each in names)}"
    raise HarnessError(f"take the lab kernel {name!r}", "there is none of that name", remedy)


def get(name: str, tell: Callable[[str], None] = lambda line: None, *, refresh: bool = False) -> Kernel:
    """The lab kernel of this name, built when there is none; the first takes minutes, others seconds to minutes.

    tell is given a line for each step and each hundred files compiled. refresh asks apt for a newer source. Raises
    HarnessError for a name that is nobody's, a program that is missing, or a build that fails, with its last lines.
    """
    row = named(name)
    source = lab_build.source(tell, refresh=refresh)
    recipe = recipe_of(row, source, lab_build.tools())
    origin = f"{PREFIX}{row.name} linux-source-5.10 {source.version}"
    return kernels.kept(
        f"lab-{row.name}-{recipe}", lambda place: lab_build.build(row.fragment, origin, source, place, tell)
    )


def recipe_of(row: LabKernel, source: Source, tools: str) -> str:
    """The hash of all that a kernel is made of: configuration, patch, source, compiler."""
    texts = [path.read_text() for path in (lab_build.BASE, lab_build.PATCH, row.fragment) if path is not None]
    return cache.name([_VERSION, source.version, tools, *texts])
