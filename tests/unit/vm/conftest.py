"""A cache of its own for what uses one, and a repository that is signed here, for apt."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.command import run
from harness.vm import apt
from harness.vm.apt import Source
from tests.unit.vm import made


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vm"


@dataclass
class Repository:
    """A directory that apt reads as a mirror, with a key of its own."""

    place: Path
    home: Path  # of gpg

    @property
    def suite(self) -> Path:
        return self.place / "dists" / "testing"

    def publish(self, *packages: Path) -> None:
        """The suite testing with these packages, signed."""
        pool, lists = self.place / "pool", self.suite / "main" / "binary-amd64"
        for directory in (pool, lists):
            directory.mkdir(parents=True, exist_ok=True)
        for package in packages:
            shutil.copyfile(package, pool / package.name)
        listed = run(["env", "-C", self.place, "dpkg-scanpackages", "-m", "pool"]).stdout
        (lists / "Packages").write_bytes(listed)
        self.sign()

    def sign(self) -> None:
        """Write Release anew, of the lists as they are, and sign it."""
        lists = self.suite / "main" / "binary-amd64" / "Packages"
        digest, size = hashlib.sha256(lists.read_bytes()).hexdigest(), lists.stat().st_size
        release = self.suite / "Release"
        release.write_text(
            "Origin: a test\nSuite: testing\nCodename: testing\nArchitectures: amd64\nComponents: main\n"
            "Date: Tue, 24 Nov 2026 12:00:00 UTC\n"
            f"SHA256:\n {digest} {size} main/binary-amd64/Packages\n"
        )
        self._gpg("--yes", "--clearsign", "-o", str(self.suite / "InRelease"), str(release))
        release.unlink()

    def _gpg(self, *words: str) -> None:
        run(["gpg", "--homedir", self.home, "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *words])

    @property
    def ring(self) -> Path:
        """The public half of its key, for apt."""
        return self.home / "ring.gpg"

    @classmethod
    @contextmanager
    def new(cls, place: Path, home: Path) -> Iterator[Repository]:
        """With a new key; gpg's agent ends with the block."""
        home.mkdir(mode=0o700)
        made_here = cls(place, home)
        try:
            made_here._gpg("--quick-gen-key", "a test", "rsa2048", "sign", "never")
            made_here._gpg("-o", str(made_here.ring), "--export")
            yield made_here
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """An empty repository with a key, which is made once."""
    missing = [name for name in ("apt-get", "dpkg-scanpackages", "gpg") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("apt's sandbox is set to root")
    place = tmp_path_factory.mktemp("repository")
    with Repository.new(place / "mirror", place / "gpg") as made_here:
        yield made_here


@pytest.fixture
def repository(signer: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Repository:
    """A mirror of the suite testing, which this machine's apt is told to have."""
    place = tmp_path / "mirror"
    place.mkdir()
    monkeypatch.setattr(apt, "_KEYRING", signer.ring)
    monkeypatch.setattr(apt, "host_sources", lambda: [Source(f"file:{place}/", "testing", ("main",))])
    monkeypatch.setattr(apt, "codename", lambda: "testing")
    return Repository(place, signer.home)


@pytest.fixture(scope="session")
def three_kernels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Packages of three versions of a kernel."""
    place = tmp_path_factory.mktemp("packages")
    versions = (("9.8.1-1", "9.8.1"), ("9.10.1-1", "9.10.1"), ("9.9.7-1", "9.9.0-7"))
    return [package for version, abi in versions for package in kernel_packages(place, version, abi)]


def kernel_packages(place: Path, version: str, abi: str, *, files: Mapping[str, bytes] | None = None) -> list[Path]:
    """A kernel in one package, and the one that depends on the newest."""
    release = f"{abi}-cloud-amd64"
    own = (
        files
        if files is not None
        else {
            name.replace(made.RELEASE, release): made.bzimage(release=release) if "vmlinuz" in name else content
            for name, content in made.FILES.items()
        }
    )
    image = f"linux-image-{release}"
    return [
        made.deb(place, own, name=image, version=version, script=f"#!/bin/sh\ntouch {place}/script-ran\n"),
        made.deb(place, {}, name="linux-image-cloud-amd64", version=version, depends=f"{image} (= {version})"),
    ]
