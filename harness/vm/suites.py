"""Kernels as a Debian suite ships them: fetched by apt, which checks signatures and hashes, and kept.

apt runs in a private root, with the host's own sources rewritten to the suite that is wanted: nothing of the host's
apt changes, and a mirror or proxy that was configured for the host serves here as well.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import archives, cache, kernels, unpacked_kernel
from harness.vm.apt import Apt, newest_first
from harness.vm.kernels import Kernel

FLAVOURS = {"cloud": "cloud-{arch}", "generic": "{arch}"}
"""How the name of an image ends."""

VERIFIED = "apt: the suite's signed list has the package's hash"

_IMAGE = re.compile(r"linux-image-[0-9][^ ,(|]*")
_PART = re.compile(r"linux-(?:image|binary|modules|base)-[0-9][^ ,(|]*")
_OLDER = 4  # versions that are tried where the mirror lists what it has no more
_FORM = re.compile(r"([a-z][a-z-]*)(?:/([0-9][A-Za-z0-9.+~-]*))?(?::([a-z]+))?")


@dataclass(frozen=True)
class Suite:
    """What of a suite is wanted: its newest kernel, or the newest whose release or package version begins so."""

    name: str
    version: str = ""
    flavour: str = "cloud"

    @classmethod
    def parse(cls, text: str) -> Suite | None:
        """`SUITE[/VERSION][:FLAVOUR]`; None for another form. Raises HarnessError for a flavour that is none."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        name, version, flavour = found.groups()
        if flavour not in (None, *FLAVOURS):
            happened = f"{flavour} is no flavour"
            raise HarnessError(f"find the kernel {text}", happened, f"flavours are {' and '.join(FLAVOURS)}")
        return cls(name, version or "", flavour or "cloud")

    def __str__(self) -> str:
        """The shortest form."""
        version, flavour = f"/{self.version}" if self.version else "", self.flavour
        return self.name + version + (f":{flavour}" if flavour != "cloud" else "")


def get(suite: Suite, *, refresh: bool = False, tell: Callable[[str], None] = lambda line: None) -> Kernel:
    """The suite's kernel: one that is kept, however old, or on refresh (and where there is none) what apt has now.

    tell is given a line before a package is fetched.

    Raises HarnessError when apt, the suite or its package cannot be had.
    """
    found = None if refresh else kernels.remembered(str(suite))
    if found is not None:
        return found[0]
    with cache.writing(f"fetch a kernel of {suite.name}"), cache.locked("apt", suite.name):
        found = None if refresh else kernels.remembered(str(suite))  # somebody was quicker
        if found is not None:
            return found[0]
        root = cache.directory() / "apt" / suite.name
        apt = Apt(suite.name, root)
        apt.update()
        names = _images(apt, suite)
        for name in names:
            try:
                kernel = _kept(apt, name, root / "download", tell)
                break
            except HarnessError as error:
                if name == names[-1] or "404" not in error.happened:
                    raise
                tell(f"{name} is listed, but the mirror has it no more: taking the next older one")
        shutil.rmtree(root / "download", ignore_errors=True)
        kernels.remember(str(suite), kernel)
    return kernel


def _kept(apt: Apt, name: str, download: Path, tell: Callable[[str], None]) -> Kernel:
    version = apt.show(name)["Version"]
    origin = f"{apt.suite} {name} {version}"

    def fill(place: Path) -> None:
        tell(f"fetching {name} {version}")
        _fetch(apt, name, download, origin, place)

    return kernels.kept(f"{name}_{version.replace(':', '%')}", fill)


def _images(apt: Apt, suite: Suite) -> list[str]:
    """The packages with an image that answer to what is wanted, best first."""
    ending = FLAVOURS[suite.flavour].format(arch=apt.architecture)
    if not suite.version:
        return [_behind(apt, f"linux-image-{ending}")]
    other = "" if suite.flavour == "cloud" else rf"(?!.*-(?:cloud|rt)-{apt.architecture}$)"
    offered = apt.named(re.compile(rf"linux-image-[0-9]{other}[^ ]*-{re.escape(ending)}"))
    fitting: dict[str, str] = {}
    for name, version in offered.items():
        if begins(_release(name), suite.version) or begins(version, suite.version):
            # Of one version the longest name is the image's; a shorter one depends on it.
            fitting[version] = max(name, fitting.get(version, ""), key=len)
    if not fitting:
        releases = ", ".join(_release(name).removesuffix(f"-{ending}") for name in offered) or "none at all"
        raise HarnessError(f"find {suite}", f"{suite.name} has {releases}", "name one of them, or a part to its left")
    return [_behind(apt, fitting[version]) for version in newest_first(fitting)[:_OLDER]]


def _release(image: str) -> str:
    return image.removeprefix("linux-image-")


def begins(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one or a part of it: 6.1.0-44 is a 6.1, 6.12 is not."""
    rest = version[len(wanted) :]
    return version.startswith(wanted) and not (rest[:1].isdigit() and wanted[-1:].isdigit())


def _behind(apt: Apt, package: str) -> str:
    """The package with an image: what this one depends on, or itself."""
    depends = apt.show(package).get("Depends", "")
    found = _IMAGE.search(depends)
    if found is not None:
        return found.group()
    if _IMAGE.fullmatch(package):
        return package
    raise HarnessError(f"find the kernel of {package}", f"it depends on no image: {depends or 'no dependencies'}")


def _fetch(apt: Apt, name: str, download: Path, origin: str, place: Path) -> None:
    """Fill an entry of the cache from the packages of a kernel."""
    for file in _download(apt, name, download):
        unpacked_kernel.collect(archives.deb_files(file), place / "unpacked", file.name)
    unpacked_kernel.finish(place / "unpacked", place, origin, VERIFIED)


def packages_of(suite: Suite, place: Path) -> list[Path]:
    """The packages of a suite's kernel, fetched into a directory. Raises HarnessError."""
    with cache.locked("apt", suite.name):
        apt = Apt(suite.name, cache.directory() / "apt" / suite.name)
        apt.update()
        return list(_download(apt, _images(apt, suite)[0], place))


def _download(apt: Apt, name: str, place: Path) -> Iterator[Path]:
    """Some suites split a kernel into an image, a binary and modules; what depends on what says which."""
    waiting, seen = [name], set[str]()
    while waiting:
        package = waiting.pop()
        seen.add(package)
        yield apt.download(package, place)
        waiting += set(_PART.findall(apt.show(package).get("Depends", ""))) - seen - set(waiting)
