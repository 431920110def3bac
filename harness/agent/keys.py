"""Keeping the key: polling the status, acquiring, storing, attesting; a state machine, to be read in TRANSITIONS.

                 a key is wanted and not at hand
    any resting state ──────────> MISSING ── acquired ──> OFFERED ── saved ──> STORED ── attested ──> LATCHED
                                     ^  │ refused            │ not saved          │ not attested
                                     └──┴────────────────────┴────────────────────┘   until the next poll

A key that the platform names and that is in the folder makes LATCHED at once. Only a latched key signs. Recovery is
no case of its own: after a reset (a larger KeyIncarnationId) the platform's status names no key any more, so the next
poll finds one wanted and not at hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.agent import key_status
from harness.agent.config import Times
from harness.agent.host import Host, HostTrouble
from harness.agent.key_folder import Key, KeyFolder, KeyUnusable
from harness.agent.key_status import KeyStatus
from harness.msp.messages import Form


class State(StrEnum):
    UNKNOWN = "unknown"  # the platform has said nothing yet
    DISABLED = "disabled"  # it wants no key
    MISSING = "missing"  # it wants one, and none is at hand
    OFFERED = "offered"  # it gave one, which is not on the disk yet
    STORED = "stored"  # on the disk, not attested
    LATCHED = "latched"


class Event(StrEnum):
    NO_STATUS = "no status"
    NOT_WANTED = "not wanted"
    HELD = "held"  # the status names the key that is latched
    FOUND = "found"  # the status names a key that is in the folder
    ABSENT = "absent"  # the status names no key, or one that is nowhere
    ACQUIRED = "acquired"
    REFUSED = "refused"
    SAVED = "saved"
    NOT_SAVED = "not saved"
    ATTESTED = "attested"
    NOT_ATTESTED = "not attested"


RESTING = (State.UNKNOWN, State.DISABLED, State.MISSING, State.LATCHED)
"""The states between two polls."""

TRANSITIONS: Mapping[tuple[State, Event], State] = {
    **{(state, Event.NO_STATUS): state for state in RESTING},
    **{(state, Event.NOT_WANTED): State.DISABLED for state in RESTING},
    **{(state, Event.FOUND): State.LATCHED for state in RESTING},
    **{(state, Event.ABSENT): State.MISSING for state in RESTING},
    (State.LATCHED, Event.HELD): State.LATCHED,
    (State.MISSING, Event.ACQUIRED): State.OFFERED,
    (State.MISSING, Event.REFUSED): State.MISSING,
    (State.OFFERED, Event.SAVED): State.STORED,
    (State.OFFERED, Event.NOT_SAVED): State.MISSING,
    (State.STORED, Event.ATTESTED): State.LATCHED,
    (State.STORED, Event.NOT_ATTESTED): State.MISSING,
}

SETBACKS = frozenset({Event.NO_STATUS, Event.REFUSED, Event.NOT_SAVED, Event.NOT_ATTESTED})
"""After one of these nothing more is tried until the next poll."""


@dataclass(frozen=True)
class Step:
    """A transition that happened: for the log, and for whoever wants to see the machine at work."""

    before: State
    event: Event
    after: State
    message: str  # what keyLatchStatus says from then on


class KeyKeeper:
    """Owns the key. told is called after every step, applied after a poll that leaves the platform's rules in force.

    Rules come into force when the key is latched, or when none is wanted; until then the last ones stay.
    """

    def __init__(
        self,
        host: Host,
        folder: KeyFolder,
        times: Times,
        *,
        told: Callable[[Step], None] = lambda step: None,
        applied: Callable[[KeyStatus], None] = lambda status: None,
    ):
        self.state = State.UNKNOWN
        self.message = ""
        self.status: KeyStatus | None = None  # the last that validated
        self.in_force: KeyStatus | None = None  # the last whose rules came into force
        self.polls = 0
        self.was_ready = asyncio.Event()  # set for good when it is ready for the first time
        self._host = host
        self._folder = folder
        self._times = times
        self._told = told
        self._applied = applied
        self._key: Key | None = None  # held, latched or not
        self._ready = Form.KEY_ATTESTED.value  # the message while the key is latched
        self._wake = asyncio.Event()

    @property
    def key(self) -> Key | None:
        """The key to sign with: none unless it is latched."""
        return self._key if self.state is State.LATCHED else None

    @property
    def ready(self) -> bool:
        """Whether provisioning need wait no longer for the key."""
        return self.state in (State.LATCHED, State.DISABLED)

    def states(self) -> dict[str, str]:
        """keyLatchStatus.states as they are now: the state in force, and the ids of the rules last heard of."""
        status = self.status
        found = {"secureChannelState": self.in_force.state if self.in_force else key_status.UNKNOWN}
        if key := self.key:
            found["keyGuid"] = key.guid
            if key.incarnation is not None:
                found["keyIncarnationId"] = str(key.incarnation)
        for member, name in (
            ("wireServerRuleId", "wireserver"),
            ("imdsRuleId", "imds"),
            ("hostGARuleId", "hostgaplugin"),
        ):
            found[member] = status.items[name].id if status else ""
        return found

    async def run(self) -> None:
        """Poll for ever."""
        started = time.monotonic()
        while True:
            await self.poll()
            young = time.monotonic() - started < self._times.unknown_for
            pause = self._times.unknown if self.in_force is None and young else self._times.poll
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def wake(self) -> None:
        """Poll now and not when it is time."""
        self._wake.set()

    async def poll(self) -> None:
        """Ask for the status, and go as far as the platform lets."""
        actions: Mapping[State, Callable[[], Awaitable[Event]]] = {
            State.MISSING: self._acquire,
            State.OFFERED: self._save,
            State.STORED: self._attest,
        }
        self.polls += 1
        event = await self._ask()
        self._move(event)
        while event not in SETBACKS and self.state in actions:
            event = await actions[self.state]()
            self._move(event)
        if event is not Event.NO_STATUS and self.ready and self.in_force:
            self._applied(self.in_force)
            self.was_ready.set()

    def _move(self, event: Event) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, event]
        if event is not Event.NO_STATUS and self.ready:
            self.in_force = self.status
        self._told(Step(before, event, self.state, self.message))

    async def _ask(self) -> Event:
        try:
            self.status = status = await self._host.key_status()
        except HostTrouble as error:
            self.message = Form.KEY_STATUS.format(error=error)
            return Event.NO_STATUS
        if not status.wanted:
            self.message = Form.KEY_NOT_ENFORCED.value
            return Event.NOT_WANTED
        if status.guid is None:
            return Event.ABSENT
        if self.key and self.key.guid == status.guid:
            self.message = self._ready
            return Event.HELD
        return self._find(status.guid)

    def _find(self, guid: str) -> Event:
        try:
            found = self._folder.load(guid)
        except KeyUnusable as error:
            self.message = Form.KEY_NOT_CHECKED.format(guid=guid, error=error)
            return Event.ABSENT
        if found is None:
            return Event.ABSENT
        self._key = found
        self.message = self._ready = Form.KEY_FOUND.value
        return Event.FOUND

    async def _acquire(self) -> Event:
        self._key = None
        try:
            self._key = await self._host.acquire()
        except HostTrouble as error:
            self.message = _refusal(error, Form.KEY_REFUSED, Form.KEY_NOT_ACQUIRED)
            return Event.REFUSED
        return Event.ACQUIRED

    async def _save(self) -> Event:
        assert self._key
        try:
            self._folder.save(self._key)
        except KeyUnusable as error:
            self.message = Form.KEY_NOT_SAVED.format(error=error)
            return Event.NOT_SAVED
        return Event.SAVED

    async def _attest(self) -> Event:
        assert self._key
        try:
            await self._host.attest(self._key)
        except HostTrouble as error:
            self.message = _refusal(error, None, Form.KEY_NOT_ATTESTED)
            return Event.NOT_ATTESTED
        self.message = self._ready = Form.KEY_ATTESTED.value
        return Event.ATTESTED


def _refusal(error: HostTrouble, refused: Form | None, otherwise: Form) -> str:
    """The message for a step that failed: an answer other than 200 has a form of its own."""
    if not error.status:
        return otherwise.format(error=error)
    if refused:
        return refused.format(step=error.step, status=error.status)
    return otherwise.format(error=f'Key(KeyResponse("{error.step}", {error.status}))')
