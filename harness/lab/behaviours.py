"""How clients behave: one function a behaviour."""

from __future__ import annotations

from harness.lab import clients

BEHAVIOURS: dict[str, clients.Behaviour] = {"connect": clients.connect}
