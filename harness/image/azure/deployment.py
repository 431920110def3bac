"""What a deployment gives a virtual machine: names, an account, its address, and whether MSP is on."""

from __future__ import annotations

from dataclasses import dataclass

ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
"""DMI's chassis asset tag, by which cloud-init knows Azure (shared/facts/agent.md)."""


@dataclass(frozen=True)
class Deployment:
    """The addresses are those of the lab's network and of its IMDS, which tells them as well."""

    msp: bool = True  # ProvisionGuestProxyAgent of the provisioning disk, and the secure channel of the fabric
    hostname: str = "msp-lab"
    user: str = "azureuser"
    vm_id: str = "02aab8a4-74ef-476e-8182-f6d2ba4166a6"
    mac: str = "00:0d:3a:00:00:01"
    address: str = "10.0.0.4"
    prefix: int = 24
    gateway: str = "10.0.0.1"
