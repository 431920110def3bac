"""The list of what was found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.image.list import listed
from tests.image import trees
from tests.image.trees import KERNEL, changed, file, unread


def rows(image: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    whole = json.loads(json.dumps(listed(image)))
    return whole, {row["bom-ref"]: row for row in whole["components"]}


def test_it_has_system_kernel_agent_object_cloud_init_and_packages() -> None:
    whole, found = rows(trees.debian())
    assert (whole["bomFormat"], whole["specVersion"]) == ("CycloneDX", "1.5")
    assert found["os"]["version"] == "13"
    assert found[f"kernel:{KERNEL}"]["version"] == KERNEL
    assert found["agent"]["version"] == "1.0.30"
    assert len(found["object"]["hashes"][0]["content"]) == 64
    assert found["cloud-init:/usr/lib/python3/dist-packages/cloudinit"]["version"] == "25.1.4"
    assert found["package:systemd"]["version"] == "257.8-1"
    assert found["package:cloud-init"]["purl"] == "pkg:deb/debian/cloud-init@25.1.4-1%2Bdeb13u1"


@pytest.mark.parametrize("name", trees.GOOD)
def test_no_reference_stands_twice(name: str) -> None:
    whole, found = rows(trees.GOOD[name]())
    assert len(found) == len(whole["components"])


def test_what_was_not_read_is_told() -> None:
    image = changed(trees.debian(), {"/usr/lib/azure-proxy-agent/ebpf_cgroup.o": unread()})
    _, found = rows(image)
    assert "was not read" in str(found["object"]["properties"])


def test_no_key_is_in_it() -> None:
    image = changed(trees.debian(), {"/var/lib/azure-proxy-agent/keys/1.key": file(trees.KEY)})
    assert trees.KEY not in json.dumps(listed(image))
