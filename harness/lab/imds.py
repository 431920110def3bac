"""IMDS as its clients see it.

Sources: Microsoft's page "Azure Instance Metadata Service" (aka.ms/azureimds) for resources, versions, status codes
and the bodies of the two 400s about the header and about a missing api-version; `Server: IMDS/…` and x-ms-request-id
from answers that people published. Where no public source shows a body (X-Forwarded-For, 404, 405, a leaf without
format=text), the sentence is ours and only the status is theirs; OUR_WORDS marks those.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from harness.lab.http import Headers, Response
from harness.lab.service import READ, Call, Route, Service, date_header, json_answer
from harness.msp.endpoints import IMDS

# fmt: off
VERSIONS = [
    "2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01",
    "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01",
    "2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
    "2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01",
]
# fmt: on

MORE = "For more information refer to aka.ms/azureimds"

OUR_WORDS = {
    "forwarded": "Bad request. X-Forwarded-For is not allowed",
    "not found": "Not found",
    "not allowed": "Method not allowed",
    "leaf": "Bad request. This resource is a value: format=text must be specified",
}

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f msp-harness"
"""Nobody has the private half: the 32 bytes are 0, 1, 2 …"""

EXTENDED = {"compute": {"hasCustomData": False, "ppsType": "None"}}
"""What `extended=true` adds: only cloud-init is known to ask for it, which reads ppsType of it (sources, 21.2 on)."""

INSTANCE: Mapping[str, Any] = {
    "compute": {
        "azEnvironment": "AzurePublicCloud",
        "location": "westeurope",
        "name": "msp-lab",
        "offer": "debian-12",
        "osProfile": {
            "adminUsername": "azureuser",
            "computerName": "msp-lab",
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "platformFaultDomain": "0",
        "platformUpdateDomain": "0",
        "provider": "Microsoft.Compute",
        "publicKeys": [{"keyData": PUBLIC_KEY, "path": "/home/azureuser/.ssh/authorized_keys"}],
        "publisher": "Debian",
        "resourceGroupName": "msp-harness",
        "resourceId": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/msp-harness"
        "/providers/Microsoft.Compute/virtualMachines/msp-lab",
        "securityProfile": {"secureBootEnabled": "false", "virtualTpmEnabled": "false"},
        "sku": "12-gen2",
        "subscriptionId": "00000000-0000-0000-0000-000000000000",
        "tags": "",
        "tagsList": [],
        "version": "0.0.0",
        "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
        "vmScaleSetName": "",
        "vmSize": "Standard_D2s_v3",
        "zone": "1",
    },
    "network": {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [{"privateIpAddress": "10.0.0.4", "publicIpAddress": ""}],
                    "subnet": [{"address": "10.0.0.0", "prefix": "24"}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": "000D3A000001",
            }
        ]
    },
}
"""The lab's VM. Every value but numbers of a list is a string, as in the real service."""

TOKEN = {
    "access_token": "not-a-token",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "expires_in": "86399",
    "expires_on": "4102444800",
    "ext_expires_in": "86399",
    "not_before": "1500000000",
    "token_type": "Bearer",
}


def _headers() -> Headers:
    raw = os.urandom(16).hex()
    request = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
    return (("Server", "IMDS/150.870.65.1854"), ("x-ms-request-id", request), date_header())


def _bad(text: str, **more: Any) -> Response:
    return json_answer(400, {"error": text, **more})


def _metadata_header(call: Call) -> Response | None:
    if (call.header("metadata") or "").strip().lower() == "true":
        return None
    return _bad("Bad request. Required metadata header not specified")


def _forwarded(call: Call) -> Response | None:
    return _bad(OUR_WORDS["forwarded"]) if call.header("x-forwarded-for") is not None else None


def _api_version(call: Call) -> Response | None:
    if call.path.rstrip("/").lower() == "/metadata/versions":
        return None
    newest = {"newest-versions": VERSIONS[:-4:-1]}
    version = call.query.get("api-version")
    if version is None:
        return _bad(f"Bad request. api-version was not specified in the request. {MORE}", **newest)
    if version not in VERSIONS:
        return _bad(f"Bad request. api-version is invalid or was not specified in the request. {MORE}", **newest)
    return None


def _instance(call: Call) -> Response:
    extended = call.query.get("extended", "").lower() == "true"
    found: Any = {**INSTANCE, "extended": EXTENDED} if extended else INSTANCE
    for name in call.path.split("/")[3:]:
        if not name:
            continue
        found = _below(found, name)
        if found is None:
            return _not_found(call)
    as_text = call.query.get("format", "json").lower() == "text"
    if found is INSTANCE and not as_text:
        return _whole()
    if not isinstance(found, str):
        return _text("\n".join(_names(found))) if as_text else json_answer(200, found)
    return _text(found) if as_text else _bad(OUR_WORDS["leaf"])


@functools.cache
def _whole() -> Response:
    """What nearly all ask for: made once."""
    return json_answer(200, INSTANCE)


def _below(found: Any, name: str) -> Any:
    if isinstance(found, Mapping):
        return next((value for key, value in found.items() if key.lower() == name.lower()), None)
    if isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
        return found[int(name)]
    return None


def _names(found: Any) -> list[str]:
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    return [str(name) if isinstance(value, str) else f"{name}/" for name, value in pairs]


def _text(text: str) -> Response:
    return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), text.encode())


def _token(call: Call) -> Response:
    resource = call.query.get("resource")
    if not resource:
        text = "Required query variable 'resource' is missing"
        return json_answer(400, {"error": "invalid_request", "error_description": text})
    return json_answer(200, {**TOKEN, "resource": resource})


def _not_found(call: Call) -> Response:
    return json_answer(404, {"error": OUR_WORDS["not found"]})


def _not_allowed(call: Call, methods: tuple[str, ...]) -> Response:
    return json_answer(405, {"error": OUR_WORDS["not allowed"]}, (("Allow", ", ".join(methods)),))


SERVICE = Service(
    IMDS,
    routes=(
        Route(READ, "/metadata/versions", lambda call: json_answer(200, {"apiVersions": VERSIONS})),
        Route(READ, "/metadata/instance/*", _instance),
        Route(READ, "/metadata/identity/oauth2/token", _token),
    ),
    not_found=_not_found,
    not_allowed=_not_allowed,
    guards=(_metadata_header, _forwarded, _api_version),
    headers=_headers,
)
