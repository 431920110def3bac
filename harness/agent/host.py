"""The agent's own requests to the platform: key status, keys, and what it reads for its telemetry.

They go straight to the endpoint: the redirector skips the agent's pid. All carry the headers that
shared/facts/secure-channel.md names; with a key they are signed.
"""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.agent import key_status
from harness.agent.config import Config
from harness.agent.key_folder import Key, KeyUnusable, parse_key
from harness.agent.key_status import InvalidStatus, KeyStatus
from harness.lab.channel import BadMessage, PeerGone, PeerSlow
from harness.lab.http import ClientConnection, ExchangeFailed, Headers, Limits
from harness.msp import signature
from harness.msp.endpoints import Endpoint
from harness.msp.messages import Form

LARGEST = 4 << 20  # bytes of an answer
OWN_CLAIMS = '{ "isRoot": "true"}'


class HostTrouble(Exception):
    """A request of the agent that failed. step: status, acquire or attest; status is 0 where there was no answer.

    str() is the agent's text for it.
    """

    def __init__(self, step: str, text: str, status: int = 0):
        super().__init__(text)
        self.step = step
        self.status = status


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Host:
    def __init__(self, config: Config):
        self._config = config
        seconds = config.times.answer
        self._limits = Limits(idle=seconds, head=seconds, stall=seconds)

    async def key_status(self) -> KeyStatus:
        """Poll the key status. Raises HostTrouble."""
        answer = await self._step("status", "GET", "/secure-channel/status")
        try:
            return key_status.parse(answer.body)
        except InvalidStatus as error:
            raise HostTrouble("status", Form.KEY_VALIDATION.format(error=error), answer.status) from error

    async def acquire(self) -> Key:
        """Ask for a key. Raises HostTrouble, with the status of a refusal."""
        body = json.dumps({"authorizationScheme": signature.SCHEME}).encode()
        answer = await self._step("acquire", "POST", "/secure-channel/key", body)
        try:
            return parse_key(json.loads(answer.body))
        except KeyUnusable as error:
            raise HostTrouble("acquire", Form.KEY_SEND.format(step="acquire", error=error)) from error
        except (ValueError, RecursionError):
            text = Form.KEY_SEND.format(step="acquire", error="the answer is not JSON")
            raise HostTrouble("acquire", text) from None

    async def attest(self, key: Key) -> None:
        """Prove that the key is held. Raises HostTrouble."""
        await self._step("attest", "POST", f"/secure-channel/key/{key.guid}/key-attestation", key=key)

    async def introduce(self, key: Key | None) -> str:
        """Read goal state, shared config and instance, and send telemetry, as the agent does; what failed, if any."""
        version = (("x-ms-version", "2012-11-30"),)
        wireserver, imds = self._config.endpoint("wireserver"), self._config.endpoint("imds")
        try:
            goal = await self.ask(wireserver, "GET", "/machine?comp=goalstate", headers=version, key=key)
            found = re.search(rb"<SharedConfig>http://[^/<]+(/[!-;=-~]*)</SharedConfig>", goal.body)
            if goal.status != 200 or not found:
                return f"goal state: status {goal.status}"
            shared = found[1].decode("latin-1").replace("&amp;", "&")
            for endpoint, method, target in (
                (wireserver, "GET", shared),
                (imds, "GET", "/metadata/instance?api-version=2018-02-01"),
                (wireserver, "POST", "/machine/?comp=telemetrydata"),
            ):
                answer = await self.ask(endpoint, method, target, headers=version, key=key)
                if answer.status != 200:
                    return f"{method} {target.partition('?')[0]}: status {answer.status}"
        except ExchangeFailed as error:
            return str(error)
        return ""

    async def ask(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Headers = (),
        key: Key | None = None,
    ) -> Answer:
        """One exchange on a connection of its own. Raises ExchangeFailed."""
        name = endpoint.address if endpoint.port == 80 else f"{endpoint.address}:{endpoint.port}"
        rows = (
            ("Host", name),
            ("Metadata", "True"),
            date_header(),
            (signature.CLAIMS, OWN_CLAIMS),
            *headers,
            ("Content-Length", str(len(body))),
        )
        if key and not signature.never_signed(method, target):
            rows += ((signature.AUTHORIZATION, signature.sign(key.guid, key.key, method, target, rows, body)),)
        return await self._exchange(endpoint, method, target, rows, body)

    async def _exchange(self, endpoint: Endpoint, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        seconds = self._config.times.answer
        connection = await ClientConnection.open(endpoint.address, endpoint.port, limits=self._limits, seconds=seconds)
        try:
            await connection.send(method, target, headers)
            if body:
                await connection.send_piece(body)
            await connection.send_end()
            answer = await connection.receive()
            whole = bytearray()
            assert not isinstance(answer.body, bytes)
            async for piece in answer.body:
                whole += piece
                if len(whole) > LARGEST:
                    raise ExchangeFailed(f"read the answer of {connection.name}", f"it is larger than {LARGEST} bytes")
            return Answer(answer.status, bytes(whole))
        except (PeerGone, PeerSlow, BadMessage) as error:
            raise ExchangeFailed(f"ask {connection.name}", str(error)) from error
        finally:
            connection.close()

    async def _step(self, step: str, method: str, target: str, body: bytes = b"", key: Key | None = None) -> Answer:
        try:
            answer = await self.ask(self._config.endpoint("wireserver"), method, target, body, key=key)
        except ExchangeFailed as error:
            raise HostTrouble(step, Form.KEY_SEND.format(step=step, error=error)) from error
        if answer.status != 200:
            text = Form.KEY_ANSWER.format(step=step, status=answer.status)
            raise HostTrouble(step, text, answer.status)
        return answer


def date_header() -> tuple[str, str]:
    """The date as HTTP writes it."""
    return signature.DATE, email.utils.formatdate(usegmt=True)


KeySource = Callable[[], Key | None]
"""The latched key at this moment, if there is one."""
