"""What to do: boot loaders, Windows' numbers, failure codes of deployments."""

from __future__ import annotations

import pytest

from harness.diagnose import bootloader
from harness.diagnose import facts as f
from harness.msp import deployment_errors, win32
from tests.unit.diagnose import made


def os(name: str, like: str = "") -> f.OsRelease:
    return f.OsRelease(made.source(), {"ID": name, "ID_LIKE": like})


@pytest.mark.parametrize(
    ("name", "like", "command"),
    [
        ("rhel", "fedora", 'sudo grubby --update-kernel=ALL --args="systemd.unified_cgroup_hierarchy=1"'),
        ("rocky", "rhel centos fedora", "grubby"),
        ("ol", "fedora", "grubby"),
        ("ubuntu", "debian", "sudo update-grub"),
        ("debian", "", "sudo update-grub"),
        ("linuxmint", "ubuntu debian", "sudo update-grub"),
        ("sles", "suse", "grub2-mkconfig"),
        ("opensuse-leap", "suse opensuse", "grub2-mkconfig"),
        ("azurelinux", "", "grub2-mkconfig"),
        ("mariner", "", "/boot/mariner.cfg"),
        ("flatcar", "coreos", "/oem/grub.cfg"),
    ],
)
def test_each_distribution_gets_its_boot_loaders_command_and_a_reboot(name: str, like: str, command: str) -> None:
    steps = bootloader.remedy(os(name, like), None)
    assert any(command in step for step in steps)
    assert any(bootloader.WORD in step for step in steps)
    assert bootloader.REBOOT in steps
    assert steps.index(bootloader.REBOOT) > 0


def test_an_unknown_distribution_gets_them_all_by_name() -> None:
    steps = " ".join(bootloader.remedy(None, None))
    assert all(word in steps for word in ("RHEL", "Debian", "SUSE", "Azure Linux", "Reboot"))


def test_a_word_that_asks_for_the_old_layout_is_to_be_taken_out_first() -> None:
    line = f.CommandLine(made.source(), ("quiet", "systemd.unified_cgroup_hierarchy=0"))
    assert "take that word out" in bootloader.remedy(os("debian"), line)[0]


def test_windows_numbers_have_words_and_unknown_ones_a_way_to_find_them() -> None:
    assert "signature" in win32.exit_code(577).text
    assert "net helpmsg 4711" in win32.exit_code(4711).remedy
    assert win32.build("10.0.14393 N/A Build 14393") == 14393
    assert win32.build("10.0.20348") == 20348
    assert win32.build("10") is None
    assert win32.build("") is None


@pytest.mark.parametrize(
    ("code", "message", "known"),
    [
        ("ProxyAgentNotSupportedInRegion", "", True),
        (
            "BadRequest",
            "The value 'securityProfile.proxyAgentSettings.keyIncarnationId' can only be incremented.",
            True,
        ),
        ("BadRequest/GalleryInVMAccessControlProfileNotMatchOSDisk", "x", True),
        ("BadRequest", "The value of parameter 'adminPassword' is invalid.", False),
        ("OSProvisioningClientError", "keyIncarnationId", False),
    ],
)
def test_a_failure_code_is_msps_only_with_its_words(code: str, message: str, known: bool) -> None:
    assert bool(deployment_errors.msp_failure(code, message)) is known


def test_a_code_may_have_the_operating_system_before_it() -> None:
    assert deployment_errors.bare("Linux.OSProvisioningInternalError") == "OSProvisioningInternalError"
