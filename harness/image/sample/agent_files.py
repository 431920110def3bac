"""An agent in a sample: the reference agent as a Debian package, or somebody's own package or directory.

The package lays its files out as the agent's does (shared/facts/agent.md). Its object is read by whoever looks at the
image; the program that the reference agent itself loads is the same one in its own form, `program.json`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness import __version__
from harness.agent import config as settings
from harness.command import run
from harness.errors import HarnessError
from harness.image.sample import base, object_file, runtime
from harness.program import compile as compiler
from harness.vm import cache

KIND = "sample-agents"

EXECUTABLE = "usr/sbin/azure-proxy-agent"
OBJECT = f"{runtime.HOME}/ebpf_cgroup.o"
PROGRAM = f"{runtime.HOME}/program.json"
CONFIG = "etc/azure/proxy-agent.json"
NAME = "azure-proxy-agent.service"
UNIT = f"usr/lib/systemd/system/{NAME}"
LOGS = "var/log/azure-proxy-agent"
KEYS = "var/lib/azure-proxy-agent/keys"

UNIT_TEXT = f"""\
[Unit]
Description=Guest Proxy Agent (the reference agent of msp-harness, for laboratories)
DefaultDependencies=no
After=systemd-remount-fs.service
RequiresMountsFor=/{LOGS} /{KEYS}
Before=network-pre.target
Wants=network-pre.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=simple
ExecStart=/{EXECUTABLE}
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
"""
_CONTROL = """\
Package: azure-proxy-agent
Version: {version}
Architecture: amd64
Maintainer: msp-harness <nobody@localhost>
Section: admin
Priority: optional
Description: the reference agent of msp-harness, laid out as the Guest Proxy Agent
 For laboratories, and no replacement for Microsoft's.
"""
_POSTINST = f'#!/bin/sh\nset -e\n[ "$1" != configure ] || systemctl enable {NAME}\n'
_NO_START = "#!/bin/sh\nexit 101\n"
_SECONDS = 300


def reference(tell: Callable[[str], None] = lambda line: None) -> Path:
    """The reference agent's package; made once for what it is made of, and kept. Raises HarnessError."""
    own = [Path(__file__), Path(runtime.__file__), Path(object_file.__file__), *runtime.sources()]
    digest = hashlib.sha256(compiler.redirector(join=compiler.Join.KPROBE).digest.encode())
    for path in own:
        digest.update(path.name.encode() + path.read_bytes())

    def make(place: Path) -> None:
        tell("making the reference agent's package")
        _make(place, tell)

    return cache.kept(KIND, digest.hexdigest()[:16], make) / "azure-proxy-agent.deb"


def _make(place: Path, tell: Callable[[str], None]) -> None:
    root = place / "root"
    root.mkdir()
    runtime.lay_out(root, tell)
    image = compiler.compile_source(compiler.redirector(join=compiler.Join.KPROBE))
    (root / OBJECT).write_bytes(object_file.build(image))
    content = {CONFIG: configuration(), PROGRAM: image.dump(), UNIT: UNIT_TEXT}
    base.write(root, content | {"DEBIAN/control": _CONTROL.format(version=__version__)})
    base.write(root, {EXECUTABLE: runtime.LAUNCHER, "DEBIAN/postinst": _POSTINST}, 0o755)
    for name in (LOGS, KEYS):
        (root / name).mkdir(mode=0o755, parents=True)
    (root / KEYS).chmod(0o700)
    run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, place / "azure-proxy-agent.deb"], timeout=_SECONDS)
    shutil.rmtree(root)


def configuration(provision: float = settings.Times.provision) -> str:
    """The agent's configuration; provision: seconds until it gives provisioning up. Times are else the agent's own."""
    times = replace(settings.Times(), provision=provision)
    document = settings.document(settings.Config(times=times, image=Path("/", PROGRAM)))
    del document["lab"]["nonce"]  # each start has its own
    return json.dumps(document, indent=2) + "\n"


def install(root: Path, agent: Path) -> None:
    """Put somebody's agent into a root: a .deb by the root's own dpkg, a directory as it stands.

    Raises HarnessError when it is neither, or dpkg refuses it.
    """
    attempted = f"put the agent {agent} into a sample"
    if agent.is_dir():
        run(["cp", "-a", "--no-preserve=ownership", f"{agent}/.", root], timeout=_SECONDS)
    elif agent.suffix == ".deb" and agent.is_file():
        _dpkg(root, agent)
    else:
        happened = "it is neither a directory nor a .deb" if agent.exists() else "there is no such file"
        raise HarnessError(attempted, happened, "give a .deb, or a directory whose files are laid over the root")


def _dpkg(root: Path, package: Path) -> None:
    """What its scripts start ends with them, and no service is started: this is no running system."""
    name, policy = "agent.deb", root / "usr/sbin/policy-rc.d"
    shutil.copyfile(package, root / name)
    policy.write_text(_NO_START)
    policy.chmod(0o755)
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    try:
        run([*alone, "chroot", root, "dpkg", "-i", f"/{name}"], timeout=_SECONDS)
    finally:
        (root / name).unlink()
        policy.unlink()
