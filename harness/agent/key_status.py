"""The platform's key status: read, validated, and what it means for each endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.agent.key_folder import GUID
from harness.agent.rules import InvalidRules, Item, Mode, parse_item
from harness.msp import signature

DISABLED = "disabled"
UNKNOWN = "Unknown"

ITEMS = {"wireserver": "wireserver", "imds": "imds", "hostgaplugin": "hostga"}
"""The member of authorizationRules for each endpoint's name."""

_STATES = {"disabled": (), "wireserver": ("wireserver", "hostgaplugin"), "wireserverandimds": tuple(ITEMS)}
"""What each secureChannelState of version 1.0 enforces, the states in lower case."""


class InvalidStatus(ValueError):
    """A status that does not validate; str() says which member."""


@dataclass(frozen=True)
class KeyStatus:
    """What a status says. items has every endpoint's rules by its name; state is the agent's word for them."""

    version: str
    guid: str | None
    incarnation: int | None
    state: str
    items: Mapping[str, Item] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        """Whether a key is wanted at all."""
        return self.state != DISABLED


def parse(body: bytes) -> KeyStatus:
    """Read the body of an answer to a poll. Raises InvalidStatus."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidStatus("the body is not JSON") from None
    if not isinstance(data, Mapping):
        raise InvalidStatus("the body is not a JSON object")
    if data.get("authorizationScheme") != signature.SCHEME:
        raise InvalidStatus(f"authorizationScheme must be '{signature.SCHEME}'")
    if data.get("keyDeliveryMethod") not in ("http", "vtpm"):
        raise InvalidStatus("keyDeliveryMethod must be 'http' or 'vtpm'")
    guid, incarnation = _guid(data.get("keyGuid")), _incarnation(data.get("keyIncarnationId"))
    version = data.get("version")
    if version == "1.0":
        return _version_1(data, guid, incarnation)
    if version == "2.0":
        return _version_2(data, guid, incarnation)
    raise InvalidStatus("version must be '1.0' or '2.0'")


def _guid(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not GUID.fullmatch(value):
        raise InvalidStatus("keyGuid is not a guid")
    return value


def _incarnation(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise InvalidStatus("keyIncarnationId is not a u32")
    return value


def _version_1(data: Mapping[str, Any], guid: str | None, incarnation: int | None) -> KeyStatus:
    state = data.get("secureChannelState")
    if not isinstance(state, str) or state.lower() not in _STATES:
        raise InvalidStatus("secureChannelState must be Disabled, Wireserver or WireserverAndImds")
    enforced = _STATES[state.lower()]
    items = {name: Item(Mode.ENFORCE if name in enforced else Mode.DISABLED) for name in ITEMS}
    return KeyStatus("1.0", guid, incarnation, state.lower(), items)


def _version_2(data: Mapping[str, Any], guid: str | None, incarnation: int | None) -> KeyStatus:
    enabled = data.get("secureChannelEnabled")
    if not isinstance(enabled, bool):
        raise InvalidStatus("secureChannelEnabled must be true or false")
    rules = data.get("authorizationRules") or {}
    if not isinstance(rules, Mapping):
        raise InvalidStatus("authorizationRules is not an object")
    items = {name: _item(rules, member) for name, member in ITEMS.items()}
    if rules.get("hostga") is None:
        items["hostgaplugin"] = items["wireserver"]
    if not enabled:
        return KeyStatus("2.0", guid, incarnation, DISABLED, {name: Item() for name in ITEMS})
    modes = {name: item.mode.capitalize() for name, item in items.items()}
    # two blanks before IMDS: that is how the agent writes it
    state = f"WireServer {modes['wireserver']} -  IMDS {modes['imds']} - HostGA {modes['hostgaplugin']}"
    return KeyStatus("2.0", guid, incarnation, state, items)


def _item(rules: Mapping[str, Any], member: str) -> Item:
    if rules.get(member) is None:
        return Item()
    try:
        return parse_item(rules[member], f"authorizationRules.{member}")
    except InvalidRules as error:
        raise InvalidStatus(str(error)) from error
