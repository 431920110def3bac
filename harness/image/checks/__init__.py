"""What an image is asked, from the disk inwards: each check a function of the Image, all in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.image.checks import (
    agent,
    agent_object,
    agent_unit,
    cgroup,
    cloud_init,
    confinement,
    disk,
    generalised,
    kernel,
    leftovers,
    modules,
    system,
    waagent,
)
from harness.image.image import Image
from harness.report import Outcome, Result

Check = Callable[[Image], Iterator[Result]]

OF_THE_SYSTEM: Sequence[tuple[str, Check]] = (
    ("kernel", kernel.kernel),
    ("cgroup", cgroup.cgroup),
    ("modules", modules.drivers),
    ("agent", agent.agent),
    ("agent.object", agent_object.objects),
    ("agent.unit", agent_unit.unit),
    ("agent.confinement", confinement.confinement),
    ("cloud-init", cloud_init.cloud),
    ("waagent", waagent.waagent),
    ("leftovers", leftovers.leftovers),
    ("generalised", generalised.generalised),
)
"""By the beginning of the ids of their Results; without a system there is nothing to ask them about."""

CHECKS: Sequence[tuple[str, Check]] = (("disk", disk.disk), ("system", system.system), *OF_THE_SYSTEM)


def check(image: Image) -> Iterator[Result]:
    """Every check's Results, in the order of the table. One that raises gives an ERROR and ends nothing."""
    linux = system.present(image) and image.system.get("type", "linux") == "linux"
    for name, one in CHECKS:
        if (name, one) in OF_THE_SYSTEM and not linux:
            reason = "there is no Linux system in the image to look at"
            yield Result(f"{name}.asked", "Looked into", Outcome.SKIP, reason)
            continue
        try:
            yield from one(image)
        except Exception as error:  # what a stranger's image does to one check must not silence the others
            summary = f"the check itself failed: {type(error).__name__}: {error}"[:500]
            remedy = "report it with the image's list of what was found"
            yield Result(f"{name}.asked", "Looked into", Outcome.ERROR, summary, remedy=remedy)
