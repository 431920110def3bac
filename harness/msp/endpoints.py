"""The endpoints that MSP protects and the proxy that answers in their stead.

Source of every constant: "Endpoints and the listener" of shared/facts/agent.md; the addresses are also Microsoft's
published ones (IMDS: aka.ms/azureimds; WireServer: "What is IP address 168.63.129.16?").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """One service of the platform, as a VM sees it.

    address is dotted IPv4, port a host-order number, protocol a number of IANA's list (6 is TCP). root_only is
    the default rule of the agent: nobody but root may use it.
    """

    name: str
    address: str
    port: int
    protocol: int
    root_only: bool
    title: str


TCP = 6

IMDS = Endpoint("imds", "169.254.169.254", 80, TCP, root_only=False, title="IMDS")
WIRESERVER = Endpoint("wireserver", "168.63.129.16", 80, TCP, root_only=True, title="WireServer")
HOSTGAPLUGIN = Endpoint("hostgaplugin", "168.63.129.16", 32526, TCP, root_only=True, title="HostGAPlugin")

ENDPOINTS = (IMDS, WIRESERVER, HOSTGAPLUGIN)

PROXY = ("127.0.0.1", 3080)
"""Where the agent listens: dotted address and host-order port."""


def endpoint_at(address: str, port: int) -> Endpoint | None:
    """The endpoint at a dotted address and a host-order port; None where there is none."""
    return next((endpoint for endpoint in ENDPOINTS if (endpoint.address, endpoint.port) == (address, port)), None)
