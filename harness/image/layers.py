"""The layers of a container's image: an OCI layout, or what `docker save` wrote, merged with their whiteouts.

All of it lies in the appliance: its JSON comes out, and a script there puts one layer over the other. The image is the
one of this machine's architecture, else the first. https://github.com/opencontainers/image-spec: image-layout.md,
image-index.md, layer.md.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from harness.errors import HarnessError
from harness.image import stream
from harness.vm import archives
from harness.vm.appliance import SYSROOT, Appliance

_ATTEMPTED = "read a container's image"
_DOCUMENT = 4 << 20  # bytes of a JSON document
_LAYERS = 128  # Docker's limit is 127
_NESTED = 4  # indexes in indexes
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{32,128})")
_MEMBER = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,4}")
_ARCHITECTURE = "amd64"
_SECONDS = 900
_SAID = "/tmp/packer"  # of the appliance: what a program complained of

_MERGE = """
cd {root} || exit
for layer in {layers}; do
  [ -f "$layer" ] && [ ! -L "$layer" ] || {{ echo "missing $layer"; exit; }}
  case "$(head -c 4 "$layer" | od -An -tx1 | tr -d ' \\n')" in
    1f8b*) unpack='gzip -dc' ;; 28b52ffd) unpack='zstd -dc' ;; fd377a58) unpack='xz -dc' ;;
    425a68*) unpack='bzip2 -dc' ;; *) unpack=cat ;;
  esac
  $unpack <"$layer" 2>{said} | head -c {largest} >{root}/.msp-layer
  trouble="$(head -c 300 {said} | tr -s '[:space:]' ' ')"
  [ "$(stat -c %s {root}/.msp-layer)" -lt {largest} ] || {{ echo "large $layer"; exit; }}
  end="$(tail -c {block} {root}/.msp-layer | tr -d '\\0' | wc -c)"
  [ -n "$trouble" ] || {{ [ "$end" -eq 0 ] && [ -s {root}/.msp-layer ]; }} || trouble='{cut_off}'
  [ -z "$trouble" ] || {{ echo "damaged $layer: $trouble"; exit; }}
  tar --quoting-style=literal -tf {root}/.msp-layer 2>/dev/null | grep -E '(^|/)\\.wh\\.' | while read -r name; do
    case "/$name/" in */../*) continue ;; esac
    place="./$(dirname "$name")" base="$(basename "$name")"
    if [ "$base" = .wh..wh..opq ]; then
      [ -d "$place" ] && [ ! -L "$place" ] && find "$place" -mindepth 1 -delete
    else
      rm -rf "$place/${{base#.wh.}}"
    fi
  done
  tar -xpf {root}/.msp-layer --numeric-owner --xattrs --xattrs-include='*' --exclude='.wh.*' 2>{said} || {{
    said="$(head -c 300 {said} | tr -s '[:space:]' ' ')"
    grep -qE '{gave_up}' {said} && {{ echo "damaged $layer: $said"; exit; }}
    echo "tar $layer: $said"
  }}
  rm -f {root}/.msp-layer
done
"""


def is_image(names: Sequence[str]) -> bool:
    """Whether the names at an archive's top are those of a container's image."""
    return {"oci-layout", "index.json"} <= set(names) or "manifest.json" in names


def merge(appliance: Appliance, place: str) -> list[str]:
    """Merge the layers of the image in a directory of the mounted disk into the disk's root; complaints, if any.

    Raises HarnessError where the image's own documents are damaged, or a layer is missing, cut off or damaged.
    """
    found = _oci(appliance, place) if _content(appliance, f"{place}/index.json") else _saved(appliance, place)
    if not 0 < len(found) <= _LAYERS:
        raise _damaged(f"it has {len(found)} layers")
    layers = " ".join(shlex.quote(f"{SYSROOT}/{place}/{layer}") for layer in found)
    script = _MERGE.format(
        root=SYSROOT,
        said=_SAID,
        layers=layers,
        largest=archives.LARGEST,
        block=stream.BLOCK,
        cut_off=stream.CUT_OFF,
        gave_up=stream.GAVE_UP.pattern,
    )
    said = [line.replace(f"{SYSROOT}/{place}/", "") for line in appliance.shell(script, _SECONDS).splitlines() if line]
    for line in said:
        word, _, rest = line.partition(" ")
        if word == "missing":
            raise _damaged(f"the layer {rest} is missing")
        if word == "large":
            happened = f"the layer {rest} unpacks to more than {archives.LARGEST >> 30} GiB"
            raise HarnessError(_ATTEMPTED, happened, "give the disk image that is made of it")
        if word == "damaged":
            layer, _, trouble = rest.partition(": ")
            raise _damaged(f"the layer {layer} is damaged: {trouble}")
    return said


def _damaged(happened: str) -> HarnessError:
    return HarnessError(_ATTEMPTED, happened, "pull or save it again")


def _content(appliance: Appliance, path: str) -> bytes:
    return appliance.content(f"{SYSROOT}/{path}", _DOCUMENT)


def _document(appliance: Appliance, path: str) -> object:
    try:
        return json.loads(_content(appliance, path))
    except (ValueError, RecursionError) as error:
        raise _damaged(f"its {path.rpartition('/')[2]} is no JSON: {error}") from error


def _oci(appliance: Appliance, place: str) -> list[str]:
    """The layers' blobs, from the lowest on, by way of index.json."""
    document = _document(appliance, f"{place}/index.json")
    for _ in range(_NESTED):
        if not isinstance(document, dict):
            break
        if isinstance(document.get("layers"), list):
            return [_blob(each) for each in document["layers"]]
        manifests = document.get("manifests")
        if not isinstance(manifests, list) or not manifests:
            break
        document = _document(appliance, f"{place}/{_blob(_ours(manifests))}")
    raise _damaged("its index.json leads to no manifest with layers")


def _ours(manifests: Sequence[object]) -> object:
    """The manifest of this architecture, else the first."""
    for each in manifests:
        platform = each.get("platform") if isinstance(each, dict) else None
        if isinstance(platform, dict) and platform.get("architecture") == _ARCHITECTURE:
            return each
    return manifests[0]


def _blob(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, Mapping) else None
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if found is None:
        raise _damaged(f"a digest in it is none: {str(digest)[:100]!a}")
    return f"blobs/{found[1]}/{found[2]}"


def _saved(appliance: Appliance, place: str) -> list[str]:
    """The layers by way of manifest.json, as `docker save` writes it: the first image in it."""
    document = _document(appliance, f"{place}/manifest.json")
    first = document[0] if isinstance(document, list) and document else None
    layers = first.get("Layers") if isinstance(first, dict) else None
    if not isinstance(layers, list):
        raise _damaged("its manifest.json names no layers")
    for each in layers:
        if not isinstance(each, str) or not _MEMBER.fullmatch(each) or ".." in each.split("/"):
            raise _damaged(f"its manifest.json names the layer {str(each)[:100]!a}")
    return layers
