"""kernel.*: which kernel boots, with which command line, and what its configuration gives the agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.image import kernels
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.object import agent_object
from harness.msp import codes, guide, image_codes
from harness.msp.codes import Code
from harness.report import Json, Outcome, Result

_FLOOR = (5, 15)
"""The guide's prerequisite; a fact beside the verdict, never the verdict."""


@dataclass(frozen=True)
class Option:
    """A configuration option: what it is for. enough: its values that do; lacking is FAIL with it, else WARN."""

    name: str
    needed_for: str
    code: Code | None = None
    lacking: Outcome = Outcome.FAIL
    enough: frozenset[str] = frozenset({"y"})


OPTIONS = (
    Option("BPF", "any eBPF program", image_codes.NO_BPF),
    Option("BPF_SYSCALL", "loading eBPF programs", image_codes.NO_BPF),
    Option("CGROUPS", "cgroup2", codes.NO_CGROUP2_IN_KERNEL),
    Option("CGROUP_BPF", "programs of type cgroup/connect4", codes.NO_PROGRAM_TYPE),
    Option("NET", "networking", image_codes.NO_BPF),
    Option("INET", "connections over IPv4", image_codes.NO_BPF),
    Option("KPROBES", "the agent's kprobe on tcp_connect", image_codes.NO_KPROBES),
    Option("PERF_EVENTS", "attaching that kprobe", image_codes.NO_KPROBES),
    Option("KPROBE_EVENTS", "attaching that kprobe", image_codes.NO_KPROBES),
    Option("BPF_EVENTS", "eBPF programs on kprobes", image_codes.NO_KPROBES),
    Option("BPF_JIT", "speed: programs are interpreted without it", None, Outcome.WARN),
)
"""What loading and attaching need, whichever object the agent has. Sources: Kconfig of kernel/bpf, init, net, trace."""


def _default(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    evidence: dict[str, Json] = {
        "release": found.default,
        "chosen by": found.chosen_by,
        "kernels": dict(found.releases),
        "modules": list(found.modules),
    }
    if not found.default:
        modules = f", though there are modules of {', '.join(found.modules)}" if found.modules else ""
        yield question.bad(f"there is no kernel in the image{modules}", evidence, code=image_codes.NO_SYSTEM)
    elif found.default not in found.modules and not _without_modules(image, found.default):
        summary = f"{found.default} boots ({found.chosen_by}), and there are no modules for it in /usr/lib/modules"
        yield question.bad(summary, evidence, "install the kernel's package of modules", image_codes.NO_AZURE_DRIVER)
    else:
        yield question.good(f"{found.default} boots: {found.chosen_by}", evidence)


def _floor(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        return
    version = _version(found.default)
    evidence: dict[str, Json] = {"release": found.default, "guide": "5.15"}
    if version >= _FLOOR:
        yield question.good(f"{found.default} is not older than the guide's 5.15", evidence)
    else:
        summary = (
            f"{found.default} is older than the guide's 5.15; a version decides nothing, since distributions take"
            " features back: --kernel loads and attaches on it"
        )
        yield question.doubt(summary, evidence, "`msp-harness image check --kernel IMAGE`, or a newer kernel",
                             codes.all_codes()["MSP-P318"])  # fmt: skip


def _version(release: str) -> tuple[int, ...]:
    words = release.replace("-", ".").split(".")[:2]
    return tuple(int(word) for word in words if word.isdecimal())


def _without_modules(image: Image, release: str) -> bool:
    """Whether the kernel is one that has everything built in."""
    config = kernels.config(image, release)
    return config is not None and config[1].get("CONFIG_MODULES") == "n"


_NO_LOADER = "a root file system without a boot loader: whoever boots it gives the command line"


def _line(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        return
    if found.line is None and not image.disk.is_disk:
        yield question.none(_NO_LOADER)
        return
    if found.line is None:
        reason = "the command line is not known: there is no menu, boot loader entry or unified kernel image with one"
        yield question.unknown(reason, remedy="install the boot loader; or boot it: --boot shows /proc/cmdline")
        return
    yield question.good(found.line or "empty", {"command line": found.line, "from": found.line_from})


def _console(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if found.line is None:
        return
    consoles = [value or "" for value in found.parameters("console")]
    evidence: dict[str, Json] = {"console": consoles}
    wanted = ("ttyS0", "ttyAMA0")
    if any(value.split(",")[0] in wanted for value in consoles):
        yield question.good(f"console={', '.join(consoles)}", evidence)
    else:
        remedy = "add console=ttyS0 to the command line: Azure's serial console shows nothing without it"
        yield question.doubt("no console=ttyS0 on the command line", evidence, remedy)


def _lockdown(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        return
    values = found.parameters("lockdown")
    config = kernels.config(image, found.default)
    forced = config is not None and config[1].get("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY") == "y"
    evidence: dict[str, Json] = {"lockdown": values[-1] if values else None, "forced by the configuration": forced}
    if forced or (values and values[-1] == "confidentiality"):
        by = "its configuration forces" if forced else "its command line has"
        yield question.bad(f"{by} lockdown=confidentiality", evidence, code=image_codes.LOCKDOWN)
    elif found.line is None and not image.disk.is_disk:
        yield question.none(_NO_LOADER, evidence)
    elif found.line is None or config is None:
        what = "the command line" if found.line is None else "the kernel's configuration"
        yield question.unknown(f"{what} is not known", evidence)
    else:
        yield question.good("no lockdown in confidentiality mode", evidence)


def _config(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        yield question.none("there is no kernel")
        return
    config = kernels.config(image, found.default)
    if config is None:
        reason = f"there is no configuration of {found.default} in /boot or /usr/lib/modules: only --kernel can tell"
        yield question.unknown(reason, remedy="`msp-harness image check --kernel IMAGE`")
        return
    path, values = config
    for option in OPTIONS:
        yield _option(question.case(option.name, f"CONFIG_{option.name}"), option, values.get(f"CONFIG_{option.name}"),
                      path)  # fmt: skip
    yield _btf(image, question.case("DEBUG_INFO_BTF", "CONFIG_DEBUG_INFO_BTF"), values, path)


def _option(question: Question, option: Option, value: str | None, path: str) -> Result:
    evidence: dict[str, Json] = {"file": path, "value": value or "not there"}
    if value in option.enough:
        return question.good(f"{value}: {option.needed_for}", evidence)
    summary = f"{'off' if value == 'n' else value or 'not there'}, and needed for {option.needed_for}"
    if option.lacking is Outcome.WARN:
        return question.doubt(f"off: {option.needed_for}", evidence, f"use a kernel with CONFIG_{option.name}=y")
    return question.bad(summary, evidence, code=option.code)


def _btf(image: Image, question: Question, values: object, path: str) -> Result:
    value = values.get("CONFIG_DEBUG_INFO_BTF") if isinstance(values, dict) else None
    evidence: dict[str, Json] = {"file": path, "value": value or "not there"}
    if value == "y":
        return question.good("y: BTF of the kernel, for CO-RE objects", evidence)
    found = agent_object(image)
    if found is None or found.contents is None:
        summary = "off: an agent's object with CO-RE relocations (July 2026 on) does not load; its object was not read"
        return question.doubt(summary, evidence, code=image_codes.NO_BTF)
    if found.relocations:
        summary = f"off, and {found.path} has {found.relocations} CO-RE relocations"
        return question.bad(summary, evidence, code=image_codes.NO_BTF)
    summary = f"off; {found.path} has no CO-RE relocations, but those of agents from July 2026 on have"
    return question.doubt(summary, evidence, code=image_codes.NO_BTF)


ASKED = (
    (Question("kernel.default", "The kernel that boots", guide.SERVICE_LINUX), _default),
    (Question("kernel.floor", "The guide's oldest kernel", guide.SERVICE_LINUX), _floor),
    (Question("kernel.command-line", "Command line"), _line),
    (Question("kernel.console", "Serial console"), _console),
    (Question("kernel.lockdown", "Lockdown", guide.EBPF_FAILED), _lockdown),
    (Question("kernel.config", "Kernel configuration", guide.SERVICE_LINUX), _config),
)


def kernel(image: Image) -> Iterator[Result]:
    """What boots and what it can do."""
    yield from answers(image, ASKED)
