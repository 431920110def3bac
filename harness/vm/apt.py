"""apt in a private root: the host's own sources, rewritten to another suite.

Signatures, hashes, proxies and retries stay apt's affair; nothing of the host's lists or packages is touched, and
which mirror it is was said by the host's configuration alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages

_SECONDS = 300
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")  # a killed run leaves no apt behind, which would hold apt's own lock
_NO_SECURITY = ("sid", "unstable", "experimental")
_CONFIGURATION = """\
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""
_TARGETS = "$(REPO_URI) $(RELEASE) $(COMPONENT)"


@dataclass(frozen=True)
class Source:
    """A row of the host's sources: where packages are, for which release."""

    uri: str
    release: str
    components: tuple[str, ...]

    def line(self) -> str:
        """As sources.list(5) has it. Debian's own keyring, where it is there, knows the keys of other suites too."""
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
        return f"deb {signed}{self.uri} {self.release} {' '.join(self.components)}"


def host_sources() -> list[Source]:
    """The package sources of this machine, from its apt. Raises HarnessError when there is no apt or no source."""
    if shutil.which("apt-get") is None:
        raise HarnessError("ask apt for this machine's sources", "there is no apt-get", "run this on Debian or Ubuntu")
    listed = text(run(["apt-get", "indextargets", "--format", _TARGETS, "Created-By: Packages"]).stdout)
    components: dict[tuple[str, str], list[str]] = {}
    for line in listed.splitlines():
        uri, release, component = line.split()
        components.setdefault((uri, release), []).append(component)
    if not components:
        raise HarnessError("ask apt for this machine's sources", "it has no lists", "run `apt-get update`")
    return [Source(uri, release, tuple(names)) for (uri, release), names in components.items()]


def codename() -> str:
    """This machine's own suite: VERSION_CODENAME of os-release."""
    return packages.os_release().get("VERSION_CODENAME", "")


def sources_of(suite: str) -> list[Source]:
    """The host's sources with its suite replaced by this one; its security updates too where the suite has any."""
    own = codename()
    releases = {own: suite}
    if suite not in _NO_SECURITY and "-" not in suite:
        releases[f"{own}-security"] = f"{suite}-security"
    found = [
        Source(source.uri, releases[source.release], source.components)
        for source in host_sources()
        if source.release in releases
    ]
    if not found:
        raise HarnessError(
            f"find packages of {suite}",
            f"this machine's apt has no source for its own suite {own or '(without a name)'}",
            "run `apt-get update`, or add the distribution's own source",
        )
    return found


class Apt:
    """apt for one suite, in a directory of its own."""

    def __init__(self, suite: str, root: Path):
        self.suite = suite
        self._root = root
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "status").write_text("")
        (root / "sources.list").write_text("\n".join(source.line() for source in sources_of(suite)) + "\n")
        (root / "apt.conf").write_text(_CONFIGURATION.format(root=root))
        self._environment = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C.UTF-8"}
        self.architecture = text(run(["dpkg", "--print-architecture"]).stdout).strip()

    def update(self) -> None:
        """Fetch the suite's lists. Raises HarnessError in apt's words: no such suite, no network, a bad signature."""
        # Any: else a source that does not answer is only a warning, and old lists are used.
        self._fetch(["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"], f"find packages of {self.suite}")

    def _fetch(self, command: list[str], attempted: str) -> None:
        """Run apt-get. It says many things at once: the one that is the cause is the error."""
        try:
            run([*_WITH_PARENT, *command], timeout=_SECONDS, environment=self._environment)
        except HarnessError as error:
            if _NO_SUITE.search(error.detail):
                happened = f"the mirror that this machine's apt uses has no suite {self.suite}"
                raise HarnessError(attempted, happened, _GONE, detail=error.detail) from error
            lines = [line.strip() for line in error.detail.splitlines()]
            causes = [line for line in lines if _CAUSE.search(line)] or [line for line in lines if line[:2] == "E:"]
            happened = causes[0] if causes else error.happened
            if "404  Not Found" in happened:
                happened = "the suite's list has it, the mirror has not (404)"
                raise HarnessError(attempted, happened, "take another version", detail=error.detail) from error
            raise HarnessError(attempted, happened, detail=error.detail) from error

    def show(self, package: str) -> Mapping[str, str]:
        """The fields of a package's newest version. Raises HarnessError when the suite has none of that name."""
        command = ["apt-cache", "show", "--no-all-versions", package]
        done = run(command, environment=self._environment, check=False)
        fields = dict(line.split(": ", 1) for line in text(done.stdout).splitlines() if ": " in line[1:])
        if "Version" not in fields:
            raise HarnessError(f"find {package} in {self.suite}", text(done.stderr).strip() or "no such package")
        return fields

    def named(self, pattern: re.Pattern[str]) -> dict[str, str]:
        """The packages whose whole name is like this, each with its newest version."""
        listed = text(run(["apt-cache", "pkgnames"], environment=self._environment).stdout).split()
        names = sorted(name for name in listed if pattern.fullmatch(name))
        if not names:
            return {}
        rows = text(run(["apt-cache", "madison", *names], environment=self._environment).stdout).splitlines()
        versions: dict[str, str] = {}
        for row in rows:  # the newest version of a package comes first
            name, version, *_ = (field.strip() for field in row.split("|"))
            versions.setdefault(name, version)
        return versions

    def download(self, package: str, place: Path) -> Path:
        """Fetch a package into a directory and give the file, whose hash is the one in the suite's signed list.

        Half a download that is there is continued. apt looks at a file's hash when it fetches it, and not at what is
        there already; so it is looked at here, and what is something else is fetched anew, once.
        """
        place.mkdir(parents=True, exist_ok=True)
        wanted = self.show(package)["SHA256"]
        words = ["env", "-C", str(place), "apt-get", "-q", "download", package]
        for attempt in ("continued", "anew"):
            try:
                self._fetch(words, f"fetch {package} of {self.suite}")
            except HarnessError:
                if attempt == "anew" or not list(place.glob(f"{package}_*.deb")):
                    raise
            for path in place.glob(f"{package}_*.deb"):
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == wanted:
                        return path
                path.unlink()
        happened = "its hash is not the one in the suite's signed list"
        raise HarnessError(
            f"fetch {package} of {self.suite}", happened, "try later: the mirror may be in the middle of an update"
        )


def newest_first(versions: Iterable[str]) -> list[str]:
    """Versions of packages, as dpkg orders them."""

    def order(one: str, other: str) -> int:
        return 1 if run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0 else -1

    return sorted(versions, key=functools.cmp_to_key(order), reverse=True)


_CAUSE = re.compile(r"BADSIG|NO_PUBKEY|EXPKEYSIG|REVKEYSIG|Hash Sum mismatch|not resolve|No space left|free space")
_NO_SUITE = re.compile(r"(?:does not have|no longer has) a Release file")
_GONE = "suites leave a mirror when they are no longer supported: take another, or give the kernel's package as a file"
