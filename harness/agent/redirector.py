"""The reference agent's eBPF part: load, skip itself, attach, and keep policy_map as the platform's modes say.

Order, tries and texts are those of shared/facts/agent.md; the program is ours (bpf/connect4.c), from an image that
was compiled before or compiled here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from harness.agent.config import Config
from harness.agent.rules import Item, Mode
from harness.command import run
from harness.errors import HarnessError
from harness.kernel import cgroups, features
from harness.kernel.bpf import BpfError
from harness.msp.messages import Form
from harness.program import compile as compiler
from harness.program import maps
from harness.program.attach import Way, attach
from harness.program.image import Image
from harness.program.load import Loaded, load

TRIES = 5
BETWEEN = 0.01  # seconds


class NotStarted(Exception):
    """The redirector cannot be started; form and fields are the agent's message."""

    def __init__(self, form: Form, **fields: str):
        super().__init__(form.format_map(fields))
        self.form = form
        self.fields = fields


def cgroup_root(configured: Path) -> Path:
    """Where the agent attaches: the first cgroup2 mount that findmnt gives, else the configured root."""
    try:
        done = run(["findmnt", "-t", "cgroup2", "--json"], timeout=10, check=False)
        target = json.loads(done.stdout)["filesystems"][0]["target"]
    except (HarnessError, ValueError, LookupError, TypeError):
        return configured
    return Path(target) if isinstance(target, str) else configured


class Redirector:
    """Nothing is loaded before start(), and nothing after stop()."""

    def __init__(self, config: Config):
        self._config = config
        self._stack = ExitStack()
        self._loaded: Loaded | None = None
        self.root = config.cgroup_root

    @property
    def started(self) -> bool:
        return self._loaded is not None

    async def start(self, failed: Callable[[NotStarted], None]) -> bool:
        """Five tries; failed is called with what each ran into. Whether it is attached now."""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(BETWEEN)
            try:
                self._start()
                return True
            except NotStarted as trouble:
                failed(trouble)
        return False

    def stop(self) -> None:
        self._loaded = None
        self._stack.close()

    def audit(self, source_port: int) -> maps.AuditRecord | None:
        """What is written down for a client's source port. Raises OSError."""
        if self._loaded is None:
            return None
        try:
            return maps.audit_record(self._loaded.maps["audit_map"], source_port)
        except HarnessError as error:
            raise OSError(error.errno, str(error)) from error

    def apply(self, items: Mapping[str, Item]) -> list[str]:
        """Have policy_map redirect the endpoints whose mode is not disabled, and those only; what was changed.

        Raises NotStarted where the kernel refuses an entry.
        """
        if self._loaded is None:
            return []
        policy = self._loaded.maps["policy_map"]
        held = {wanted for wanted, _ in maps.policies(policy)}
        instead = maps.Destination("127.0.0.1", self._config.port)
        changed = []
        for endpoint in self._config.endpoints:
            wanted = maps.Destination(endpoint.address, endpoint.port, endpoint.protocol)
            on = endpoint.name in items and items[endpoint.name].mode is not Mode.DISABLED
            on = on and (self._config.host_ga_plugin or endpoint.name != "hostgaplugin")
            if on and wanted not in held:
                self._put("policy_map", str(wanted), partial(maps.set_policy, policy, wanted, instead))
                changed.append(f"{endpoint.name} is redirected")
            elif not on and wanted in held:
                maps.clear_policy(policy, wanted)
                changed.append(f"{endpoint.name} is no longer redirected")
        return changed

    def _start(self) -> None:
        image = self._image()
        self.root = cgroup_root(self._config.cgroup_root)
        with ExitStack() as stack:
            loaded = self._load(stack, image)
            pid = os.getpid()
            self._put("skip_process_map", f"pid {pid}", partial(maps.skip, loaded.maps["skip_process_map"], pid))
            self._attach(stack, loaded)
            self._stack = stack.pop_all()
            self._loaded = loaded

    def _image(self) -> Image:
        path = self._config.image
        try:
            if path is None:
                return compiler.compile_source(compiler.redirector())
            return Image.parse(path.read_text())
        except HarnessError as error:
            raise NotStarted(Form.LOAD_OBJECT, path=str(path or "bpf/connect4.c"), error=str(error)) from error
        except OSError as error:
            raise NotStarted(Form.LOAD_OBJECT, path=str(path), error=_io_error(error.errno or 0)) from error
        except UnicodeDecodeError as error:
            raise NotStarted(Form.LOAD_OBJECT, path=str(path), error=f"it is no image: {error}") from error

    def _load(self, stack: ExitStack, image: Image) -> Loaded:
        try:
            return stack.enter_context(load(image))
        except BpfError as error:
            for program in image.programs:
                if error.attempted.startswith(f"load {program.name} "):
                    raise NotStarted(Form.LOAD, name=program.name, log=error.log.rstrip("\n")) from error
            said = f"map error: failed to create map with code -{error.errno}: {_io_error(error.errno)}"
            raise NotStarted(Form.LOAD_OBJECT, path=str(self._config.image), error=said) from error

    def _attach(self, stack: ExitStack, loaded: Loaded) -> None:
        way = Way.LINK if _has_links() else Way.SINGLE
        try:
            stack.enter_context(attach(loaded, self.root, way))
        except BpfError as error:
            if way is Way.LINK:
                raise NotStarted(Form.ATTACH_LINK, name="connect4") from error
            said = f"`bpf_prog_attach` failed: {_io_error(error.errno)}"
            raise NotStarted(Form.ATTACH_OTHER, name="connect4", error=said) from error
        except HarnessError as error:
            if error.attempted.startswith("open cgroup"):
                raise NotStarted(Form.OPEN_CGROUP, path=str(self.root), error=_io_error(error.errno)) from error
            raise NotStarted(Form.ATTACH_OTHER, name="tcp_v4_connect", error=str(error)) from error

    def _put(self, name: str, what: str, update: Callable[[], None]) -> None:
        try:
            update()
        except BpfError as error:
            said = f"the `bpf_map_update_elem` syscall failed: {_io_error(error.errno)}"
            raise NotStarted(Form.UPDATE_MAP, map=name, what=what, error=said) from error


def _io_error(number: int) -> str:
    """`No such file or directory (os error 2)`: as the agent's library writes an errno."""
    return f"{os.strerror(number)} (os error {number})"


def _has_links() -> bool:
    row = next(feature for feature in features.FEATURES if feature.name == "bpf-link")
    return row.probe().answer is not features.Answer.NO


def layout_text() -> str:
    """How cgroups are mounted here, for the log."""
    found = cgroups.layout()
    return (
        f"{found.name} cgroup layout, cgroup2 at {', '.join(str(mount.point) for mount in found.cgroup2) or 'no place'}"
    )
