#!/usr/bin/env python3
"""Collects what a diagnosis of the Guest Proxy Agent needs, into one .tar.gz that holds no secrets.

This file stands for itself: Python 3.6 or newer, nothing but its standard library, so that it runs on a customer's VM
as it is (`msp-harness collect --emit-script > collect.py; sudo python3 collect.py`). It reads and runs what the tables
FILES and COMMANDS name, changes nothing, and is bounded in size and time. Keys, tokens, signatures, passwords and
certificates are replaced before anything is written; of the agent's keys only the files' names are taken.
"""

import argparse
import glob
import io
import os
import re
import select
import signal
import stat
import subprocess
import sys
import tarfile
import time
from typing import Dict, List, NamedTuple, Optional, Pattern, Tuple

FILE_BYTES = 2 << 20  # of one file or one command's output; of more, the end
TOTAL_BYTES = 32 << 20  # of all, before compression
FILES_AT_MOST = 400
COMMAND_SECONDS = 10.0
TOTAL_SECONDS = 90.0

# What is read: patterns of paths, and what they hold.
FILES = (
    ("/var/log/azure-proxy-agent/status.json", "the agent's status"),
    ("/var/log/azure-proxy-agent/*.log", "the agent's logs"),
    ("/var/log/azure/Microsoft.CPlat.ProxyAgent*/**/*.log", "the extension's logs"),
    ("/var/lib/waagent/Microsoft.CPlat.ProxyAgent*/status/*.status", "the extension's status"),
    ("/var/lib/waagent/Microsoft.CPlat.ProxyAgent*/config/HandlerState", "its handler's state"),
    ("/var/lib/waagent/Microsoft.CPlat.ProxyAgent*/config/HandlerStatus", "its handler's status"),
    ("/var/lib/waagent/Microsoft.CPlat.ProxyAgent*/HandlerManifest.json", "its manifest"),
    ("/var/lib/azure-proxy-agent/**/status.tag", "what failed in provisioning"),
    ("/var/lib/azure-proxy-agent/**/provisioned.tag", "that provisioning ended"),
    ("/etc/azure/proxy-agent.json", "the agent's configuration"),
    ("/var/log/waagent.log", "the Azure Linux agent's log"),
    ("/var/log/cloud-init.log", "cloud-init's log"),
    ("/var/log/cloud-init-output.log", "cloud-init's output"),
    ("/run/cloud-init/result.json", "cloud-init's result"),
    ("/run/cloud-init/status.json", "cloud-init's state"),
    ("/var/lib/waagent/ovf-env.xml", "what the platform asked of provisioning"),
    ("/etc/os-release", "the distribution"),
    ("/proc/filesystems", "whether the kernel has cgroup2"),
    ("/proc/mounts", "where it is mounted"),
    ("/proc/cmdline", "the kernel's command line"),
    ("/proc/self/cgroup", "the cgroup layout"),
    ("/sys/kernel/security/lockdown", "the kernel's lockdown"),
    ("/sys/kernel/security/lsm", "its security modules"),
    ("/proc/sys/kernel/unprivileged_bpf_disabled", "who may use BPF"),
)

# What is run. It only asks; where a program is missing, that is told.
COMMANDS = (
    "uname -a",
    "systemctl status azure-proxy-agent.service --no-pager --full",
    "systemctl show azure-proxy-agent.service --no-pager",
    "systemctl cat azure-proxy-agent.service --no-pager",
    "systemctl is-enabled azure-proxy-agent.service",
    "journalctl -u azure-proxy-agent.service --no-pager -o short-iso -n 3000",
    "journalctl -k --no-pager -o short-iso -n 500",
    "findmnt -t cgroup2,cgroup",
    "mount",
    "bpftool prog show",
    "bpftool cgroup tree",
    "bpftool link show",
    "cloud-init --version",
    "cloud-init status --long",
    "azure-proxy-agent --version",
    "dpkg-query -W azure-proxy-agent cloud-init walinuxagent",
    "rpm -q azure-proxy-agent cloud-init WALinuxAgent",
    "ls -l /usr/sbin/azure-proxy-agent /usr/lib/azure-proxy-agent /sys/kernel/btf/vmlinux",
    "ls -ln /var/lib/azure-proxy-agent /var/lib/azure-proxy-agent/keys",
    "ls -l /var/lib/waagent",
    "ss -ltnp sport = :3080",
    "getenforce",
    "timedatectl show",
)

CONFIG = re.compile(
    r"^(?:# )?CONFIG_(?:BPF\w*|CGROUPS?|CGROUP_BPF|\w*BTF\w*|KPROBE\w*|NET_CLS_BPF|LSM|SECURITY_LOCKDOWN\w*)\b"
)


class Secret(NamedTuple):
    """What must not leave: pattern's group `secret` is replaced."""

    name: str
    pattern: Pattern[str]


def _pattern(text: str) -> Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_PASSWORDS = r"(?:\w*pass(?:word|wd|phrase)|account_?key|shared_?access_?key|client_?secret)"
_NAMES = (
    r"(?:\w*password|passwd|passphrase|\w*secret|\w*token|(?:storage_?)?account_?key|shared_?access_?(?:key|signature)"
    r"|(?:primary|secondary|api|private|access)_?key|\w*connection_?string|protected_?settings|custom_?data|user_?data)"
)
_MEMBERS = r"(?:" + _NAMES + r"|\w*certificate|key)"  # of JSON, where they cannot be an ordinary word
_ELEMENTS = r"(?:\w*password|\w*secret|\w*token|\w*certificate|\w*protectedsettings|customdata|userdata)"
_NEW = r"(?!\s*\[redacted)"  # what was redacted once stays as it is

# In this order: what is a whole block before what is in it.
SECRETS = (
    Secret("PEM block", _pattern(
        r"(?P<secret>-----BEGIN [A-Z0-9 ]{1,40}-----"
        r"(?:(?:(?!-----BEGIN)[\s\S]){0,20000}?-----END [A-Z0-9 ]{1,40}-----|[A-Za-z0-9+/=\s\\]*))")),
    Secret("token", _pattern(r"(?P<secret>\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.?[A-Za-z0-9_-]*)")),
    Secret("token", _pattern(r"\b(?:bearer|sharedaccesssignature)\s+(?P<secret>[A-Za-z0-9._~+/=%&-]{16,})")),
    Secret("password", _pattern(r"\bauthorization\W{1,6}basic\s+(?P<secret>[A-Za-z0-9+/=]{4,})")),
    Secret("signature", _pattern(r"Azure-HMAC-SHA256\s+[0-9a-f-]{8,}\s+(?P<secret>[0-9a-f]{16,})")),
    Secret("signature", _pattern(r"(?:\b|%26|%3F)sig(?:=|%3D)(?P<secret>[^\s&\"'<>;,\[]{4,})")),
    Secret("password", _pattern(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:(?P<secret>[^\s/@\[]{1,200})@")),
    Secret("password", _pattern(r"\s--?(?:password|passwd|token|secret)[ =]" + _NEW + r"(?P<secret>[^\s\"']{2,})")),
    Secret("value", _pattern(r"\"" + _MEMBERS + r"\"\s*:\s*\"" + _NEW + r"(?P<secret>(?:[^\"\\]|\\.)+)")),
    Secret("value", _pattern(r"\\\"" + _MEMBERS + r"\\\"\s*:\s*\\\"" + _NEW + r"(?P<secret>.+?)(?<!\\)\\\"")),
    Secret("value", _pattern(r"'" + _MEMBERS + r"'\s*:\s*'" + _NEW + r"(?P<secret>[^'\n]+)")),
    Secret("value", _pattern(r"(?<![\w.-])" + _NAMES + r"\s*=\s*[\"']" + _NEW + r"(?P<secret>[^\"'\n]+)")),
    Secret("value", _pattern(r"(?<![\w.-])" + _NAMES + r"\s*=\s*" + _NEW + r"(?P<secret>[^\s;&\"'<>]{3,})")),
    Secret("value", _pattern(r"(?<![\w.-])" + _PASSWORDS + r":\s*" + _NEW + r"(?P<secret>[^\s;&\"'<>]{3,})")),
    Secret("value", _pattern(
        r"<(?:[a-z0-9]{1,20}:)?" + _ELEMENTS + r"(?:\s[^<>]{0,200})?>" + _NEW + r"(?P<secret>[^<>]*[^<>\s][^<>]*)<")),
    Secret("certificate", _pattern(r"(?<![A-Za-z0-9+/=])(?P<secret>MII[A-Za-z0-9+/]{60,}={0,2})")),
    Secret("password", _pattern(r"(?P<secret>\$(?:1|2[aby]|5|6|7|y|gy)\$[./A-Za-z0-9$=,]{8,})")),
    Secret("key", _pattern(r"(?<![0-9A-Za-z:])(?P<secret>[0-9a-f]{64})(?![0-9A-Za-z])")),
)  # fmt: skip


def redact(text: str) -> Tuple[str, Dict[str, int]]:
    """The text with every secret replaced by `[redacted NAME]`; and how many of each there were.

    Redacting a redacted text changes nothing.
    """
    counts = {}  # type: Dict[str, int]
    for secret in SECRETS:
        pieces, end = [], 0
        for found in secret.pattern.finditer(text):
            start, stop = found.span("secret")
            pieces += [text[end:start], "[redacted " + secret.name + "]"]
            end = stop
            counts[secret.name] = counts.get(secret.name, 0) + 1
        if pieces:
            text = "".join(pieces) + text[end:]
    return text, counts


class Bundle:
    """The archive in the making: what was taken, what was not and why, how much was redacted."""

    def __init__(self, total: int = TOTAL_BYTES) -> None:
        self.members = []  # type: List[Tuple[str, bytes]]
        self.left_out = []  # type: List[str]
        self.redacted = {}  # type: Dict[str, int]
        self.room = total

    def add(self, name: str, content: bytes, cut: str = "") -> None:
        """A member, redacted. cut says what is missing at its beginning."""
        text, counts = redact(_decoded(content))
        for kind, count in counts.items():
            self.redacted[kind] = self.redacted.get(kind, 0) + count
        data = text.encode("utf-8", "backslashreplace")
        if len(data) > self.room:
            self.left_out.append(name + ": the bundle is full")
            return
        if cut:
            self.left_out.append(name + ": " + cut)
        self.room -= len(data)
        self.members.append((redact(name)[0], data))

    def index(self) -> str:
        """README.txt of the bundle: for the person who opens it."""
        lines = ["What was collected for a diagnosis of the Guest Proxy Agent (msp-harness).", ""]
        lines += ["%10d  %s" % (len(data), name) for name, data in self.members]
        lines += ["", "Left out:"] + (["  " + line for line in self.left_out] or ["  nothing"])
        lines += ["", "Redacted before writing:"]
        lines += ["%10d  %s" % (count, kind) for kind, count in sorted(self.redacted.items())] or [
            "  nothing was found"
        ]
        return "\n".join(lines) + "\n"

    def write(self, path: str) -> None:
        """The archive at path, which must not be there yet; readable by its owner only. Raises OSError."""
        work = path + ".part"
        descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, data in [("README.txt", self.index().encode())] + self.members:
                    member = tarfile.TarInfo("msp-collect/" + name)
                    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                    archive.addfile(member, io.BytesIO(data))
            os.link(work, path)  # unlike rename it replaces nothing
        finally:
            os.unlink(work)


def _decoded(content: bytes) -> str:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    return content.decode("utf-8", "backslashreplace")


def read_end(path: str, limit: int = FILE_BYTES, follow: bool = True) -> Tuple[bytes, int]:
    """The last bytes of a regular file, and its size. Raises OSError; a FIFO or device is refused, not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "no regular file")
        if status.st_size > limit:
            file.seek(status.st_size - limit)
        return file.read(limit), status.st_size


def run(words: List[str], seconds: float, limit: int = FILE_BYTES) -> Tuple[bytes, str]:
    """What a command prints, both streams; and what kept it from ending well, or nothing."""
    environment = dict(os.environ, LC_ALL="C.UTF-8", SYSTEMD_COLORS="0", SYSTEMD_PAGER="")
    environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return b"", os.strerror(error.errno or 0)
    assert process.stdout is not None
    output, problem, end = b"", "", time.monotonic() + seconds
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                problem = "ended after %g s" % seconds
                break
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                process.wait(max(0.1, end - time.monotonic()))
                break
            output += piece
            if len(output) > 2 * limit:
                problem = "its output was cut"
                break
    except subprocess.TimeoutExpired:
        problem = "ended after %g s" % seconds
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in it
        except OSError:
            pass
        process.stdout.close()
        status = process.wait()
    return output[-limit:], problem or ("exit status %d" % status if status else "")


def paths(pattern: str, root: str, end: float) -> List[str]:
    """What a pattern finds until the clock shows end, newest first."""
    found = []  # type: List[Tuple[float, str]]
    for path in glob.iglob(os.path.join(root, pattern.lstrip("/")), recursive=True):
        if time.monotonic() > end or len(found) >= 10 * FILES_AT_MOST:
            break
        try:
            found.append((os.lstat(path).st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(found, reverse=True)]


def collect(root: str = "/", seconds: float = TOTAL_SECONDS, total: int = TOTAL_BYTES) -> Bundle:
    """Read and run what the tables name. root is where the files are looked for; commands run on this machine."""
    bundle, end, count = Bundle(total), time.monotonic() + seconds, 0
    for pattern, holds in FILES:
        taken = 0
        for path in paths(pattern, root, end):
            if count >= FILES_AT_MOST or time.monotonic() > end:
                bundle.left_out.append(path + ": the limit of files or time is reached")
                continue
            name = os.path.relpath(path, root)
            try:
                # A link in a folder of logs could lead anywhere; os-release is one by design.
                content, size = read_end(path, follow="*" not in pattern)
            except OSError as error:
                bundle.left_out.append(name + ": " + (error.strerror or str(error)))
                continue
            count, taken = count + 1, taken + 1
            cut = "the last %d of %d bytes" % (len(content), size) if size > len(content) > 0 else ""
            bundle.add(name, content, cut)
        if not taken:
            bundle.left_out.append("%s: not there (%s)" % (pattern, holds))
    _kernel_configuration(bundle, root)
    for command in COMMANDS:
        left = min(COMMAND_SECONDS, end - time.monotonic())
        if left <= 0:
            bundle.left_out.append("`%s`: no time was left" % command)
            continue
        output, problem = run(command.split(), left)
        if problem:
            bundle.left_out.append("`%s`: %s" % (command, problem))
        if output:
            name = "commands/" + re.sub(r"[^A-Za-z0-9.=-]+", "_", command).strip("_")[:80] + ".txt"
            bundle.add(name, ("$ %s\n" % command).encode() + output)
    return bundle


def _kernel_configuration(bundle: Bundle, root: str) -> None:
    """Of /boot/config-RELEASE the lines that matter."""
    path = os.path.join(root, "boot", "config-" + os.uname().release)
    try:
        content, _ = read_end(path)
    except OSError as error:
        bundle.left_out.append("boot/config-%s: %s" % (os.uname().release, error.strerror or error))
        return
    lines = [line for line in _decoded(content).splitlines() if CONFIG.match(line)]
    bundle.add("boot/config-" + os.uname().release, "\n".join(lines).encode() + b"\n")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="collect what a diagnosis of the Guest Proxy Agent needs; no secrets")
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)
    name = "msp-collect-%s-%s.tar.gz" % (host, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    parser.add_argument("--output", metavar="FILE", default=name, help="where to write it (default: %(default)s)")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("not root: what only root may read is left out and named in README.txt", file=sys.stderr)
    bundle = collect()
    try:
        bundle.write(options.output)
    except OSError as error:
        problem = "there is a file already" if isinstance(error, FileExistsError) else error.strerror or str(error)
        print("cannot write %s: %s; give another --output" % (options.output, problem), file=sys.stderr)
        return 3
    print("%s: %d files, %d bytes of text; see README.txt in it before you send it"
          % (options.output, len(bundle.members), sum(len(data) for _, data in bundle.members)))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
