"""What a whole agent adds to the proxy: who asks, whether the rules let them, and what the endpoint is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.agent.claims import Claims, claims_of
from harness.agent.host import KeySource, date_header
from harness.agent.proxy import Connection, Exchange
from harness.agent.rules import Item, Mode
from harness.agent.status import Board
from harness.lab.http import Headers, Request, Response, origin_form
from harness.msp import signature
from harness.msp.endpoints import Endpoint
from harness.program.maps import AuditRecord


class Gate:
    """items are the rules in force, by endpoint name; they are replaced as a whole.

    own answers requests that were made to the agent itself, or gives None for what it does not offer.
    """

    def __init__(
        self,
        key: KeySource,
        board: Board,
        own: Callable[[Request], Response | None],
        log: Callable[[str], None] = lambda line: None,
        identify: Callable[[AuditRecord], Claims] = claims_of,
    ):
        self.items: Mapping[str, Item] = {}
        self._key = key
        self._board = board
        self._log = log
        self.own = own
        self.identify = identify

    def denial(self, claims: Claims, endpoint: Endpoint, request: Request) -> str | None:
        """Why somebody may not make this request; None when they may.

        An endpoint of root's is root's in every mode, unless a privilege of the rules is given to who asks.
        """
        item = self.items.get(endpoint.name, Item())
        ruled = item.mode is not Mode.DISABLED
        decision = item.decide(claims, origin_form(request.target) or "/") if ruled else None
        if decision and not decision.allowed:
            said = f"{endpoint.title}: {decision.why}"
            if item.mode is Mode.ENFORCE:
                return said
            self._log(f"audit: would be refused: {request.method} {request.target} by pid {claims.process_id}: {said}")
        granted = decision is not None and decision.allowed and not decision.default
        if endpoint.root_only and not claims.elevated and not granted:
            return f"{endpoint.title} is for root only, and user {claims.user_name or claims.user_id} is not root"
        return None

    def signs(self, method: str, target: str) -> bool:
        """Whether a request will be signed, so that its body must be whole before its headers are sent."""
        return self._key() is not None and not signature.never_signed(method, target)

    def headers(self, claims: Claims, method: str, target: str, headers: Headers, body: bytes) -> Headers:
        """What goes with a request besides: date, claims and, once a key is latched, authorization."""
        more = (date_header(), claims.header())
        key = self._key()
        if key is None or signature.never_signed(method, target):
            return more
        value = signature.sign(key.guid, key.key, method, target, (*headers, *more), body)
        return (*more, (signature.AUTHORIZATION, value))

    def answered(self, connection: Connection, exchange: Exchange, *, denied: bool) -> None:
        """Count a request of a redirected client."""
        audit = connection.audit
        if audit and exchange.status:
            self._board.count(connection.claims, audit.address, audit.port, exchange.status, denied=denied)
