"""The Vagrantfile and its table of machines, without starting one; Vagrant itself reads it where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.kernel import packages

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINES = json.loads((ROOT / "vagrant/machines.json").read_text("utf-8"))
SCRIPTS = ("kernel.sh", "provision.sh")

needs_vagrant = pytest.mark.skipif(
    shutil.which("vagrant") is None, reason=f"Vagrant is not installed: {packages.install_hint([packages.VAGRANT])}"
)


def validated(
    place: Path, *, chosen: str = "", change: tuple[str, str] = ("\0", "")
) -> subprocess.CompletedProcess[str]:
    """vagrant validate on a copy of the Vagrantfile, changed or not, with nothing of the user's boxes and settings."""
    shutil.copytree(ROOT / "vagrant", place / "vagrant", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "Vagrantfile").write_text((ROOT / "Vagrantfile").read_text("utf-8").rstrip().replace(*change))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "VAGRANT_HOME": str(place / "home"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "LANG": "C.UTF-8",
        "MSP_VAGRANT": chosen,
    }
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("row", MACHINES)
def test_each_row_names_a_box_and_its_kernels(row: str) -> None:
    values = MACHINES[row]
    assert values.keys() <= {"box", "suite", "kernel", "kernels", "note"}
    assert re.fullmatch(r"[a-z0-9]+", row)
    assert re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", values["box"])
    kernels = values.get("kernels", {})
    assert values.get("kernel") in {None, *kernels}
    for name, package in kernels.items():
        assert re.fullmatch(r"[a-z0-9]+", name)
        assert re.fullmatch(r"[a-z0-9.+-]+(/[a-z-]+)?", package)


def test_the_families_of_distributions_are_there() -> None:
    boxes = " ".join(values["box"].lower() for values in MACHINES.values())
    for family in ("debian", "ubuntu", "rocky", "tumbleweed", "fedora"):
        assert family in boxes
    assert "azure" in MACHINES


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_sh(script: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "vagrant" / script], check=True)
    assert os.access(ROOT / "vagrant" / script, os.X_OK)


@needs_vagrant
def test_vagrant_accepts_the_vagrantfile(tmp_path: Path) -> None:
    done = validated(tmp_path)
    assert done.returncode == 0, done.stderr


@needs_vagrant
def test_a_mistake_in_the_vagrantfile_is_noticed(tmp_path: Path) -> None:
    done = validated(tmp_path, change=("box_check_update", "box_check_updates"))
    assert done.returncode != 0
    assert "box_check_updates" in done.stderr


@needs_vagrant
@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ("debian12@vmware", "the provider libvirt, libvirt-tcg or virtualbox"),
        ("debian12:cloud@", "write BOX"),
        (":cloud", "write BOX"),
        ("slackware", "no machine slackware; there are debian12,"),
    ],
)
def test_a_choice_that_is_none_is_refused_in_words(tmp_path: Path, chosen: str, told: str) -> None:
    done = validated(tmp_path, chosen=chosen)
    assert done.returncode != 0
    assert f"MSP_VAGRANT={chosen}: " in done.stderr
    assert told in done.stderr


# What one variable makes of the configuration, told by the Vagrantfile itself.
TELL = """
  at_exit do
    rows = config.vm.defined_vms.map do |name, defined|
      inner = Vagrant::Config::V2::Root.new({ vm: VagrantPlugins::Kernel_V2::VMConfig })
      defined.config_procs.each { |version, block| block.call(inner) }
      [name, { box: inner.vm.box, start: defined.options.fetch(:autostart),
               steps: inner.vm.provisioners.map do |step|
                 [step.name, (step.config.args if step.config.args.is_a?(Array)), step.config.reboot == true]
               end }]
    end
    File.write("told.json", JSON.dump([rows.to_h, ENV["VAGRANT_DEFAULT_PROVIDER"]]))
  end
  config.vm.box_check_update"""


@needs_vagrant
@pytest.mark.parametrize(
    ("chosen", "name", "box", "package", "provider"),
    [
        ("", "debian12", "cloud-image/debian-12", None, None),
        ("debian13@libvirt", "debian13", "cloud-image/debian-13", None, "libvirt"),
        ("debian12:backports@libvirt-tcg", "debian12-backports", "cloud-image/debian-12",
         "linux-image-amd64/bookworm-backports", "libvirt"),
        ("azure@virtualbox", "azure", "cloud-image/ubuntu-24.04", "linux-image-azure", "virtualbox"),
        ("debian12:vagrant/packages/linux_5.deb", "debian12-linux", "cloud-image/debian-12",
         "vagrant/packages/linux_5.deb", None),
        ("someone/azurelinux3", "someone-azurelinux3", "someone/azurelinux3", None, None),
    ],
)  # fmt: skip
def test_one_variable_picks_box_kernel_and_provider(
    tmp_path: Path, chosen: str, name: str, box: str, package: str | None, provider: str | None
) -> None:
    done = validated(tmp_path, chosen=chosen, change=("  config.vm.box_check_update", TELL))
    assert done.returncode == 0, done.stderr
    rows, default_provider = json.loads((tmp_path / "told.json").read_text())
    assert [row for row, values in rows.items() if values["start"]] == [name]
    assert rows[name]["box"] == box
    kernel = [["kernel", [package], not chosen.endswith("@libvirt-tcg")]] if package else []
    assert [[step, args, reboot] for step, args, reboot in rows[name]["steps"]] == [*kernel, ["set-up", None, False]]
    assert default_provider == provider
