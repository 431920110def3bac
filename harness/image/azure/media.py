"""The provisioning disk: a CD with ovf-env.xml, as the platform makes it.

Its file system is UDF beside ISO 9660, and blkid(8) calls it udf, as on Azure. The document's elements are those that
public agents read of it (shared/facts/agent.md: ProvisionGuestProxyAgent of the platform settings).
"""

from __future__ import annotations

import io
from xml.etree import ElementTree

from pycdlib import PyCdlib

from harness.image.azure.deployment import Deployment
from harness.lab.imds import PUBLIC_KEY

LABEL = "rd_rdfe_stable"
NAME = "ovf-env.xml"
_UDF = "2.60"
_OVF = "http://schemas.dmtf.org/ovf/environment/1"
_AZURE = "http://schemas.microsoft.com/windowsazure"


def document(deployment: Deployment) -> bytes:
    """ovf-env.xml: an account with a key and without a password."""
    ElementTree.register_namespace("", _OVF)
    ElementTree.register_namespace("wa", _AZURE)
    environment = ElementTree.Element(f"{{{_OVF}}}Environment")
    provisioning = _below(environment, "ProvisioningSection", Version="1.0")
    linux = _below(
        provisioning,
        "LinuxProvisioningConfigurationSet",
        ConfigurationSetType="LinuxProvisioningConfiguration",
        HostName=deployment.hostname,
        UserName=deployment.user,
        DisableSshPasswordAuthentication="true",
    )
    keys = _below(_below(linux, "SSH"), "PublicKeys")
    path = f"/home/{deployment.user}/.ssh/authorized_keys"
    _below(keys, "PublicKey", Fingerprint="", Path=path, Value=PUBLIC_KEY)
    section = _below(environment, "PlatformSettingsSection", Version="1.0")
    _below(
        section,
        "PlatformSettings",
        KmsServerHostname="azkms.core.windows.net",
        ProvisionGuestAgent="false",
        ProvisionGuestProxyAgent="true" if deployment.msp else "false",
        PreprovisionedVm="false",
        PreprovisionedVMType="None",
    )
    written: bytes = ElementTree.tostring(environment, encoding="utf-8", xml_declaration=True)
    return written


def disk(deployment: Deployment) -> bytes:
    """The whole disk, some 1.2 MB, mostly zeros."""
    content = document(deployment)
    image = PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, udf=_UDF)
    try:
        image.add_fp(io.BytesIO(content), len(content), "/OVF_ENV.XML;1", udf_path=f"/{NAME}")
        written = io.BytesIO()
        image.write_fp(written)
    finally:
        image.close()
    return written.getvalue()


def _below(parent: ElementTree.Element, name: str, **texts: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, f"{{{_AZURE}}}{name}")
    for child, text in texts.items():
        ElementTree.SubElement(element, f"{{{_AZURE}}}{child}").text = text
    return element
