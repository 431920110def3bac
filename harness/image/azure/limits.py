"""How long a boot may take: by what boots here took, and by this boot's own pace.

Two waits. Until the guest asks for an address: a multiple of what that took in the last boots by this accelerator. From
then on: the agent has 120 s (cloud-init waits so long for it), and the rest is a multiple of this boot's own pace.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from harness.vm import cache
from harness.vm.limits import Limit

_KEPT = 8  # the last boots
_UNMEASURED = 30.0  # seconds to the first DHCP message: emulated, on a busy machine
_FACTOR = 10  # an unknown distribution does more in its initramfs than the last one did
_LEAST = 120.0
AGENT = 120.0
"""`azure-proxy-agent --status --wait 120`."""

_PACE = 8  # times as long as it took until the address
_LEAST_REPORT = 120.0
SETTLE = 20.0
"""Seconds that are watched after a report, for what comes behind it: a key that is late, another report."""


REFUSED = 60.0
"""Seconds of refusals after which nothing else is to be expected: cloud-init tries again for 20 minutes, in vain."""


def silent(accelerator: str) -> Limit:
    """Until the guest asks for an address."""
    found = measured(accelerator)
    if not found:
        return Limit(max(_FACTOR * _UNMEASURED, _LEAST), "no boot was measured here")
    slowest = max(found)
    origin = f"{_FACTOR} × the slowest of the last boots to its DHCP message, {slowest:.0f} s"
    return Limit(max(_FACTOR * slowest, _LEAST), origin)


def whole(leased_at: float) -> Limit:
    """From power on to the report, once an address was asked for at leased_at."""
    rest = max(_PACE * leased_at, _LEAST_REPORT)
    origin = f"{leased_at:.0f} s to its address, {AGENT:.0f} s for the agent, {rest:.0f} s by its pace"
    return Limit(leased_at + AGENT + rest, origin)


LEASE, WHOLE = "azure", "azure-whole"
"""What is measured of a boot: until the guest asks for an address; all of it, until it is off and was looked into."""


def expected(accelerator: str) -> float:
    """Seconds that all of a boot takes, by the last ones; 0 where none was measured here."""
    found = sorted(measured(accelerator, WHOLE))
    return found[len(found) // 2] if found else 0.0


def measured(accelerator: str, what: str = LEASE) -> list[float]:
    place = _place(accelerator, what)
    with suppress(OSError, ValueError, TypeError):
        return [float(seconds) for seconds in json.loads(place.read_text()) if 0 < float(seconds) < 3600]
    return []


def remember(accelerator: str, seconds: float, what: str = LEASE) -> None:
    """Losing one, on a full disk or to another process, does no harm."""
    place = _place(accelerator, what)
    work = place.with_name(f".{place.name}.new")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        work.write_text(json.dumps([*measured(accelerator, what), round(seconds, 3)][-_KEPT:]))
        work.replace(place)


def _place(accelerator: str, what: str) -> Path:
    return cache.directory() / "boots" / f"{what}-{accelerator}.json"
