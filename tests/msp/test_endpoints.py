from __future__ import annotations

import ipaddress

from harness.msp.endpoints import ENDPOINTS, HOSTGAPLUGIN, IMDS, PROXY, WIRESERVER, endpoint_at


def test_an_endpoint_is_found_by_address_and_port_together() -> None:
    assert endpoint_at("168.63.129.16", 80) is WIRESERVER
    assert endpoint_at("168.63.129.16", 32526) is HOSTGAPLUGIN
    assert endpoint_at("169.254.169.254", 80) is IMDS
    assert endpoint_at("169.254.169.254", 32526) is None
    assert endpoint_at(*PROXY) is None


def test_endpoints_are_distinct_and_well_formed() -> None:
    assert len({endpoint.name for endpoint in ENDPOINTS}) == len(ENDPOINTS) == 3
    assert [endpoint.name for endpoint in ENDPOINTS if not endpoint.root_only] == ["imds"]
    for endpoint in ENDPOINTS:
        assert ipaddress.IPv4Address(endpoint.address).is_loopback is False
        assert endpoint.protocol == 6
