"""The provisioning disk, read back."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pycdlib import PyCdlib

from harness.image.azure import media
from harness.image.azure.deployment import Deployment
from harness.lab.imds import INSTANCE, PUBLIC_KEY


def texts(document: bytes) -> dict[str, str]:
    return {
        element.tag.rpartition("}")[2]: element.text for element in ElementTree.fromstring(document).iter()
        if element.text
    }  # fmt: skip


@pytest.mark.parametrize("msp", [True, False])
def test_the_document_says_whether_the_agent_is_asked_for(msp: bool) -> None:
    found = texts(media.document(Deployment(msp=msp)))
    assert found["ProvisionGuestProxyAgent"] == str(msp).lower()


def test_the_account_has_a_key_and_no_password() -> None:
    found = texts(media.document(Deployment()))
    assert found["HostName"] == INSTANCE["compute"]["osProfile"]["computerName"]
    assert found["UserName"] == INSTANCE["compute"]["osProfile"]["adminUsername"]
    assert found["Value"] == PUBLIC_KEY
    assert found["DisableSshPasswordAuthentication"] == "true"
    assert "UserPassword" not in found


def test_the_document_stands_on_the_udf_side() -> None:
    disk = PyCdlib()
    disk.open_fp(io.BytesIO(media.disk(Deployment())))
    try:
        content = io.BytesIO()
        disk.get_file_from_iso_fp(content, udf_path=f"/{media.NAME}")
    finally:
        disk.close()
    assert content.getvalue() == media.document(Deployment())


def test_a_machine_says_that_it_is_udf(tmp_path: Path) -> None:
    if shutil.which("blkid") is None:
        pytest.skip("there is no blkid here")
    image = tmp_path / "media"
    image.write_bytes(media.disk(Deployment()))
    said = subprocess.run(["blkid", "-p", image], capture_output=True, text=True, check=True).stdout
    assert 'TYPE="udf"' in said
    assert f'LABEL="{media.LABEL}"' in said
