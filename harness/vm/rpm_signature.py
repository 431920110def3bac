"""Who signed an .rpm: rpmkeys(8) with a keyring of our own, made of the keys that this machine trusts.

The host's own rpm database is neither read nor changed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import cache, scratch

KEYS = (
    Path("/etc/pki/rpm-gpg"),  # Fedora, RHEL and kin, Azure Linux
    Path("/usr/lib/rpm/gnupg/keys"),  # SUSE
    Path("/usr/share/distribution-gpg-keys"),  # of many distributions, as Fedora packages them
)
"""Where distributions keep the keys of rpm packages."""

_SECONDS = 60
_KEY_ID = re.compile(r"key ID ([0-9a-f]{8,40})", re.IGNORECASE)
_ALLOW = "give its key with `msp-harness kernels get --key FILE`, or take it as it is with --allow-unsigned"


def own_keys() -> Path:
    """Keys that were given to `kernels get --key`; they stay trusted for packages that are given to us."""
    return cache.directory() / "rpm-keys"


def trust(key: Path) -> None:
    """Keep a public key. Raises HarnessError for a file that is none."""
    if not key.is_file() or "BEGIN PGP PUBLIC KEY BLOCK" not in key.read_text("ascii", "replace"):
        raise HarnessError(f"trust {key}", "it is no public key (BEGIN PGP PUBLIC KEY BLOCK)")
    with cache.writing(f"keep {key}"):
        own_keys().mkdir(parents=True, exist_ok=True)
        shutil.copyfile(key, own_keys() / key.name)


def verified(package: Path, *, allow_unsigned: bool) -> str:
    """By what a package's content is known, for its origin.

    Raises HarnessError for a package whose digests are wrong, whose signature is bad or by a key that is not known
    here, or that has none, unless that is allowed (a wrong digest or bad signature never is).
    """
    if shutil.which("rpmkeys") is None:
        raise HarnessError(f"check {package.name}", "there is no rpmkeys", packages.install_hint([packages.RPM]))
    with scratch.directory("rpm") as database:
        options = ["--dbpath", str(database)]
        for key in _keys():
            run(
                ["rpmkeys", *options, "--import", key], timeout=_SECONDS, check=False
            )  # one of an unknown form is no key
        done = run(["rpmkeys", *options, "--checksig", "--verbose", package], timeout=_SECONDS, check=False)
    lines = [line.strip() for line in text(done.stdout + done.stderr).splitlines()]
    signatures = [line for line in lines if "Signature" in line]
    unknown = [line for line in signatures if line.endswith(("NOKEY", "NOTTRUSTED"))]
    bad = [line for line in lines if line.endswith("BAD") or " BAD " in line]
    if bad or (done.returncode and not unknown):
        said = bad[0] if bad else next(iter(reversed(lines)), "nothing")
        raise HarnessError(f"check {package.name}", said, "fetch it again", detail="\n".join(lines))
    good = [line for line in signatures if line.endswith("OK")]
    if good:
        return f"rpm: signed by key {_key_id(good[0])}"
    happened = f"it is signed by the unknown key {_key_id(unknown[0])}" if unknown else "it is not signed"
    if not allow_unsigned:
        raise HarnessError(f"check {package.name}", happened, _ALLOW)
    return f"rpm: {happened}, which was allowed; its digests are right"


def _keys() -> Iterator[Path]:
    for place in (*KEYS, own_keys()):
        if place.is_dir():
            yield from sorted(path for path in place.rglob("*") if path.is_file())


def _key_id(line: str) -> str:
    found = _KEY_ID.search(line)
    return found.group(1).lower() if found else "(without an id)"
