"""The table of distributions and the hints made of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.kernel import packages

ROOT = Path(__file__).resolve().parent.parent.parent

# os-release(5) of each system: the fields that matter, as the distribution writes them.
SYSTEMS = {
    "debian": ('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', "Debian"),
    "ubuntu": ("ID=ubuntu\nID_LIKE=debian", "Ubuntu"),
    "mint": ('ID=linuxmint\nID_LIKE="ubuntu debian"', "Ubuntu"),
    "fedora": ("ID=fedora", "Fedora"),
    "rhel": ('ID="rhel"\nID_LIKE="fedora"', "Red Hat Enterprise Linux and kin"),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"', "Red Hat Enterprise Linux and kin"),
    "oracle": ('ID="ol"\nID_LIKE="fedora"', "Red Hat Enterprise Linux and kin"),
    "azurelinux": ('ID="azurelinux"', "Azure Linux"),
    "mariner": ("ID=mariner", "Azure Linux"),
    "leap": ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "SUSE"),
    "sles": ('ID="sles"\nID_LIKE="suse"', "SUSE"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_is_found_by_id_and_then_by_what_it_is_like(system: str, tmp_path: Path) -> None:
    text, name = SYSTEMS[system]
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(text + "\n")
    row = packages.distribution(packages.os_release(tmp_path))
    assert row is not None
    assert row.name == name


@pytest.mark.parametrize("row", packages.DISTRIBUTIONS, ids=lambda row: row.name)
def test_each_row_names_a_package_for_each_need(row: packages.Distribution) -> None:
    with_apt: list[tuple[str, ...]] = [packages.BROWSER_NEEDS, packages.VM_NEEDS, packages.KERNEL_NEEDS]
    with_apt += [packages.BUILD_NEEDS, packages.SAMPLE_NEEDS, packages.VAGRANT_NEEDS]
    vm_needs = tuple(need for needs in with_apt for need in needs)
    assert set(row.packages) == {*packages.ALL_NEEDS, *packages.TEST_NEEDS, *(vm_needs if row.automatic else ())}
    assert set(packages.WHAT) == {*packages.ALL_NEEDS, *packages.TEST_NEEDS, *vm_needs}
    for need in row.packages:
        (name,) = packages.package_names((need,), row, machine="x86_64")
        assert name
        assert "{" not in name
    (own,) = packages.package_names((packages.HEADERS,), row, release="1.2.3-test")
    assert "{" not in own


def test_no_row_offers_what_pypi_calls_bcc() -> None:
    assert {row.packages[packages.BCC] for row in packages.DISTRIBUTIONS} == {"python3-bpfcc", "python3-bcc"}


@pytest.mark.parametrize(
    ("fields", "machine", "command"),
    [
        ({"ID": "debian"}, "x86_64", "apt-get install -y python3-bpfcc linux-headers-amd64"),
        ({"ID": "debian"}, "aarch64", "apt-get install -y python3-bpfcc linux-headers-arm64"),
        ({"ID": "ubuntu"}, "x86_64", "apt-get install -y python3-bpfcc linux-headers-generic"),
        ({"ID": "fedora"}, "x86_64", "dnf install -y python3-bcc kernel-devel"),
        ({"ID": "azurelinux"}, "x86_64", "tdnf install -y python3-bcc kernel-devel"),
        ({"ID": "sles"}, "x86_64", "zypper --non-interactive install python3-bcc kernel-default-devel"),
    ],
)
def test_the_hint_is_the_command(fields: dict[str, str], machine: str, command: str) -> None:
    assert f"`{command}`" in packages.install_hint(("bcc", "headers"), fields, machine=machine)


def test_a_package_that_serves_two_needs_is_named_once() -> None:
    assert packages.install_hint(("python", "venv"), {"ID": "fedora"}).startswith(
        "install with `dnf install -y python3`"
    )


def test_an_unknown_distribution_is_told_what_to_look_for() -> None:
    hint = packages.install_hint(("bcc",), {"ID": "gentoo", "PRETTY_NAME": "Gentoo"}, machine="x86_64")
    assert "BCC's Python module (python3-bpfcc in Debian, python3-bcc in Fedora)" in hint
    assert "Gentoo" in hint
    assert "no os-release" in packages.install_hint(("bcc",), {})


def test_a_need_that_is_not_in_the_table_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        packages.install_hint(("perl",), {"ID": "debian"})


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('ID=\'debian\'\n# ID=no\n\nNAME="A \\"B\\""\nrubbish', {"ID": "debian", "NAME": 'A "B"'}),
        ('ID="unmatched', {"ID": '"unmatched'}),
        ("\xff\x00", {}),
        ("", {}),
    ],
)
def test_os_release_is_read_as_its_manual_says(text: str, fields: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(text, "latin-1")
    assert packages.os_release(tmp_path) == fields


def test_no_os_release_at_all_is_no_distribution(tmp_path: Path) -> None:
    assert packages.distribution(packages.os_release(tmp_path)) is None


def test_set_up_needs_nothing_but_the_standard_library() -> None:
    """Before there is a virtual environment this is all that set-up has: -S leaves out every installed package."""
    command = [sys.executable, "-S", "-E", "-c", "import setup.__main__, harness.program.headers, setup.environment"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name",
    [
        "setup/__init__.py",
        "setup/__main__.py",
        "setup/environment.py",
        "setup/system.py",
        "harness/__init__.py",
        "harness/command.py",
        "harness/errors.py",
        "harness/kernel/__init__.py",
        "harness/kernel/packages.py",
        "harness/program/__init__.py",
        "harness/program/headers.py",
    ],
)
def test_an_older_python_gets_a_message_and_no_traceback(name: str) -> None:
    ast.parse((ROOT / name).read_text(), feature_version=(3, 8))


def test_the_module_prints_the_hint() -> None:
    command = [sys.executable, "-m", "harness.kernel.packages"]
    known = subprocess.run([*command, "bcc"], cwd=ROOT, capture_output=True, text=True)
    assert known.returncode == 0
    assert known.stdout.strip() == packages.install_hint(("bcc",))
    unknown = subprocess.run([*command, "perl"], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert unknown.returncode == 2
    assert "usage" in unknown.stderr
