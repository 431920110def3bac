"""Behaviours of real client programs and libraries, with the address written in every way that they take."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.lab import clients
from harness.lab.behaviours.common import http_request, noted, owned, parse_answer, several, stopped
from harness.lab.clients import NONCE_HEADER, Request, Seen, Stage, Unavailable, error_name

# curl's exit codes (man curl): what it says before it connects, and of a connect
_CURL_NO_SUCH_HOST = (3, 6)
_CURL_ERRORS = {7: "ECONNREFUSED", 28: "timeout", 52: "RemoteDisconnected", 56: "ECONNRESET"}
_CURL_REPORT = "%{local_port} %{remote_ip}"  # its remote_port is the one of the URL, not the peer's


def forms(address: str) -> dict[str, str]:
    """The ways in which inet_aton(3) lets an IPv4 address be written, by name."""
    octets = [int(octet) for octet in address.split(".")]
    number = int.from_bytes(bytes(octets), "big")
    return {
        "dotted": address,
        "hexadecimal": f"0x{number:08X}",
        "decimal": f"{number}",
        "octal": ".".join(f"0{octet:o}" for octet in octets),
        "three parts": f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
    }


def resolved(request: Request, stage: Stage) -> Seen:
    """getaddrinfo(), then connect() to what it gives."""
    return _each(request, _resolve_and_connect)


def curl(request: Request, stage: Stage) -> Seen:
    if not shutil.which("curl"):
        raise Unavailable("curl is not installed")
    return _each(request, _curl)


def by_urllib(request: Request, stage: Stage) -> Seen:
    """Python's urllib.request, told to use no proxy of the environment."""
    return _each(request, _urllib)


def program(request: Request, stage: Stage) -> Seen:
    """A client program (option `command`; see harness.lab.behaviours.programs) that is given all forms at once."""
    if "command" not in request.options:
        raise Unavailable(request.options["unavailable"])
    wanted = _wanted(request)
    get = http_request(request, request.address).hex()
    command = [*request.options["command"], str(request.port), get, str(int(request.patience * 1000)), *wanted.values()]
    child, output, errors = _run(command, request.patience, request.options.get("environment", {}))
    lines = output.decode("utf-8", "replace").splitlines()
    if child.returncode or len(lines) != len(wanted):
        last = errors.decode("utf-8", "replace").strip().partition("\n")[0]
        raise Unavailable(f"{command[0]} ended with status {child.returncode}: {last}")
    return several(
        *(_told(name, form, line, child.pid) for (name, form), line in zip(wanted.items(), lines, strict=True))
    )


def _told(name: str, form: str, line: str, pid: int) -> Seen:
    """A line of such a program: `refused WHY`, `failed WHY`, or `connected PORT HEX`."""
    word, _, rest = line.partition(" ")
    if word == "refused":
        seen = Seen(unavailable=f"its resolver does not take this form: {rest}")
    elif word == "failed":
        seen = Seen(error=_errno_of(rest), step="connect")
    else:
        port, _, answer = rest.partition(" ")
        seen = _answered(bytes.fromhex(answer), source_port=int(port))
    return noted(owned(seen, pid), form=name, written=form)


def _errno_of(text: str) -> str:
    lowered = text.lower()
    if "refused" in lowered:
        return "ECONNREFUSED"
    return "timeout" if "time" in lowered and "out" in lowered else text


def _answered(raw: bytes, **members: Any) -> Seen:
    try:
        return Seen(**members, **parse_answer(raw))
    except http.client.HTTPException as error:
        return Seen(**members, error=error_name(error), step="answer")


def _wanted(request: Request) -> dict[str, str]:
    """The forms to try: those that option `forms` gives, by name; otherwise all."""
    given: dict[str, str] = request.options.get("forms") or forms(request.address)
    return given


def _each(request: Request, ask: Callable[[Request, str], Seen]) -> Seen:
    return several(
        *(noted(_one(request, ask, form), form=name, written=form) for name, form in _wanted(request).items())
    )


def _one(request: Request, ask: Callable[[Request, str], Seen], form: str) -> Seen:
    try:
        seen = ask(request, form)
    except Unavailable as reason:
        seen = Seen(unavailable=str(reason))
    return seen if seen.pid else owned(seen)


def _resolve_and_connect(request: Request, form: str) -> Seen:
    try:
        found = socket.getaddrinfo(form, request.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Unavailable(f"getaddrinfo() does not take this form: {error}") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as client:
        client.settimeout(request.patience)
        try:
            client.connect(address)
        except OSError as error:
            return stopped(client, error)
        return noted(clients.exchange(client, request), family=family.name)


def _urllib(request: Request, form: str) -> Seen:
    import urllib.error
    import urllib.request

    places: list[tuple[Any, Any]] = []

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            places.append((self.sock.getsockname(), self.sock.getpeername()))

    class Handler(urllib.request.HTTPHandler):
        def http_open(self, asked: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, asked)

    asked = urllib.request.Request(_url(request, form), headers={"Metadata": "true"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Handler)
    try:
        with opener.open(asked, timeout=request.patience) as response:
            status, headers = response.status, response.headers
    except urllib.error.HTTPError as error:
        status, headers = error.code, error.headers
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror | UnicodeError):
            raise Unavailable(f"its resolver does not take this form: {error.reason}") from error
        reason = error.reason if isinstance(error.reason, BaseException) else error
        return Seen(error=error_name(reason), step="connect")
    local, remote = places[-1]
    return Seen(
        peer=f"{remote[0]}:{remote[1]}", source_port=local[1], status=status, nonce=headers.get(NONCE_HEADER, "")
    )


def _curl(request: Request, form: str) -> Seen:
    report = ["--silent", "--include", "--noproxy", "*", "--max-time", f"{request.patience:g}", "--globoff"]
    headers = ["--header", "Metadata: true", "--header", "Connection: close"]
    command = ["curl", *report, *headers, "--write-out", "\n" + _CURL_REPORT, _url(request, form)]
    child, output, _ = _run(command, request.patience)
    raw, _, told = output.rpartition(b"\n")
    port, _, remote = told.decode().partition(" ")
    if child.returncode in _CURL_NO_SUCH_HOST:
        return owned(Seen(unavailable=f"curl does not take this form (exit code {child.returncode})"), child.pid)
    if child.returncode:
        error = _CURL_ERRORS.get(child.returncode, f"curl's exit code {child.returncode}")
        return owned(Seen(error=error, step="connect", source_port=max(int(port or 0), 0)), child.pid)
    return noted(owned(_answered(raw, source_port=int(port)), child.pid), remote=remote)


def _run(
    command: Sequence[str], patience: float, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], bytes, bytes]:
    """Run a client program to its end, or until it has had its time twice (it has its own limit)."""
    quiet = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=quiet | dict(environment or {})
    ) as child:
        try:
            output, errors = child.communicate(timeout=2 * patience)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
        return child, output, errors


def _url(request: Request, form: str) -> str:
    host = f"[{form}]" if ":" in form else form
    port = "" if request.port == 80 else f":{request.port}"
    return f"http://{host}{port}{request.path}"
