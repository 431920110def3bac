"""HostGAPlugin as its clients see it: versions, health, settings of the VM, and what the guest uploads.

Sources: what public agents ask and read: `/versions` is a JSON list that holds 2015-09-01, `/vmSettings` a JSON
object with an ETag (304 to If-None-Match), `/status`, `/vmAgentLog`, `/extensionArtifact` and their headers; an error
is `{"errorCode", "message", "details"}` (waagent logs that people published). `/vmSettings` without headers is
answered: published scripts fetch it so, failing on 400. The words of the errors are ours.
"""

from __future__ import annotations

from harness.lab.http import Headers, Response
from harness.lab.service import READ, Answer, Call, Route, Service, date_header, json_answer
from harness.msp.endpoints import HOSTGAPLUGIN

VERSIONS = ["2015-09-01"]

ETAG = "1"

VM_SETTINGS = {
    "hostGAPluginVersion": "1.0.8.179",
    "vmSettingsSchemaVersion": "0.0",
    "activityId": "3f1c2f6e-0000-4000-8000-000000000005",
    "correlationId": "3f1c2f6e-0000-4000-8000-000000000006",
    "inSvdSeqNo": 1,
    "certificatesRevision": 0,
    "extensionsLastModifiedTickCount": 638931417044754873,
    "extensionGoalStatesSource": "FastTrack",
    "onHold": False,
    "statusUploadBlob": {"statusBlobType": "BlockBlob", "value": "https://msp-lab.invalid/status"},
    "gaFamilies": [],
    "extensionGoalStates": [],
}


def _headers() -> Headers:
    return (("Server", "Microsoft-HTTPAPI/2.0"), date_header())


def error(status: int, code: str, message: str, headers: Headers = ()) -> Response:
    return json_answer(status, {"errorCode": code, "message": message, "details": ""}, headers)


def _wants(names: tuple[str, ...], answer: Answer) -> Answer:
    def guarded(call: Call) -> Response:
        missing = [name for name in names if not call.header(name)]
        if missing:
            return error(400, "MissingRequiredHeader", f"The required header {missing[0]} is missing.")
        return answer(call)

    return guarded


def _vm_settings(call: Call) -> Response:
    etag = (("ETag", ETAG),)
    if (call.header("if-none-match") or "").strip('" ') == ETAG:
        return Response(304, etag)
    return json_answer(200, VM_SETTINGS, etag)


def _artifact(call: Call) -> Response:
    return error(404, "ArtifactNotFound", "The lab has no extension artifacts.")


def _accepted(call: Call) -> Response:
    return Response(200)


def _not_found(call: Call) -> Response:
    return error(404, "ResourceNotFound", "The specified resource does not exist.")


def _not_allowed(call: Call, methods: tuple[str, ...]) -> Response:
    return error(
        405, "UnsupportedHttpVerb", "The resource does not support this verb.", (("Allow", ", ".join(methods)),)
    )


_LOG_HEADERS = ("x-ms-vmagentlog-deploymentid", "x-ms-vmagentlog-containerid")
_STATUS_HEADERS = ("x-ms-version", "x-ms-containerid", "x-ms-host-config-name")

SERVICE = Service(
    HOSTGAPLUGIN,
    routes=(
        Route(READ, "/versions", lambda call: json_answer(200, VERSIONS)),
        Route(READ, "/health", _accepted),
        Route(READ, "/vmSettings", _vm_settings),
        Route(READ, "/extensionArtifact", _wants((*_STATUS_HEADERS, "x-ms-artifact-location"), _artifact)),
        Route(("PUT",), "/status", _wants(_STATUS_HEADERS, _accepted)),
        Route(("PUT",), "/vmAgentLog", _wants(_LOG_HEADERS, _accepted)),
    ),
    not_found=_not_found,
    not_allowed=_not_allowed,
    headers=_headers,
)
