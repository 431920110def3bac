"""Kernels from a suite: a repository that is made and signed here, by the real apt."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import apt, cache, kernels, spec, suites
from harness.vm.suites import Suite
from tests.unit.vm import made
from tests.unit.vm.conftest import Repository, kernel_packages

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def published(repository: Repository, three_kernels: list[Path]) -> Repository:
    repository.publish(*three_kernels)
    return repository


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ("bookworm", Suite("bookworm")),
        ("trixie-backports", Suite("trixie-backports")),
        ("bookworm/6.12", Suite("bookworm", "6.12")),
        ("bookworm/6.1.0-44:generic", Suite("bookworm", "6.1.0-44", "generic")),
        ("sid:generic", Suite("sid", "", "generic")),
        ("Bookworm", None),
        ("bookworm/", None),
        ("../bookworm", None),
        ("bookworm/../etc", None),
    ],
)
def test_how_a_suite_is_named(text: str, suite: Suite | None) -> None:
    assert Suite.parse(text) == suite
    if suite is not None:
        assert str(suite) == text


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(HarnessError, match="flavours are cloud and generic"):
        Suite.parse("bookworm:rt")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("6.1.0-44-cloud-amd64", "6.1", True),
        ("6.1.0-44-cloud-amd64", "6.1.0-44", True),
        ("6.1.0-44-cloud-amd64", "6.1.0-4", False),
        ("6.12.9+deb12-amd64", "6.1", False),
        ("6.12.9+deb12-amd64", "6.12.9", True),
        ("6.1", "6.1.0", False),
    ],
)
def test_a_version_is_a_part_to_the_left(version: str, wanted: str, fits: bool) -> None:
    assert suites.begins(version, wanted) is fits


def test_the_newest_is_what_the_suite_has(published: Repository, three_kernels: list[Path]) -> None:
    kernel = spec.resolve("testing")
    assert kernel.release == "9.10.1-cloud-amd64"
    assert kernel.origin == "testing linux-image-9.10.1-cloud-amd64 9.10.1-1"
    assert kernel.verified == suites.VERIFIED
    assert not (three_kernels[0].parent / "script-ran").exists()


@pytest.mark.parametrize(
    ("text", "release"),
    [("testing/9.8", "9.8.1"), ("testing/9.9.0-7", "9.9.0-7"), ("testing/9.9.7-1", "9.9.0-7"), ("testing/9", "9.10.1")],
)
def test_a_version_is_chosen(text: str, release: str, published: Repository) -> None:
    assert spec.resolve(text).release == f"{release}-cloud-amd64"


def test_a_version_that_is_not_there_is_told_with_those_that_are(published: Repository) -> None:
    with pytest.raises(HarnessError, match=r"testing has 9\.10\.1, 9\.8\.1, 9\.9\.0-7"):
        spec.resolve("testing/7")


def test_a_split_kernel_is_put_together(repository: Repository, tmp_path: Path) -> None:
    place, release = tmp_path / "packages", "9.9.0-cloud-amd64"
    names = {part: f"linux-{part}-{release}" for part in ("image", "binary", "modules", "base")}
    tree = {f"usr/{name.replace(made.RELEASE, release)}": content for name, content in made.MODULES.items()}
    builtin = f"usr/lib/modules/{release}/modules.builtin"
    built_in = tree.pop(builtin)
    needs = ", ".join(f"{names[part]} (= 1)" for part in ("base", "binary", "modules"))
    repository.publish(
        made.deb(place, {}, name="linux-image-cloud-amd64", depends=names["image"]),
        made.deb(place, {}, name=names["image"], depends=needs),
        made.deb(place, {f"usr/lib/modules/{release}/vmlinuz": made.bzimage(release=release)}, name=names["binary"]),
        made.deb(place, tree, name=names["modules"], depends=names["base"]),
        made.deb(place, {builtin: built_in}, name=names["base"]),
    )
    kernel = spec.resolve("testing")
    assert kernel.release == release
    assert (kernel.modules / "kernel" / "virtio_blk.ko").exists()


def test_what_is_kept_needs_no_network_and_tells_its_age(published: Repository, tmp_path: Path) -> None:
    before = time.time()
    first = spec.find("testing")
    assert first.asked is None  # just now
    repository_gone = published.place.rename(tmp_path / "gone")
    again = spec.find("testing")
    assert again.kernel == first.kernel
    assert again.asked is not None
    assert before - 1 <= again.asked <= time.time()
    with pytest.raises(HarnessError, match="no suite testing"):
        spec.resolve("testing", refresh=True)
    assert spec.resolve("testing") == first.kernel  # what was there still is
    repository_gone.rename(published.place)
    assert spec.find("testing", refresh=True).asked is None


def test_refresh_finds_a_newer_one(published: Repository, tmp_path: Path) -> None:
    old = spec.resolve("testing")
    published.publish(*kernel_packages(tmp_path / "newer", "9.11.1-1", "9.11.1"))
    assert spec.resolve("testing") == old
    assert spec.resolve("testing", refresh=True).release == "9.11.1-cloud-amd64"
    assert spec.resolve("testing").release == "9.11.1-cloud-amd64"


def test_a_suite_that_is_gone(published: Repository) -> None:
    with pytest.raises(HarnessError, match="has no suite buster") as raised:
        spec.resolve("buster")
    assert "suites leave a mirror" in str(raised.value)
    assert cache.entries(kernels.KIND) == []


def test_lists_with_a_bad_signature_are_refused(published: Repository) -> None:
    signed = published.suite / "InRelease"
    signed.write_text(signed.read_text().replace("Origin: a test", "Origin: a rest"))
    with pytest.raises(HarnessError, match="BADSIG"):
        spec.resolve("testing")
    assert cache.entries(kernels.KIND) == []


def test_lists_without_a_signature_are_refused(published: Repository) -> None:
    signed = (published.suite / "InRelease").read_text()
    (published.suite / "InRelease").unlink()
    body = signed.split("\n\n", 1)[1].split("-----BEGIN PGP SIGNATURE-----")[0]
    (published.suite / "Release").write_text(body)
    with pytest.raises(HarnessError, match="not signed"):
        spec.resolve("testing")
    assert cache.entries(kernels.KIND) == []


def test_lists_signed_by_a_stranger_are_refused(published: Repository, tmp_path: Path) -> None:
    with Repository.new(published.place, tmp_path / "stranger") as stranger:
        stranger.sign()
        with pytest.raises(HarnessError, match="NO_PUBKEY"):
            spec.resolve("testing")
    assert cache.entries(kernels.KIND) == []


def test_a_package_with_another_hash_is_refused(published: Repository) -> None:
    (package,) = (published.place / "pool").glob("linux-image-9.10.1-*.deb")
    content = package.read_bytes()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(HarnessError, match="Hash Sum mismatch"):
        spec.resolve("testing")
    assert cache.entries(kernels.KIND) == []


def test_half_a_download_is_not_taken_for_whole(published: Repository, own_cache: Path) -> None:
    (package,) = (published.place / "pool").glob("linux-image-9.10.1-*.deb")
    half = made.write(own_cache / "apt" / "testing" / "download", {package.name: package.read_bytes()[:500]})
    assert spec.resolve("testing").release == "9.10.1-cloud-amd64"
    assert not half.exists()


def test_a_download_of_something_else_is_fetched_anew(published: Repository, own_cache: Path) -> None:
    (package,) = (published.place / "pool").glob("linux-image-9.10.1-*.deb")
    made.write(own_cache / "apt" / "testing" / "download", {package.name: bytes(package.stat().st_size)})
    assert spec.resolve("testing").release == "9.10.1-cloud-amd64"


def test_without_apt(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HarnessError, match="there is no apt-get; run this on Debian"):
        spec.resolve("bookworm")


def script(published: Repository, *, before: str = "") -> list[str]:
    """A process that fetches from this repository."""
    ring = apt._KEYRING
    return [
        sys.executable, "-c",
        "import time, os, signal\n"
        "from pathlib import Path\n"
        "from harness.vm import apt, spec, suites, unpacked_kernel\n"
        "from harness.vm.apt import Source\n"
        f"apt._KEYRING = Path({str(ring)!r})\n"
        f"apt.host_sources = lambda: [Source('file:{published.place}/', 'testing', ('main',))]\n"
        "apt.codename = lambda: 'testing'\n"
        f"{before}"
        "print(spec.resolve('testing').image)\n",
    ]  # fmt: skip


def test_a_fetch_that_is_killed_leaves_nothing_that_is_used(published: Repository, own_cache: Path) -> None:
    """Killed when half of an entry is there; the next one makes it whole."""
    kill = "unpacked_kernel.finish = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(script(published, before=kill), cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((own_cache / "kernels").glob(".*.unfinished/unpacked/boot/vmlinuz-*"))
    assert cache.entries(kernels.KIND) == []
    assert kernels.damage(spec.resolve("testing").image.parent) == ""
    assert not list((own_cache / "kernels").glob(".*.unfinished"))


def test_two_fetches_at_once_give_one_entry(published: Repository, own_cache: Path) -> None:
    count = "real = suites._fetch\nsuites._fetch = lambda *rest: (print('fetched'), real(*rest))[1]\n"
    both = [
        subprocess.Popen(script(published, before=count), cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1]  # the same entry
    assert sum(line == "fetched" for lines in said for line in lines) == 1
    assert len(cache.entries(kernels.KIND)) == 1


def test_a_damaged_entry_is_fetched_again(published: Repository) -> None:
    kernel = spec.resolve("testing")
    kernel.image.write_bytes(b"something else")
    assert spec.resolve("testing").image.read_bytes() == made.bzimage(release=kernel.release)


def test_a_damaged_entry_that_cannot_be_fetched_again_is_not_used(published: Repository) -> None:
    kernel = spec.resolve("testing")
    kernel.image.write_bytes(b"something else")
    shutil.rmtree(published.place)
    with pytest.raises(HarnessError, match="no suite testing"):
        spec.resolve("testing")


def test_a_version_that_is_listed_and_gone_gives_the_next_older_one(published: Repository) -> None:
    """As a mirror that was cleaned has it; a file that is not there is no 404 of a web server, so apt is spoken for."""
    fetch, told = apt.Apt.download, list[str]()

    def gone(self: apt.Apt, package: str, place: Path) -> Path:
        if "9.10.1" in package:
            raise HarnessError(f"fetch {package}", "E: Failed to fetch http://mirror.invalid/x.deb  404  Not Found")
        return fetch(self, package, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apt.Apt, "download", gone)
        kernel = spec.resolve("testing/9", tell=told.append)
        with pytest.raises(HarnessError, match="404"):
            spec.resolve("testing/9.10")
    assert kernel.release == "9.9.0-7-cloud-amd64"
    assert "linux-image-9.10.1-cloud-amd64 is listed, but the mirror has it no more: taking the next older one" in told
