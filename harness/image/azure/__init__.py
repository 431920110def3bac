"""A virtual machine's surroundings on Azure, to boot an image in: firmware, provisioning disk, network, platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.image.image import Image
    from harness.report import Result


def boot(
    source: str,
    image: Image,
    results: Sequence[Result] = (),
    *,
    provision: bool = True,
    repeat: int = 1,
    seconds: float = 0.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Result]:
    """Boot an image in Azure's surroundings with MSP on; it is never written to.

    provision: compare what its provisioning reports with the guide's table and with the prediction among results.
    repeat: boots in all, for the race. seconds: the limit of a boot, 0 for the measured one.
    """
    from harness.image.azure import check

    return check.boot(source, image, results, provision=provision, repeat=repeat, seconds=seconds, tell=tell)
