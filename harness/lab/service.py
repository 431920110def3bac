"""A service of the platform as a table: guards that refuse, routes that answer, and how it says no."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.lab.http import Headers, Request, Response, origin_form
from harness.msp.endpoints import Endpoint

KEPT_BYTES = 64 * 1024
"""How much of a request's body a route gets to see; the rest is read, counted and forgotten."""


@dataclass(frozen=True)
class Call:
    """One request, taken apart. path is percent-decoded; of repeated query parameters the first counts."""

    request: Request
    path: str
    query: Mapping[str, str]
    body: bytes
    body_bytes: int  # its whole length

    def header(self, name: str) -> str | None:
        return self.request.header(name)


Answer = Callable[[Call], Response]
Guard = Callable[[Call], Response | None]


@dataclass(frozen=True)
class Route:
    """query holds what the request's query must hold; a path that ends in `/*` stands for all below it, and itself."""

    methods: tuple[str, ...]
    path: str
    answer: Answer
    query: Mapping[str, str] = field(default_factory=dict)

    def fits(self, call: Call) -> bool:
        if any(call.query.get(name, "").lower() != value for name, value in self.query.items()):
            return False
        if self.path.endswith("/*"):
            return call.path == self.path[:-2] or call.path.startswith(self.path[:-1])
        return call.path.rstrip("/") == self.path.rstrip("/")


@dataclass(frozen=True)
class Service:
    """Guards run in their order, before routing, each may refuse; then the first route that fits answers."""

    endpoint: Endpoint
    routes: tuple[Route, ...]
    not_found: Answer
    not_allowed: Callable[[Call, tuple[str, ...]], Response]
    guards: tuple[Guard, ...] = ()
    headers: Callable[[], Headers] = tuple

    def answer(self, call: Call) -> Response:
        for guard in self.guards:
            if refusal := guard(call):
                return refusal
        routes = [route for route in self.routes if route.fits(call)]
        for route in routes:
            if call.request.method in route.methods:
                return route.answer(call)
        if routes:
            return self.not_allowed(call, tuple(sorted({method for route in routes for method in route.methods})))
        return self.not_found(call)


READ = ("GET", "HEAD")


def call_of(request: Request, body: bytes, body_bytes: int) -> Call:
    """Take a request apart; an absolute target counts by its path."""
    path, _, search = (origin_form(request.target) or request.target).partition("?")
    query: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(search, keep_blank_values=True):
        query.setdefault(name.lower(), value)
    return Call(request, urllib.parse.unquote(path), query, body, body_bytes)


def json_answer(status: int, value: Any, headers: Headers = (), charset: str = "; charset=utf-8") -> Response:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Response(status, (("Content-Type", f"application/json{charset}"), *headers), body)


def xml_answer(status: int, text: str, headers: Headers = ()) -> Response:
    document = f'<?xml version="1.0" encoding="utf-8"?>\n{text}'
    return Response(status, (("Content-Type", "text/xml; charset=utf-8"), *headers), document.encode())


def date_header() -> tuple[str, str]:
    return ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))  # no setlocale() here: English names
