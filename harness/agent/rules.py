"""The platform's authorization rules for one endpoint: read from a status, and decided for a request.

A privilege is a path prefix and query parameters; a role is a list of privileges; an identity is a user, a group, an
executable's path and a process's name, of which all that are given must match; an assignment gives roles to
identities. Where a privilege fits a request, only its identities may; where none does, defaultAccess decides.
Paths and query parameters are compared without regard to case, as the endpoints do; users, groups and processes as
they are.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.agent.claims import Claims

_MOST = 10_000  # rows of one kind; a status with more is refused


class Mode(StrEnum):
    """disabled: not redirected, everything allowed; audit: told and allowed; enforce: refused."""

    DISABLED = "disabled"
    AUDIT = "audit"
    ENFORCE = "enforce"


class InvalidRules(ValueError):
    """An authorization item that is not of the protocol's form; str() says where."""


@dataclass(frozen=True)
class Privilege:
    name: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)

    def fits(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether it covers a request, whose path and parameters are decoded and in lower case."""
        if not path.startswith(self.path.lower()):
            return False
        return all(query.get(name.lower()) == value.lower() for name, value in self.query.items())


@dataclass(frozen=True)
class Identity:
    """None stands for any."""

    name: str
    user: str | None = None
    group: str | None = None
    exe_path: str | None = None
    process: str | None = None

    def fits(self, claims: Claims) -> bool:
        return (
            self.user in (None, claims.user_name)
            and (self.group is None or self.group in claims.user_groups)
            and self.exe_path in (None, claims.process_path)
            and self.process in (None, claims.process_name)
        )


@dataclass(frozen=True)
class Grant:
    """A privilege, and who may use it."""

    privilege: Privilege
    identities: tuple[Identity, ...]


@dataclass(frozen=True)
class Decision:
    """Whether the rules allow a request; why, in words; default says that no privilege fitted."""

    allowed: bool
    why: str
    default: bool = False


@dataclass(frozen=True)
class Item:
    """The rules of one endpoint."""

    mode: Mode = Mode.DISABLED
    default_allow: bool = True
    id: str = ""
    grants: tuple[Grant, ...] = ()

    def decide(self, claims: Claims, target: str) -> Decision:
        """Whether somebody may make a request with this target (origin form), whatever the mode."""
        path, query = _taken_apart(target)
        fitting = [grant for grant in self.grants if grant.privilege.fits(path, query)]
        for grant in fitting:
            for identity in grant.identities:
                if identity.fits(claims):
                    return Decision(True, f"privilege {grant.privilege.name} is given to {identity.name}")
        if fitting:
            names = ", ".join(grant.privilege.name for grant in fitting)
            return Decision(False, f"privilege {names} is not given to user {claims.user_name or claims.user_id}")
        word = "allow" if self.default_allow else "deny"
        return Decision(self.default_allow, f"no privilege fits, and the default is {word}", default=True)


def _taken_apart(target: str) -> tuple[str, dict[str, str]]:
    path, _, search = target.partition("?")
    query: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(search, keep_blank_values=True):
        query.setdefault(name.lower(), value.lower())
    return urllib.parse.unquote(path).lower(), query


# --- reading ----------------------------------------------------------------------------------------------------


def parse_item(data: object, where: str) -> Item:
    """An item of authorizationRules; where names it in errors. Raises InvalidRules."""
    if not isinstance(data, Mapping):
        raise InvalidRules(f"{where} is not an object")
    mode = _text(data, "mode", where).lower()
    access = _text(data, "defaultAccess", where).lower()
    if mode not in list(Mode):
        raise InvalidRules(f"{where}.mode is {mode[:40]!r}, not disabled, audit or enforce")
    if access not in ("allow", "deny"):
        raise InvalidRules(f"{where}.defaultAccess is {access[:40]!r}, not allow or deny")
    identity = data.get("id")
    rules = data.get("rules")
    return Item(
        Mode(mode),
        access == "allow",
        identity if isinstance(identity, str) else "",
        () if rules is None else _grants(rules, f"{where}.rules"),
    )


def _grants(rules: object, where: str) -> tuple[Grant, ...]:
    if not isinstance(rules, Mapping):
        raise InvalidRules(f"{where} is not an object")
    privileges = {row.name: row for row in map(_privilege, *_rows(rules, "privileges", where))}
    identities = {row.name: row for row in map(_identity, *_rows(rules, "identities", where))}
    roles = {
        _text(row, "name", at): _names(row, "privileges", at)
        for row, at in zip(*_rows(rules, "roles", where), strict=True)
    }
    given: dict[str, dict[str, Identity]] = {name: {} for name in privileges}
    for row, at in zip(*_rows(rules, "roleAssignments", where), strict=True):
        for name in roles.get(_text(row, "role", at), ()):
            found = {who: identities[who] for who in _names(row, "identities", at) if who in identities}
            given.get(name, {}).update(found)
    return tuple(Grant(privileges[name], tuple(who.values())) for name, who in given.items())


def _rows(rules: Mapping[str, Any], name: str, where: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The rows of one kind and where each stands."""
    rows = rules.get(name) or []
    at = f"{where}.{name}"
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidRules(f"{at} is not a list of objects")
    if len(rows) > _MOST:
        raise InvalidRules(f"{at} has {len(rows)} rows, more than {_MOST}")
    return rows, [f"{at}[{index}]" for index in range(len(rows))]


def _privilege(row: Mapping[str, Any], where: str) -> Privilege:
    query = row.get("queryParameters") or {}
    if not isinstance(query, Mapping) or not all(isinstance(value, str) for value in query.values()):
        raise InvalidRules(f"{where}.queryParameters is not an object of strings")
    return Privilege(_text(row, "name", where), _text(row, "path", where), dict(query))


def _identity(row: Mapping[str, Any], where: str) -> Identity:
    found = {name: row.get(name) for name in ("userName", "groupName", "exePath", "processName")}
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            raise InvalidRules(f"{where}.{name} is not a string")
    return Identity(_text(row, "name", where), *found.values())


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise InvalidRules(f"{where}.{name} is not a string")
    return value


def _names(row: Mapping[str, Any], name: str, where: str) -> Sequence[str]:
    value = row.get(name) or []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidRules(f"{where}.{name} is not a list of strings")
    return value
