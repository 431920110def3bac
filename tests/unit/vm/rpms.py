"""Packages as Fedora and its kin split a kernel: kernel-core and kernel-modules-core, made here by rpmbuild."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.command import run
from tests.unit.vm import made

VERSION = "9.9.0"

_SPEC = """\
Name: {name}
Version: {version}
Release: 1.test
Summary: A test
License: none
BuildArch: x86_64
AutoReqProv: no
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%description
%install
cp -a {tree}/. %{{buildroot}}/
%post
touch {tree}-script-ran
%files
/lib
"""


def build(
    place: Path, name: str, files: Mapping[str, bytes], *, version: str = "9.9.0", payload: str = "w3.zstdio"
) -> Path:
    """An .rpm with these files, in a directory; payload is rpm's name of its packing."""
    if shutil.which("rpmbuild") is None:
        pytest.skip("there is no rpmbuild")
    tree = made.write(place / f".{name}", files)
    spec = place / f"{name}.spec"
    spec.write_text(_SPEC.format(name=name, version=VERSION, tree=tree))
    definitions = {
        "_topdir": place / ".build",
        "_rpmdir": place,
        "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        "_binary_payload": payload,
        "_dbpath": place / ".db",
        "_unpackaged_files_terminate_build": "0",
    }
    words = [word for key, value in definitions.items() for word in ("--define", f"{key} {value}")]
    run(["rpmbuild", "-bb", "--quiet", *words, spec], timeout=120)
    spec.unlink()
    return place / f"{name}-{VERSION}-1.test.x86_64.rpm"


def halves(place: Path, files: Mapping[str, bytes] = made.FILES) -> tuple[Path, Path]:
    """kernel-core with the image and the tables, kernel-modules-core with the modules."""
    place.mkdir(exist_ok=True)
    release = next(name for name in files if name.startswith("boot/")).removeprefix("boot/vmlinuz-")
    core = {f"lib/modules/{release}/vmlinuz": files[f"boot/vmlinuz-{release}"]}
    core |= {name: content for name, content in files.items() if "/modules." in name}
    modules = {name: content for name, content in files.items() if ".ko" in name}
    return build(place, "kernel-core", core), build(place, "kernel-modules-core", modules)


def sign(package: Path, home: Path) -> None:
    """Sign a package with the key in a directory of gpg's."""
    definitions = {"__gpg": shutil.which("gpg"), "_gpg_name": "a test", "_gpg_path": home}
    words = [word for key, value in definitions.items() for word in ("--define", f"{key} {value}")]
    run(["rpmsign", "--addsign", *words, package], timeout=60)
