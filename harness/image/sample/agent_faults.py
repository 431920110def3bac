"""Faults of the agent in a sample, and what an earlier machine left of one."""

from __future__ import annotations

import json
from dataclasses import replace

from harness.agent.key_folder import Key, KeyFolder
from harness.image.sample import agent_files, object_file, runtime
from harness.image.sample.site import Site
from harness.program import compile as compiler
from harness.program.image import Image

_UNIT_OF_ADMIN = f"etc/systemd/system/{agent_files.NAME}"
_WANTS = "etc/systemd/system/multi-user.target.wants"
_ELSEWHERE = "opt/azure-proxy-agent/azure-proxy-agent"
_EXTENSION = "var/lib/waagent/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-1.0.30"
_EXIT = bytes([0x95]) + bytes(7)  # BPF_JMP | BPF_EXIT; no register holds anything before it: `R0 !read_ok`
LEAKED = Key("11111111-2222-3333-4444-555555555555", "5a" * 32, "2026-01-01T00:00:00Z", 7)
"""A key that no platform gave."""

_CRASHES = """\
#!/bin/sh
echo 'azure-proxy-agent: error while loading shared libraries: libssl.so.1.1: cannot open shared object file' >&2
exit 127
"""
_PROFILE = """\
# allows what the agent reads, and none of the capabilities that eBPF takes
profile azure-proxy-agent /usr/sbin/azure-proxy-agent {
  /** rix,
  /var/log/azure-proxy-agent/** rw,
  /var/lib/azure-proxy-agent/** rw,
  network inet stream,
}
"""


def no_agent(site: Site) -> None:
    if "azure-proxy-agent" in site.run("dpkg-query", "-W", "-f", "${Package}\\n"):
        site.run("dpkg", "--purge", "azure-proxy-agent")
    enabled = f"{_WANTS}/{agent_files.NAME}"
    site.remove(agent_files.EXECUTABLE, agent_files.UNIT, enabled, runtime.HOME, agent_files.CONFIG)
    site.remove("var/log/azure-proxy-agent", "var/lib/azure-proxy-agent")


def not_executable(site: Site) -> None:
    site.write(agent_files.EXECUTABLE, site.read(agent_files.EXECUTABLE), 0o644)


def outside_path(site: Site) -> None:
    content = site.read(agent_files.EXECUTABLE)
    site.write(_ELSEWHERE, content, 0o755)
    site.remove(agent_files.EXECUTABLE)
    site.replace(agent_files.UNIT, (f"ExecStart=/{agent_files.EXECUTABLE}", f"ExecStart=/{_ELSEWHERE}"))


def no_object(site: Site) -> None:
    site.remove(agent_files.OBJECT, agent_files.PROGRAM)


def object_truncated(site: Site) -> None:
    data = site.path(agent_files.OBJECT).read_bytes()
    site.write(agent_files.OBJECT, data[: len(data) // 2])
    program = site.read(agent_files.PROGRAM)
    site.write(agent_files.PROGRAM, program[: len(program) // 2])


def object_refused(site: Site) -> None:
    if site.path(agent_files.PROGRAM).exists():
        image = Image.parse(site.read(agent_files.PROGRAM))
    else:
        image = compiler.compile_source(compiler.redirector(join=compiler.Join.KPROBE))
    site.write(agent_files.OBJECT, object_file.build(refused(image)))
    site.write(agent_files.PROGRAM, refused(image).dump())


def refused(image: Image) -> Image:
    """The same, with nothing in connect4 but its end: a program that no verifier lets pass."""
    ends = (
        replace(program, instructions=_EXIT, relocations=()) if program.name == "connect4" else program
        for program in image.programs
    )
    return replace(image, programs=tuple(ends))


def bad_config(site: Site) -> None:
    content = site.read(agent_files.CONFIG)
    site.write(agent_files.CONFIG, content[: len(content) // 2])


def unit_disabled(site: Site) -> None:
    site.remove(f"{_WANTS}/{agent_files.NAME}")


def unit_masked(site: Site) -> None:
    site.remove(_UNIT_OF_ADMIN)
    site.path(_UNIT_OF_ADMIN).symlink_to("/dev/null")


def unit_after_network(site: Site) -> None:
    site.replace(
        agent_files.UNIT,
        ("Before=network-pre.target\n", "After=network-online.target\n"),
        ("Wants=network-pre.target\n", "Wants=network-online.target\n"),
        ("DefaultDependencies=no\n", ""),
    )


def no_capabilities(site: Site) -> None:
    settings = "[Service]\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH\nNoNewPrivileges=yes\n"
    site.write(f"{_UNIT_OF_ADMIN}.d/50-hardening.conf", settings)


def crashes(site: Site) -> None:
    site.write(agent_files.EXECUTABLE, _CRASHES, 0o755)


def apparmor(site: Site) -> None:
    site.write("etc/apparmor.d/usr.sbin.azure-proxy-agent", _PROFILE)


def selinux(site: Site) -> None:
    site.write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=default\n")
    site.line += " security=selinux selinux=1 enforcing=1"


def leaked_key(site: Site) -> None:
    folder = KeyFolder(site.path(agent_files.KEYS))
    folder.prepare()
    folder.save(LEAKED)


def leftover_status(site: Site) -> None:
    told = {"version": "1.0.30", "status": "SUCCESS"}
    status = {"timestamp": "2026-01-01T00:00:00Z", "proxyAgentStatus": told, "proxyConnectionSummary": []}
    site.write(f"{agent_files.LOGS}/status.json", json.dumps(status, indent=2) + "\n")
    site.write(f"{agent_files.KEYS}/provisioned.tag", "2026-01-01T00:00:00Z\n")
    site.write(f"{agent_files.KEYS}/status.tag", "")


def extension(site: Site) -> None:
    manifest = [{"name": "ProxyAgentLinux", "version": 1.0, "handlerManifest": {"installCommand": "install.sh"}}]
    site.write(f"{_EXTENSION}/HandlerManifest.json", json.dumps(manifest) + "\n")
    site.write(f"{_EXTENSION}/config/HandlerState", "Enabled")
    site.write(f"{_EXTENSION}/ProxyAgent/azure-proxy-agent", "#!/bin/sh\nexit 1\n", 0o755)
