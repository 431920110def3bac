"""Images to try things on, made of Debian's packages: good ones, and ones that are broken in one known way each.

    build(Sample("bookworm", agent="reference", breaks=("unit-disabled",)), Path("sample.qcow2"))

A suite's root file system is made once (base), what is asked for is laid over it (agent_files), broken (breaks) and put
on a disk (disk). Nothing is mounted and no loop device used; it takes root, since files have other owners.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.image.sample import agent_files, base, breaks, disk, menu
from harness.image.sample.site import Site
from harness.vm import cache, scratch

REFERENCE = "reference"
"""The agent that is this project's own."""

KIND = "samples"
"""Where good ones are in the cache."""

SIZE = 3 << 30
"""Bytes of a sample's disk; what is not used takes no room."""

_SECONDS = 600
_TAR = ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*")
NOT_DISKS = ("directory", "tar")
FORMATS = (*disk.FORMATS, *NOT_DISKS)
_BY_NAME = {".raw": "raw", ".img": "raw", ".vhd": "vhd-fixed", ".vhdx": "vhdx", ".tar": "tar"}
"""What a target's name says of its format, where nobody else does; anything else is a qcow2."""


@dataclass(frozen=True)
class Sample:
    """What to make. agent: nothing, "reference", or the path of a .deb or of a directory that is laid over the root.

    breaks are names of breaks.BREAKS, applied in this order. generation is the VM's: 1 boots by a BIOS, 2 by UEFI.
    format is one of FORMATS, or nothing: then the target's name says it (`.vhd` is a fixed VHD, as Azure wants one).
    provision: seconds until the reference agent gives provisioning up.
    """

    suite: str
    agent: str = ""
    breaks: tuple[str, ...] = ()
    format: str = ""
    generation: int = 1
    provision: float = 120.0


def build(spec: Sample, target: Path, tell: Callable[[str], None] = lambda line: None) -> Path:
    """Make a sample at target, which is there whole or not at all, and give it.

    Raises HarnessError for what is not in the tables, and when a program or packages cannot be had.
    """
    attempted = f"make the sample {target}"
    spec = replace(spec, format=spec.format or _BY_NAME.get(target.suffix, "qcow2"))
    if spec.format not in FORMATS:
        raise HarnessError(attempted, f"{spec.format} is no format here", f"take one of {', '.join(FORMATS)}")
    if spec.generation not in (1, 2):
        raise HarnessError(attempted, f"there is no generation {spec.generation} of VMs", "take 1 or 2")
    if target.exists():
        raise HarnessError(attempted, "it is there already", "remove it, or take another name")
    rows = breaks.chosen(spec.breaks, spec.suite, agent=bool(spec.agent), is_disk=spec.format not in NOT_DISKS)
    origin = base.get(spec.suite, tell)
    with scratch.directory("sample") as place:
        site = Site(place / "root", disk.Layout(SIZE, base.LABEL), spec.suite)
        _lay_out(spec, origin, site.root, tell)
        for row in rows:
            row.change(site)
        menu.write(site.root, site.line, site.default)
        work = target.with_name(f".{target.name}.unfinished")
        try:
            run(["mv", _packed(spec, site, place), work], timeout=_SECONDS)  # maybe to another file system
            work.rename(target)
        finally:
            run(["rm", "-rf", work], timeout=_SECONDS)
    return target


def _lay_out(spec: Sample, origin: Path, root: Path, tell: Callable[[str], None]) -> None:
    """The files of a sample without its faults."""
    root.mkdir(0o755)
    run([*_TAR, "-C", root, "-xpf", origin], timeout=_SECONDS)
    if spec.agent == REFERENCE:
        agent_files.install(root, agent_files.reference(tell))
        base.write(root, {agent_files.CONFIG: agent_files.configuration(spec.provision)})
    elif spec.agent:
        agent_files.install(root, Path(spec.agent))


def _packed(spec: Sample, site: Site, place: Path) -> Path:
    """The sample in its format."""
    if spec.format == "directory":
        return site.root
    made, raw = place / "made", place / "disk.raw"
    if spec.format == "tar":
        run([*_TAR, "-C", site.root, "-cf", made, "."], timeout=_SECONDS)
        return made
    (disk.uefi if spec.generation == 2 else disk.bios)(site.root, raw, site.layout)
    disk.FORMATS[spec.format](raw, made)
    return made


def good(suite: str, agent: bool = True, tell: Callable[[str], None] = lambda line: None) -> Path:
    """A sample without a fault (qcow2, generation 1), kept in the cache: a path that is not to be written to."""
    spec = Sample(suite, REFERENCE if agent else "")
    code = hashlib.sha256(base.get(suite, tell).parent.name.encode())
    if agent:
        code.update(agent_files.reference(tell).parent.name.encode())
    for name in ("__init__.py", "disk.py", "menu.py"):
        code.update((Path(__file__).parent / name).read_bytes())
    name = f"{suite}-{'agent' if agent else 'plain'}-{code.hexdigest()[:16]}"

    def make(place: Path) -> None:
        build(spec, place / "disk.qcow2", tell)

    return cache.kept(KIND, name, make) / "disk.qcow2"
