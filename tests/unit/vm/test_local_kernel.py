"""Kernels from files: packages, and images with their modules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.command import run
from harness.errors import HarnessError
from harness.vm import cache, kernels, local_kernel, rpm_signature, spec
from tests.unit.vm import made, rpms
from tests.unit.vm.conftest import Repository

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_deb(tmp_path: Path) -> None:
    package = made.deb(tmp_path, made.FILES, name="linux-image-x", script=f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    kernel = spec.resolve(str(package))
    assert kernel.release == made.RELEASE
    assert kernel.origin.startswith("linux-image-x_1_amd64.deb sha256:")
    assert "by its sha256 only" in kernel.verified
    assert not (tmp_path / "ran").exists()


def split(tmp_path: Path) -> tuple[Path, Path]:
    image = {name: content for name, content in made.FILES.items() if "boot/" in name}
    return (
        made.deb(tmp_path, image, name=f"linux-image-unsigned-{made.RELEASE}"),
        made.deb(tmp_path, made.MODULES, name=f"linux-modules-{made.RELEASE}"),
    )


def test_a_deb_with_its_modules_beside(tmp_path: Path) -> None:
    image, modules = split(tmp_path)
    assert spec.resolve(str(image)).release == made.RELEASE
    assert modules.name in spec.resolve(str(image)).origin


def test_a_deb_with_its_modules_named(tmp_path: Path) -> None:
    image, modules = split(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = modules.rename(tmp_path / "elsewhere" / "other.deb")
    with pytest.raises(HarnessError, match=r"no modules of 9.9.0-test in it; some distributions split"):
        spec.resolve(str(image))
    assert spec.resolve(f"{image},modules={moved}").release == made.RELEASE


def test_a_package_that_was_exchanged_is_another_one(tmp_path: Path) -> None:
    package = made.deb(tmp_path, made.FILES, name="linux-image-x")
    first = spec.resolve(str(package))
    assert spec.find(str(package)).asked is not None
    other = {**made.FILES, f"boot/vmlinuz-{made.RELEASE}": made.bzimage(pack="xz")}
    shutil.copyfile(made.deb(tmp_path, other, name="linux-image-x", version="2"), package)
    assert spec.resolve(str(package)).digest != first.digest


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return rpms.halves(tmp_path_factory.mktemp("rpms"))


@pytest.fixture
def packages(built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Copies of both halves; no key of this machine's is trusted."""
    monkeypatch.setattr(rpm_signature, "KEYS", ())
    core, modules = (Path(shutil.copy(package, tmp_path)) for package in built)
    return core, modules


def test_an_rpm_without_a_signature_is_refused_unless_that_is_allowed(packages: tuple[Path, Path]) -> None:
    core, modules = packages
    with pytest.raises(HarnessError, match=r"not signed; give its key .* with --allow-unsigned"):
        spec.resolve(str(core))
    assert cache.entries(kernels.KIND) == []
    kernel = spec.resolve(str(core), allow_unsigned=True)
    assert kernel.release == made.RELEASE
    assert kernel.verified == "rpm: it is not signed, which was allowed; its digests are right"
    assert core.name in kernel.origin
    assert modules.name in kernel.origin
    assert not list(core.parent.parent.rglob("*-script-ran"))
    assert spec.resolve(str(core)) == kernel  # it was allowed, and is in the cache


@pytest.fixture
def key(signer: Repository, tmp_path: Path) -> Path:
    """The public key of whoever signs in the tests."""
    target = tmp_path / "key.asc"
    run(["gpg", "--homedir", signer.home, "--batch", "--armor", "-o", target, "--export"])
    return target


@pytest.fixture
def signed(packages: tuple[Path, Path], signer: Repository) -> tuple[Path, Path]:
    for package in packages:
        rpms.sign(package, signer.home)
    return packages


def test_an_rpm_by_a_key_that_is_trusted(signed: tuple[Path, Path], key: Path) -> None:
    with pytest.raises(HarnessError, match=r"signed by the unknown key [0-9a-f]{8}"):
        spec.resolve(str(signed[0]))
    rpm_signature.trust(key)
    kernel = spec.resolve(str(signed[0]))
    assert kernel.verified.startswith("rpm: signed by key ")
    assert kernel.release == made.RELEASE


def test_an_rpm_that_was_changed_after_it_was_signed(signed: tuple[Path, Path], key: Path) -> None:
    rpm_signature.trust(key)
    core = signed[0]
    content = core.read_bytes()
    core.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    for allow_unsigned in (False, True):  # a wrong digest never is allowed
        with pytest.raises(HarnessError, match=r"BAD|DIGEST"):
            spec.resolve(str(core), allow_unsigned=allow_unsigned)
    assert cache.entries(kernels.KIND) == []


def test_what_is_no_key_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("text")
    with pytest.raises(HarnessError, match="no public key"):
        rpm_signature.trust(tmp_path / "key")


def test_without_rpmkeys(packages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HarnessError, match="there is no rpmkeys; install"):
        spec.resolve(str(packages[0]))


@pytest.mark.parametrize("payload", ["w9.gzdio", "w6.xzdio", "w9.bzdio", "w3.zstdio"])
def test_each_packing_of_an_rpm(payload: str, tmp_path: Path) -> None:
    package = rpms.build(tmp_path, "kernel-default", made.FILES, payload=payload)
    # /boot is not among its %files
    with pytest.raises(HarnessError, match="no image in it"):
        spec.resolve(str(package), allow_unsigned=True)
    whole = {**made.MODULES, f"lib/modules/{made.RELEASE}/vmlinuz": made.bzimage()}
    package = rpms.build(tmp_path, "kernel-whole", whole, payload=payload)
    assert spec.resolve(str(package), allow_unsigned=True).release == made.RELEASE


def test_packages_of_two_kinds_are_no_kernel(packages: tuple[Path, Path], tmp_path: Path) -> None:
    deb = made.deb(tmp_path, made.FILES, name="linux-image-x")
    with pytest.raises(HarnessError, match="packages of different kinds"):
        spec.resolve(f"{deb},modules={packages[1]}")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made.write(tmp_path / "tree", made.FILES)
    return tmp_path / "tree" / "boot" / f"vmlinuz-{made.RELEASE}"


def test_an_image_finds_its_modules(image: Path) -> None:
    kernel = spec.resolve(str(image))
    assert kernel.release == made.RELEASE
    assert (kernel.modules / "kernel" / "virtio_blk.ko").exists()
    assert kernel.verified == "a local file: by its sha256 only"


@pytest.mark.parametrize("place", ["tree/lib/modules/9.9.0-test", "tree/lib/modules", "tree"])
def test_an_image_with_its_modules_named(image: Path, place: str, tmp_path: Path) -> None:
    moved = image.rename(tmp_path / "bzImage")
    with pytest.raises(HarnessError, match=r"modules of 9.9.0-test are missing"):
        spec.resolve(str(moved))
    assert spec.resolve(f"{moved},modules={tmp_path / place}").release == made.RELEASE


def test_a_vmlinux(image: Path, tmp_path: Path) -> None:
    vmlinux = tmp_path / "tree" / "boot" / "vmlinux"
    vmlinux.write_bytes(made.elf())
    kernel = spec.resolve(str(vmlinux))
    assert kernel.image == kernel.vmlinux
    assert kernel.image.read_bytes() == made.elf()
    vmlinux.write_bytes(made.elf(pvh=False))
    with pytest.raises(HarnessError, match="no PVH entry"):
        spec.resolve(str(vmlinux))


def test_other_modules_make_another_kernel(image: Path, tmp_path: Path) -> None:
    first = spec.resolve(str(image), refresh=True)
    made.write(tmp_path / "tree", {f"lib/modules/{made.RELEASE}/kernel/virtio_blk.ko": made.module()})
    assert spec.resolve(str(image), refresh=True).digest != first.digest


def test_an_image_that_is_too_large(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_kernel, "LARGEST_IMAGE", 100)
    with pytest.raises(HarnessError, match="larger than"):
        spec.resolve(str(image))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no kernel"),
        (b"text\n" * 200, "no kernel"),
        (bytes(56) + b"ARM\x64" + bytes(4000), "arm64"),
        (made.elf(machine=183), "AArch64"),
        (made.elf()[:64] + bytes(500), "no Linux kernel"),
        (made.bzimage()[:700], "cut off"),
        (b"!<arch>\n" + bytes(100), "damaged|ends too early|is none"),
        (b"\xed\xab\xee\xdb" + bytes(500), "header of it is damaged"),
    ],
)
def test_a_file_that_is_no_kernel(content: bytes, why: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(content)
    with pytest.raises(HarnessError, match=why):
        spec.resolve(str(target))
    assert cache.entries(kernels.KIND) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("./nothing", "it is not there"),
        ("/", "it is a directory"),
        ("/dev/null", "no regular file"),
        ("Bookworm", "no suite, no file that is there, and no lab kernel; give a suite"),
        ("", "no suite, no file"),
        ("lab:nothing", "there is none of that name"),
        ("bookworm:rt", "flavours are"),
    ],
)
def test_what_names_no_kernel(text: str, why: str) -> None:
    with pytest.raises(HarnessError, match=why):
        spec.resolve(text)


@pytest.mark.parametrize("word", ["modules=", "mods=x", "x"])
def test_an_option_that_is_none(word: str, image: Path) -> None:
    with pytest.raises(HarnessError, match="is no option of a file"):
        spec.resolve(f"{image},{word}")


def test_modules_that_are_not_there(image: Path) -> None:
    with pytest.raises(HarnessError, match=r"modules from .*: it is not there"):
        spec.resolve(f"{image},modules=/nothing/here")


def test_a_file_in_this_directory_needs_no_slash(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    assert spec.resolve(image.name).release == made.RELEASE


def test_lz4_is_not_needed_to_keep_a_kernel(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the kernel is kept as it is, and says why guests have to unpack it."""
    if shutil.which("lz4") is None:
        pytest.skip("no lz4 here, to pack one")
    image.write_bytes(made.bzimage(pack="lz4"))
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "lz4" else which(name))
    kernel = spec.resolve(str(image))
    assert kernel.vmlinux is None
    assert "no lz4" in kernel.no_vmlinux
