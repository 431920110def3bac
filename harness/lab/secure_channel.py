"""The platform's side of the secure channel: keys offered, latched and reset; signatures checked; all of it recorded.

Paths, members and the course of things are those of shared/facts/secure-channel.md. What no public source shows is
ours: the bodies of refusals, the tolerance of the clock, and that an unsigned request is refused with 403 once a key
is latched and the endpoint enforced.

    nothing latched ── POST key ──> offered ── attested ──> latched ── larger KeyIncarnationId ──> nothing latched
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.lab.http import PeerGone, Request, Response, origin_form
from harness.lab.scenarios import DEFAULT, KNOWN, NEVER, Scenario
from harness.lab.service import Call, json_answer
from harness.msp import signature
from harness.msp.signature import Verifier

STATUS_PATH = "/secure-channel/status"
KEY_PATH = "/secure-channel/key"
CLOCK_TOLERANCE = 300.0
"""Seconds that a signed request's date may be off; ours."""

REQUIRED = ("metadata", signature.DATE, signature.CLAIMS)
"""What every request of an agent to the secure channel carries."""

_RULES_OF = {"imds": "imds", "wireserver": "wireserver", "hostgaplugin": "hostga"}


@dataclass(frozen=True)
class Key:
    """A key as it goes over the wire; key is 256 bits in hex."""

    guid: str
    key: str
    issued: str
    incarnation: int

    def wire(self) -> dict[str, Any]:
        return {
            "authorizationScheme": signature.SCHEME,
            "guid": self.guid,
            "incarnationId": self.incarnation,
            "issued": self.issued,
            "key": self.key,
        }


def new_key(incarnation: int) -> Key:
    issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Key(str(uuid.uuid4()), secrets.token_hex(signature.KEY_BYTES).upper(), issued, incarnation)


@dataclass(frozen=True)
class Event:
    """One thing that the platform saw. what: status, acquire, attest, other (of the channel), request, or reset.

    status is the answer's, 0 where the service itself answered and not the secure channel.

    verdict is `verified`, `unsigned`, or why a signature does not hold. missing names headers that an agent sends and
    this request did not.
    """

    what: str
    endpoint: str
    method: str
    target: str
    status: int
    verdict: str
    guid: str = ""
    claims: str = ""  # the claims header as it came
    missing: tuple[str, ...] = ()
    at: float = 0.0  # seconds since the epoch


class Check:
    """The signature of one request, checked while its body comes."""

    def __init__(self, request: Request, keys: Mapping[str, Key], now: float):
        self.claims = request.header(signature.CLAIMS) or ""
        self.guid = ""
        self._verifier: Verifier | None = None
        self._claimed = ""
        self._trouble = self._begin(request, keys, now)
        self._verdict = ""

    def _begin(self, request: Request, keys: Mapping[str, Key], now: float) -> str:
        value = request.header(signature.AUTHORIZATION)
        if value is None:
            return "unsigned"
        told = signature.parse_authorization(value)
        if told is None:
            return "malformed authorization header"
        self.guid, self._claimed = told.guid, told.digest
        if told.guid not in keys:
            return f"no key {told.guid}"
        seconds = _seconds(request.header(signature.DATE) or "")
        if seconds is None:
            return "no date"
        if abs(seconds - now) > CLOCK_TOLERANCE:
            return f"the date is {abs(seconds - now):.0f} s off"
        target = origin_form(request.target) or request.target
        self._verifier = Verifier(keys[told.guid].key, request.method, target, request.headers)
        return ""

    def update(self, piece: bytes) -> None:
        if self._verifier:
            self._verifier.update(piece)

    @property
    def verdict(self) -> str:
        """To be asked when the body is whole."""
        if not self._verdict:
            verified = self._verifier is not None and self._verifier.verified(self._claimed)
            self._verdict = self._trouble or ("verified" if verified else "the signature is another")
        return self._verdict


class SecureChannel:
    """The platform's state: one VM's key. events holds what was seen, oldest first, the last `remember`."""

    def __init__(self, scenario: Scenario = DEFAULT, *, remember: int = 4096):
        self.events: deque[Event] = deque(maxlen=remember)
        self.incarnation = 1
        self.latched: Key | None = None
        self.offered: Key | None = None
        self.scenario = scenario
        self.set_scenario(scenario)

    def set_scenario(self, scenario: Scenario) -> None:
        """Behave like this from now on. A key is kept, unless the scenario wants one latched and there is none."""
        self.scenario = scenario
        if scenario.latched != NEVER and self.latched is None:
            self.latched = new_key(self.incarnation)

    @property
    def known_key(self) -> Key | None:
        """The key that the agent's folder is to hold before it starts."""
        return self.latched if self.scenario.latched == KNOWN else None

    def reset(self, incarnation: int) -> bool:
        """The VM model gets this KeyIncarnationId; whether that changed anything: only a larger one does."""
        if incarnation <= self.incarnation:
            return False
        self.incarnation, self.latched, self.offered = incarnation, None, None
        self._note(Event("reset", "", "", "", 0, "", at=time.time()))
        return True

    def keys(self) -> dict[str, Key]:
        return {key.guid: key for key in (self.latched, self.offered) if key}

    def check(self, request: Request) -> Check:
        return Check(request, self.keys(), time.time() + self.scenario.clock)

    async def arrive(self, endpoint: str, request: Request) -> None:
        """Before a request is looked at: break off or delay. Raises PeerGone, which resets the connection."""
        if endpoint != "wireserver":
            return
        if self.scenario.unreachable:
            raise PeerGone("the scenario breaks off every connection")
        if self.scenario.delay and _is_channel(origin_form(request.target) or ""):
            await asyncio.sleep(self.scenario.delay)

    def answer(self, endpoint: str, call: Call, check: Check) -> Response | None:
        """The answer of the secure channel or its refusal; None when the service itself is to answer."""
        channel = endpoint == "wireserver" and _is_channel(call.path)
        response = self._answer_channel(call, check) if channel else self._refusal(endpoint, call, check)
        what = _what(call.path) if channel else "request"
        missing = tuple(name for name in REQUIRED if call.header(name) is None) if channel else ()
        request = call.request
        status = response.status if response else 0
        self._note(Event(what, endpoint, request.method, request.target, status, check.verdict, check.guid,
                         check.claims, missing, time.time()))  # fmt: skip
        return response

    def status(self) -> dict[str, Any]:
        """The members of a status now."""
        scenario = self.scenario
        found: dict[str, Any] = {
            "authorizationScheme": signature.SCHEME,
            "keyDeliveryMethod": "http",
            "keyGuid": self.latched.guid if self.latched else None,
            "keyIncarnationId": self.incarnation,
            "requiredClaimsHeaderPairs": ["isRoot"],
            "version": scenario.version,
        }
        if scenario.version == "1.0":
            found["secureChannelState"] = scenario.state
        else:
            found |= {"secureChannelEnabled": scenario.enabled, "authorizationRules": scenario.wire_rules()}
        return {name: value for name, value in (found | dict(scenario.members)).items() if name not in scenario.without}

    def enforced(self, endpoint: str) -> bool:
        """Whether the platform refuses what is not signed there: a key is latched, and the mode is enforce."""
        scenario = self.scenario
        if self.latched is None:
            return False
        if scenario.version == "1.0":
            state = scenario.state.lower()
            return state == "wireserverandimds" or (state == "wireserver" and endpoint != "imds")
        rules = scenario.rules.get(_RULES_OF[endpoint]) or {}
        return scenario.enabled and str(rules.get("mode", "")).lower() == "enforce"

    def _refusal(self, endpoint: str, call: Call, check: Check) -> Response | None:
        if not self.enforced(endpoint) or check.verdict == "verified":
            return None
        if signature.never_signed(call.request.method, origin_form(call.request.target) or ""):
            return None
        return _refused(403, f"the request is not signed with the latched key: {check.verdict}")

    def _answer_channel(self, call: Call, check: Check) -> Response:
        method, path = call.request.method, call.path.rstrip("/")
        if path == STATUS_PATH and method == "GET":
            if self.scenario.status:
                status, body = self.scenario.status
                return Response(status, (("Content-Type", "application/json"),), body.encode())
            return json_answer(200, self.status())
        if path == KEY_PATH and method == "POST":
            return self._acquire(call)
        guid, slash, step = path.removeprefix(f"{KEY_PATH}/").partition("/")
        if slash and step == "key-attestation" and method == "POST":
            return self._attest(guid, check)
        return _refused(404 if method in ("GET", "POST") else 405, f"{method} {path} is not offered")

    def _acquire(self, call: Call) -> Response:
        try:
            wanted = json.loads(call.body)
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict) or wanted.get("authorizationScheme") != signature.SCHEME:
            return _refused(400, "the body names no authorization scheme that is offered")
        if self.scenario.acquire != 200:
            return _refused(self.scenario.acquire, "no key is offered")
        if self.latched:
            return _refused(403, "a key is latched already; reset it to be offered another")
        self.offered = new_key(self.incarnation)
        return json_answer(200, self.offered.wire())

    def _attest(self, guid: str, check: Check) -> Response:
        key = self.keys().get(guid)
        if key is None:
            return _refused(403, f"no key {guid} is offered")
        if check.verdict != "verified" or check.guid != guid:
            return _refused(403, f"the attestation is not signed with the key: {check.verdict}")
        if self.scenario.attest != 200:
            return _refused(self.scenario.attest, "the attestation is refused")
        self.latched, self.offered = key, None
        return Response(200)

    def _note(self, event: Event) -> None:
        self.events.append(event)


def _seconds(date: str) -> float | None:
    """An HTTP date in seconds since the epoch; None for what is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_channel(path: str) -> bool:
    return path.startswith("/secure-channel/")


def _what(path: str) -> str:
    if path.rstrip("/").endswith("/key-attestation"):
        return "attest"
    return {STATUS_PATH: "status", KEY_PATH: "acquire"}.get(path.rstrip("/"), "other")


def _refused(status: int, why: str) -> Response:
    return json_answer(status, {"error": why})
