"""cgroup.*: the layout that systemd will mount, and where the agent will find cgroup2 in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.diagnose import bootloader
from harness.image import agent_files, kernels, reading
from harness.image.cgroup_layout import UNIFIED, YES, Layout, layout, os_release
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.kernels import Kernels
from harness.msp import codes, guide
from harness.report import Json, Result

ROOT = "/sys/fs/cgroup"
_MOUNTED = {"unified": ROOT, "hybrid": f"{ROOT}/unified"}
"""Where systemd mounts cgroup2, by layout."""
_FINDMNT = ("/usr/bin/findmnt", "/bin/findmnt", "/usr/sbin/findmnt", "/usr/local/bin/findmnt")


@dataclass(frozen=True)
class Attach:
    """Where the agent will attach: by findmnt (util-linux) first, else its configuration's cgroupRoot."""

    target: str
    by: str
    findmnt: str | None
    mounted: str  # where cgroup2 is; nothing where nobody mounts it

    @property
    def works(self) -> bool:
        return bool(self.mounted) and self.target == self.mounted


def attach(image: Image, found: Layout) -> Attach:
    """Where the agent attaches in this layout. Raises Unread."""
    of_fstab = [where for _, where, kind, _ in reading.mounts(image) if kind == "cgroup2"]
    mounted = _MOUNTED.get(found.kind, of_fstab[0] if of_fstab else "")
    findmnt = next((path for path in _FINDMNT if reading.exists(image, path)), None)
    root = agent_files.config(image).text("cgroupRoot", ROOT).rstrip("/")
    if findmnt and mounted:
        return Attach(mounted, "findmnt -t cgroup2", findmnt, mounted)
    reason = "findmnt finds no cgroup2" if findmnt else "there is no findmnt"
    return Attach(root, f"cgroupRoot, since {reason}", findmnt, mounted)


def _layout(image: Image, question: Question) -> Iterator[Result]:
    own = kernels.kernels(image)
    found = layout(image, own)
    evidence: dict[str, Json] = {"layout": found.kind or None, "why": found.why, "systemd": found.version or None}
    if not found.kind:
        yield question.unknown(f"the layout is not known: {found.why}", evidence,
                               "boot it: `msp-harness image check --boot IMAGE`")  # fmt: skip
        return
    if found.kind == "refused":
        remedy = "take systemd.unified_cgroup_hierarchy=0 out of the command line"
        yield question.bad(f"the image does not start: {found.why}", evidence, remedy, codes.NO_CGROUP2_MOUNTED)
        return
    where = attach(image, found)
    evidence["cgroup2 mounted at"] = where.mounted or None
    evidence["the agent attaches to"] = f"{where.target} ({where.by})"
    yield _judged(question, found, where, evidence, _remedy(image, own))


def _remedy(image: Image, own: Kernels) -> str:
    """What makes the next boot mount cgroup2 at /sys/fs/cgroup, by the commands of the image's distribution."""
    values = own.parameters(UNIFIED)
    if values and (values[-1] or "1").lower() not in YES:
        return f"take {UNIFIED}={values[-1]} out of the command line, where it was put in"
    release = os_release(image)
    words = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    family = next((row for word in words for row in bootloader.FAMILIES if word in row.ids), None)
    if family is None:
        return f"add {bootloader.WORD} to the kernel's command line"
    return f"in the image: `{'` and `'.join(family.commands)}`"


def _judged(question: Question, found: Layout, where: Attach, evidence: dict[str, Json], remedy: str) -> Result:
    if found.kind == "legacy" and not where.mounted:
        summary = f"cgroup v1 alone ({found.why}): nothing mounts cgroup2, so the agent has nothing to attach to"
        return question.bad(summary, evidence, remedy, codes.NO_CGROUP2_MOUNTED)
    if found.kind == "unified" and found.sure:
        return question.good(f"v2: cgroup2 on {ROOT} ({found.why})", evidence)
    if found.kind == "unified":
        return question.doubt(f"v2 is expected, and was not read: {found.why}", evidence, remedy)
    name = "hybrid" if found.kind == "hybrid" else "v1, and cgroup2 by /etc/fstab"
    if where.works:
        summary = (
            f"{name} ({found.why}): cgroup2 is on {where.mounted}, where the agent finds it by {where.by}; the guide"
            " wants it mounted by default"
        )
        return question.doubt(summary, evidence, remedy, codes.CGROUP2_ELSEWHERE)
    summary = f"{name} ({found.why}): the agent opens {where.target} ({where.by}), and cgroup2 is on {where.mounted}"
    return question.bad(summary, evidence, remedy, codes.CGROUP2_ELSEWHERE)


def _findmnt(image: Image, question: Question) -> Iterator[Result]:
    """By which of its two ways the agent finds cgroup2; a wrong cgroupRoot is only seen where findmnt is missing."""
    found = layout(image, kernels.kernels(image))
    if found.kind != "unified":
        return
    where = attach(image, found)
    evidence: dict[str, Json] = {"findmnt": where.findmnt, "target": where.target}
    if where.works:
        yield question.good(f"{where.target}, by {where.by}", evidence)
    else:
        summary = f"the agent opens {where.target} ({where.by}), and cgroup2 is on {where.mounted}"
        yield question.bad(summary, evidence, "set cgroupRoot to /sys/fs/cgroup, or install util-linux",
                           codes.CGROUP_NOT_OPENED)  # fmt: skip


ASKED = (
    (Question("cgroup.layout", "cgroup layout", guide.ATTACH_FAILED), _layout),
    (Question("cgroup.target", "Where the agent attaches", guide.ATTACH_FAILED), _findmnt),
)


def cgroup(image: Image) -> Iterator[Result]:
    """v2, hybrid or v1, by what decides it."""
    yield from answers(image, ASKED)
