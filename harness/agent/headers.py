"""Which headers a proxy passes on, and which belong to one connection only (RFC 9110, 7.6.1)."""

from __future__ import annotations

from harness.lab.http import Headers, header

HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Never passed on. Expect is here because our own server answers it: it sends 100 when the body is asked for."""

KEPT = frozenset({"content-length", "host"})
"""Passed on even when a Connection header names them: without them the message would mean something else."""

HOST_PREFIX = "x-ms-azure-host-"
"""The agent's own headers (claims, date, authorization); what a client sends under these names is dropped."""

NONCE = "x-msp-harness-nonce"
"""Ours, in answers: proof that an answer went through the proxy. An endpoint's own is dropped."""


def request_headers(headers: Headers) -> Headers:
    """What of a client's headers goes to the endpoint, framed for a connection of our own."""
    passed = [(key, value) for key, value in _end_to_end(headers) if not key.lower().startswith(HOST_PREFIX)]
    if chunked(headers):
        passed.append(("Transfer-Encoding", "chunked"))
    return tuple(passed)


def with_length(headers: Headers, length: int) -> Headers:
    """Request headers framed for a body of this length."""
    framing = ("transfer-encoding", "content-length")
    return (*(row for row in headers if row[0].lower() not in framing), ("Content-Length", str(length)))


def response_headers(headers: Headers) -> Headers:
    """What of an endpoint's headers goes to the client; the server adds the framing."""
    return tuple((key, value) for key, value in _end_to_end(headers) if key.lower() != NONCE)


def chunked(headers: Headers) -> bool:
    """Whether the body has chunks; then a Content-Length beside it counts for nothing (RFC 9112, 6.3)."""
    return header(headers, "transfer-encoding") is not None


def _end_to_end(headers: Headers) -> list[tuple[str, str]]:
    dropped = set(HOP_BY_HOP)
    for key, value in headers:
        if key.lower() == "connection":
            dropped.update({name.strip().lower() for name in value.split(",")} - KEPT)
    if chunked(headers):
        dropped.add("content-length")
    return [(key, value) for key, value in headers if key.lower() not in dropped]
