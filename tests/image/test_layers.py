"""Layers put one over the other, by the script that does it, on this machine: whole, cut off, damaged, missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pytest

from harness.errors import HarnessError
from harness.image import layers, stream
from harness.vm import archives
from harness.vm.appliance import Appliance
from tests.image.tars import tarred
from tests.image.test_stream import PACKERS

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("bzip2", "gzip", "xz", "zstd")), reason="needs bzip2, gzip, xz, zstd"
)
NOISE = 200_000
PLACE = "unpacked"


class Here:
    """In the appliance's place: its shell, and nothing else of it."""

    def shell(self, script: str, seconds: float = 0) -> str:
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout

    def content(self, path: str, largest: int) -> bytes:
        return Path(path).read_bytes() if Path(path).exists() else b""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "sysroot"
    (place / PLACE).mkdir(parents=True)
    monkeypatch.setattr(layers, "SYSROOT", str(place))
    monkeypatch.setattr(layers, "_SAID", str(tmp_path / "said"))
    return place


def layer(**files: bytes) -> bytes:
    return tarred(files)


def merged(root: Path, *contents: bytes | None) -> list[str]:
    """The complaints, if any. None: a layer that is named, and is not there."""
    names = [f"{number}.tar" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        if content is not None:
            (root / PLACE / name).write_bytes(content)
    listed = ", ".join(f'"{name}"' for name in names)
    (root / PLACE / "manifest.json").write_text(f'[{{"Layers": [{listed}]}}]')
    return layers.merge(cast(Appliance, Here()), PLACE)


every_packer = pytest.mark.parametrize("packer", PACKERS)


@every_packer
def test_the_upper_layer_is_over_the_lower(packer: str, root: Path) -> None:
    lower, upper = layer(a=b"1", b=os.urandom(NOISE), c=b"1"), layer(**{"a": b"2", ".wh.c": b""})
    assert merged(root, PACKERS[packer](lower), PACKERS[packer](upper)) == []
    assert (root / "a").read_bytes() == b"2"
    assert (root / "b").stat().st_size == NOISE
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", PLACE]


@every_packer
@pytest.mark.parametrize("left", [0, 1, 5, 100, NOISE // 2, -12_000])
def test_a_layer_that_is_cut_off_is_an_error(packer: str, left: int, root: Path) -> None:
    upper = PACKERS[packer](layer(a=os.urandom(NOISE)))
    with pytest.raises(HarnessError, match=r"the layer 1\.tar is damaged: .*[a-z]") as caught:
        merged(root, layer(b=b"1"), upper[:left])
    assert caught.value.remedy


def test_a_layer_that_is_cut_off_between_two_files_is_an_error(root: Path) -> None:
    whole = layer(a=os.urandom(NOISE), b=b"1")
    with pytest.raises(HarnessError, match="cut off"):
        merged(root, whole[: stream.BLOCK + -(-NOISE // stream.BLOCK) * stream.BLOCK])


def test_a_damaged_header_is_an_error(root: Path) -> None:
    whole = bytearray(layer(a=os.urandom(NOISE), b=b"1"))
    at = stream.BLOCK + -(-NOISE // stream.BLOCK) * stream.BLOCK
    whole[at : at + 100] = os.urandom(100)
    with pytest.raises(HarnessError, match=r"is damaged: tar: .*Skipping to next header"):
        merged(root, bytes(whole))


def test_what_could_not_be_made_is_told_and_no_more(root: Path) -> None:
    """A file where the lower layer has a directory with something in it."""
    (complaint,) = merged(root, layer(**{"a/b": b"1"}), layer(a=b"1", c=b"1"))
    assert complaint.startswith("tar 1.tar: ")
    assert (root / "c").exists()


def test_a_layer_that_is_missing_is_an_error(root: Path) -> None:
    with pytest.raises(HarnessError, match=r"the layer 1\.tar is missing"):
        merged(root, layer(a=b"1"), None)


def test_a_layer_that_is_too_large_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", NOISE)
    with pytest.raises(HarnessError, match="unpacks to more than") as caught:
        merged(root, layer(a=bytes(2 * NOISE)))
    assert "disk image" in str(caught.value.remedy)
