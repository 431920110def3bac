"""The report of a machine's health that its provisioning sends: POST /machine?comp=health to WireServer.

cloud-init 20.4 to 26.2 send the same XML (their sources, read and received): Ready; or NotReady with a SubStatus and a
Description. Before 23.2 the description is a sentence, from then on a line of csv, `|` between fields and ' as the
quote: result=error|reason=…|agent=Cloud-Init/25.1.4|…. What a guest sends is a stranger's: no entities, bounded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

READY, NOT_READY = "Ready", "NotReady"
LARGEST = 64 * 1024  # characters; a real one has some 1,500
_FIELDS = 64
_LINE = re.compile(r"result=\w{1,32}\|.*", re.DOTALL)


class Unreadable(ValueError):
    """A report that is none, with the reason."""


@dataclass(frozen=True)
class HealthReport:
    """state: Ready, NotReady, or whatever stood there. fields: of the csv line in description, where there is one."""

    state: str
    substatus: str = ""
    description: str = ""
    container: str = ""
    instance: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state == READY

    @property
    def reason(self) -> str:
        """Why not ready: the csv line's reason, else the whole sentence."""
        return self.fields.get("reason") or self.description

    @property
    def agent(self) -> str:
        """Cloud-Init/25.1.4; empty where the report does not say."""
        return self.fields.get("agent", "")


def parse(body: str) -> HealthReport:
    """Raises Unreadable."""
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    if len(body) > LARGEST:
        raise Unreadable(f"more than {LARGEST} characters")
    try:
        tree = ElementTree.fromstring(body.strip().encode("utf-8", "replace"), forbid_dtd=True)
    except (DefusedXmlException, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise Unreadable(f"no XML: {type(error).__name__}: {error}"[:200]) from error
    texts: dict[str, str] = {}
    for element in tree.iter():
        name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        text = (element.text or "").strip()
        if text:
            texts.setdefault(name, text)
    if tree.tag.rpartition("}")[2] != "Health" or "State" not in texts:
        raise Unreadable("XML without a Health that has a State")
    description = texts.get("Description", "")
    return HealthReport(
        texts["State"],
        texts.get("SubStatus", ""),
        description,
        texts.get("ContainerId", ""),
        texts.get("InstanceId", ""),
        fields_of(description),
    )


def fields_of(description: str) -> dict[str, str]:
    """The fields of a description that is a csv line; none for another. A line that was cut has what it has."""
    match = _LINE.search(description)
    if match is None:
        return {}
    line = match[0]
    try:
        row = [cell for row in csv.reader(io.StringIO(line, newline=""), delimiter="|", quotechar="'") for cell in row]
    except csv.Error:
        row = line.split("|")
    pairs = (text.partition("=") for text in row[:_FIELDS])
    found: dict[str, str] = {}
    for name, equals, value in pairs:
        if equals:
            found.setdefault(name.strip(), value.strip())
    return found
