"""Faults of cloud-init in a sample: switched off, of two versions, with MSP's support taken out or put in."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import HarnessError
from harness.image.sample.site import Site

_PACKAGE = "usr/lib/python3/dist-packages/cloudinit"
_SOURCE = f"{_PACKAGE}/sources/DataSourceAzure.py"
_HELPER = f"{_PACKAGE}/sources/helpers/azure.py"
_SETTING = "ProvisionGuestProxyAgent"

_INIT = "        self.preprovisioned_vm_type = preprovisioned_vm_type\n"
_PARSED = """\
        self.preprovisioned_vm_type = self._parse_property(
            platform_settings,
            "PreprovisionedVMType",
            required=False,
        )
"""
_PARSES = f"""\
        self.provision_guest_proxy_agent = self._parse_property(
            platform_settings,
            "{_SETTING}",
            parse_bool=True,
            default=False,
            required=False,
        )
"""
_CONFIGURED = "    return (md, ud, cfg)\n"
_ONLINE = "        if self._is_ephemeral_networking_up():\n            imds_md = self.get_imds_data_with_api_fallback("
_FAILED = "                description=DEFAULT_REPORT_FAILURE_USER_VISIBLE_MESSAGE\n"
_REPORT = "    def _report_failure("
_ASKS = """\
    def _ask_guest_proxy_agent(self):
        reason, told = "", ""
        try:
            subp.subp(["azure-proxy-agent", "--status", "--wait", "120"])
        except subp.ProcessExecutionError as error:
            if error.errno == 2:
                reason = "azure-proxy-agent not found"
            else:
                reason = "azure-proxy-agent status failure"
                told = "exit_code=%s|stdout=%s|stderr=%s|" % (
                    error.exit_code, error.stdout, error.stderr
                )
        if reason:
            raise sources.InvalidMetaDataException(
                "result=error|reason=%s|agent=Cloud-Init/backport|%s" % (reason, told)
            )

"""


def backported(site: Site) -> None:
    """The few lines that a distribution would take back to 22.4, by ourselves."""
    if _SETTING in site.read(_HELPER) or _SETTING in site.read(_SOURCE):
        raise HarnessError("break a sample", f"cloud-init of {site.suite} knows MSP itself", "take bookworm")
    site.replace(
        _HELPER, (_INIT, f"{_INIT}        self.provision_guest_proxy_agent = False\n"), (_PARSED, _PARSED + _PARSES)
    )
    described = '                description=str(e) if str(e).startswith("result=error") else None\n'
    site.replace(
        _SOURCE,
        (_CONFIGURED, f'    cfg["{_SETTING}"] = ovf_env.provision_guest_proxy_agent\n{_CONFIGURED}'),
        (_ONLINE, f'        if cfg.get("{_SETTING}"):\n            self._ask_guest_proxy_agent()\n\n{_ONLINE}'),
        (_FAILED, described),
        (_REPORT, _ASKS + _REPORT),
    )
    compiles(site, _HELPER, _SOURCE)


def compiles(site: Site, *names: str) -> None:
    """What was changed is still Python. Raises HarnessError."""
    for name in names:
        try:
            compile(site.read(name), name, "exec")
        except SyntaxError as error:
            raise HarnessError("break a sample", f"/{name} is no Python any more: {error}") from error


def removed(site: Site) -> None:
    """The setting is not read, and nobody asks."""
    content = site.read(_SOURCE)
    if _SETTING not in content + site.read(_HELPER):
        raise HarnessError("break a sample", f"cloud-init of {site.suite} knows nothing of MSP", "take trixie")
    calls = re.compile(r"^( *)self\._check_azure_proxy_agent_status\(\)$", re.MULTILINE)
    if not calls.search(content):
        raise HarnessError("break a sample", "its Azure datasource does not ask where it is known to", "take trixie")
    content = calls.sub(r"\1pass", content)
    definition = re.compile(
        r"^    def _check_azure_proxy_agent_status\(.*?(?=^    (?:def |@)|^\S)", re.MULTILINE | re.DOTALL
    )
    site.write(_SOURCE, definition.sub("", content))
    site.write(_HELPER, site.read(_HELPER).replace(f'"{_SETTING}"', '"NobodyReadsThis"'))
    site.write(_SOURCE, site.read(_SOURCE).replace(f'"{_SETTING}"', '"NobodyReadsThis"'))
    compiles(site, _HELPER, _SOURCE)


def none_installed(site: Site) -> None:
    site.run("dpkg", "--purge", "--force-depends", "cloud-init")
    site.remove(_PACKAGE, "etc/cloud", "var/lib/cloud")


def no_azure(site: Site) -> None:
    site.write("etc/cloud/cloud.cfg.d/90-azure.cfg", "datasource_list: [ NoCloud, ConfigDrive, None ]\n")


def disabled(site: Site) -> None:
    site.write("etc/cloud/cloud-init.disabled", "")


def files_differ(site: Site) -> None:
    """The package keeps its version, the files say another: as after `pip install` or a copy over them."""
    name = f"{_PACKAGE}/version.py"
    content, count = re.subn(r"(?m)^__VERSION__ = .*$", '__VERSION__ = "24.4.1"', site.read(name))
    content = re.sub(r"(?m)^_PACKAGED_VERSION = .*$", '_PACKAGED_VERSION = "@@PACKAGED_VERSION@@"', content)
    if not count:
        raise HarnessError("break a sample", f"/{name} says no version")
    site.write(name, content)


def state(site: Site) -> None:
    """What a first boot leaves."""
    instance = "0d1f6f3e-77f2-4f5c-9d5b-000000000001"
    site.write(f"var/lib/cloud/instances/{instance}/datasource", "DataSourceAzure: DataSourceAzure [seed=/dev/sr0]\n")
    site.write(f"var/lib/cloud/instances/{instance}/boot-finished", "60.00 - finished\n")
    site.write("var/lib/cloud/data/instance-id", f"{instance}\n")
    site.remove("var/lib/cloud/instance")
    site.path("var/lib/cloud/instance").symlink_to(Path("/var/lib/cloud/instances", instance))
