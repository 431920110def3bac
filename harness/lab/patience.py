"""How slow the machine is: every wait of the lab is so many times as long as on one that runs its code itself.

A guest whose processor is emulated sets MSP_HARNESS_SLOWNESS (harness.vm.initramfs): there, and with other guests on
the same cores, a client that is only slow would look like one that was not answered.
"""

from __future__ import annotations

import os

SLOWNESS = max(1.0, float(os.environ.get("MSP_HARNESS_SLOWNESS", "1")))
