"""cloud-init in an image: where it is, of which version, and whether its Azure datasource asks the agent.

Support of MSP is looked for itself, in the source of the datasource: distributions take it back to older versions, and
a version may have it patched out. Source is parsed and never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.image import reading
from harness.image.image import Image
from harness.image.reading import Unread

SETTING = "ProvisionGuestProxyAgent"
AGENT = "azure-proxy-agent"
_TOPS = ("/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64")
_VERSIONS = ("version.py", "meson_versions.py")  # the latter from 26.1 on
_VERSION = re.compile(
    r"^(__VERSION__|_PACKAGED_VERSION|UPSTREAM_VERSION|DOWNSTREAM_VERSION)\s*=\s*['\"]([^'\"\n]+)['\"]", re.MULTILINE
)
_METADATA = re.compile(r"^Version: (\S+)", re.MULTILINE)
_FOLDER_VERSION = re.compile(r"cloud_init-([^-]+?)(?:-py[\d.]+)?\.(?:egg-info|dist-info)")
_NUMBER = re.compile(r"(?:\d+:)?v?(\d+(?:\.\d+){1,3})")
_LARGEST = 4 << 20  # characters of a source file


class Support(StrEnum):
    """What the Azure datasource does with MSP's setting."""

    ASKS = "asks the agent"
    PARSED = "reads the setting and asks nobody"
    NONE = "does not know the setting"


@dataclass(frozen=True)
class Found:
    """Support, and where it was seen: the function that asks and who calls it."""

    support: Support
    files: tuple[str, ...]
    asks: str = ""
    called: int = 0
    reads: bool = False


def folders(image: Image) -> list[str]:
    """The directories of the Python package cloudinit, in the order in which Python looks. Raises Unread."""
    found = python_packages(image, "cloudinit")
    if not found:
        reading.exists(image, "/usr/lib/python3/dist-packages/cloudinit")
    return found


def python_packages(image: Image, name: str) -> list[str]:
    """The directories of a Python package of this name, in the order in which Python looks."""
    tops = [top for top in _TOPS if image.tree.is_directory(top)]
    versions = [f"{top}/{each}" for top in tops for each in image.tree.names(top) if each.startswith("python")]
    paths = [f"{each}/{kind}/{name}" for each in versions for kind in ("dist-packages", "site-packages")]
    distinct: dict[str, str] = {}
    for path in paths:
        if image.tree.is_directory(path):
            distinct.setdefault(image.tree.resolve(path) or path, path)
    return list(distinct.values())


def package_version(image: Image) -> str | None:
    package = image.packages.get("cloud-init")
    return package.version if package else None


def file_versions(image: Image, folder: str) -> dict[str, str]:
    """The versions that the files of one cloudinit package say, by path. Raises Unread."""
    found = {}
    for path in (f"{folder}/{name}" for name in _VERSIONS):
        rows = dict(_VERSION.findall(reading.text(image, path) or ""))
        own = [
            rows.get(name, "@")
            for name in ("_PACKAGED_VERSION", "DOWNSTREAM_VERSION", "UPSTREAM_VERSION", "__VERSION__")
        ]
        known = [text for text in own if not text.startswith("@")]  # @…@ is what a build was to fill in
        if known:
            found[path] = known[0]
    above = folder.rpartition("/")[0]
    for name in image.tree.names(above):
        match = _FOLDER_VERSION.fullmatch(name)
        if match:
            path = f"{above}/{name}"
            text = next((text for file in ("METADATA", "PKG-INFO") if (text := image.tree.text(f"{path}/{file}"))), "")
            text = text or image.tree.text(path) or ""
            version = _METADATA.search(text)
            found[path] = version.group(1) if version else match.group(1)
    return found


def number(version: str) -> tuple[int, ...]:
    """(22, 4, 2) for `22.4.2-1+deb12u4`; nothing for what has no number."""
    match = _NUMBER.match(version)
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()


# --- support ----------------------------------------------------------------------------------------------------------


def support(image: Image, folder: str) -> Found | None:
    """What the Azure datasource of one cloudinit package does; None where it has none. Raises Unread."""
    main = f"{folder}/sources/DataSourceAzure.py"
    if not image.tree.exists(main):
        compiled = [f"{folder}/sources/DataSourceAzure.pyc"]
        cache = f"{folder}/sources/__pycache__"
        compiled += [f"{cache}/{name}" for name in image.tree.names(cache) if name.startswith("DataSourceAzure.")]
        for path in compiled:
            if image.tree.exists(path):
                raise Unread(f"the Azure datasource is there as {path} only, without its source")
        reading.exists(image, main)
        return None
    texts = {main: reading.text(image, main) or ""}
    helper = reading.text(image, f"{folder}/sources/helpers/azure.py")
    if helper is not None:
        texts[f"{folder}/sources/helpers/azure.py"] = helper
    if image.tree.is_directory(f"{folder}/sources/azure"):
        texts |= reading.texts(image, f"{folder}/sources/azure", "*.py")
    return in_source(texts)


def in_source(texts: Mapping[str, str]) -> Found:
    """The same of source files by path. Raises Unread where a file that speaks of it cannot be parsed."""
    files = tuple(texts)
    speaking = {path: text for path, text in texts.items() if SETTING in text or AGENT in text}
    if not speaking:
        return Found(Support.NONE, files)
    trees = {path: _parsed(path, text) for path, text in texts.items() if path in speaking or len(text) < _LARGEST}
    reads = any(_is_text(node, SETTING) for tree in trees.values() for node in ast.walk(tree))
    names = [name for tree in trees.values() for name in _askers(tree)]
    for name in names:
        called = sum(_calls(tree, name) for tree in trees.values())
        if called:
            kind = Support.ASKS if reads else Support.NONE
            return Found(kind, files, name, called, reads)
    return Found(Support.PARSED if reads else Support.NONE, files, names[0] if names else "", 0, reads)


def _parsed(path: str, text: str) -> ast.Module:
    if len(text) > _LARGEST:
        raise Unread(f"{path} has more than {_LARGEST >> 20} MiB, and no such file has")
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unread(f"{path} is no Python that can be parsed: {type(error).__name__}") from error


def _is_text(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text == node.value


def _is_command(node: ast.AST) -> bool:
    """A list or tuple that is `azure-proxy-agent --status …`."""
    if not isinstance(node, ast.List | ast.Tuple):
        return False
    words = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return any(word.rpartition("/")[2] == AGENT for word in words[:1]) and "--status" in words


def _askers(tree: ast.Module) -> Iterator[str]:
    """Functions that have the command in them, or use a name of the module that holds it, and call something."""
    held = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and _is_command(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        inside = list(ast.walk(node))
        has = any(_is_command(one) or (isinstance(one, ast.Name) and one.id in held) for one in inside)
        if has and any(isinstance(one, ast.Call) for one in inside):
            yield node.name


def _calls(tree: ast.Module, name: str) -> int:
    """How often a function of this name is called, but for calls within itself."""
    count, waiting = 0, list[ast.AST](tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            continue
        if isinstance(node, ast.Call):
            called = node.func
            own = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            count += own == name
        waiting += list(ast.iter_child_nodes(node))
    return count
