"""cloud-init's support of MSP, found in source: Debian's own packages on both sides of 24.3, and what was changed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image import cloud_config, cloud_init
from harness.image.cloud_init import Support
from harness.image.image import Image, Package
from harness.image.reading import Unread
from harness.image.tree import Entry, Tree
from harness.vm import archives, cache
from harness.vm.apt import Apt
from tests.image import trees
from tests.image.trees import NEW_DATASOURCE, OLD_DATASOURCE, PARSING_DATASOURCE, changed, file

FOLDER = "/usr/lib/python3/dist-packages/cloudinit"


@functools.cache
def debians(suite: str) -> Image:
    """cloud-init as a suite's package has it; fetched once and kept."""

    def make(place: Path) -> None:
        with cache.locked("apt", suite):
            apt = Apt(suite, cache.directory() / "apt" / suite)
            apt.update()
            apt.download("cloud-init", place)

    package = next(cache.kept("test-packages", f"cloud-init-{suite}", make).glob("*.deb"))
    files = {f"/{one.name.removeprefix('./')}": file(b"".join(_pieces(one))) for one in archives.deb_files(package)}
    version = package.name.split("_")[1].replace("%3a", ":")
    return Image(suite, trees.DISK, Tree(files), {"cloud-init": Package("cloud-init", version)})


def _pieces(one: archives.File) -> list[bytes]:
    return [one.content.read()]


@pytest.mark.parametrize(
    ("suite", "number", "support"),
    [
        ("bullseye", (20, 4, 1), Support.NONE),
        ("bookworm", (22, 4, 2), Support.NONE),
        ("trixie", (25, 1, 4), Support.ASKS),
        ("forky", (26,), Support.ASKS),
    ],
)
def test_debians_own_on_both_sides_of_24_3(suite: str, number: tuple[int, ...], support: Support) -> None:
    image = debians(suite)
    assert cloud_init.folders(image) == [FOLDER]
    found = cloud_init.support(image, FOLDER)
    assert found is not None
    assert found.support is support
    if support is Support.ASKS:
        assert (found.asks, found.called) == ("_check_azure_proxy_agent_status", 2)
    versions = {cloud_init.number(text) for text in cloud_init.file_versions(image, FOLDER).values()}
    assert len(versions) == 1
    assert versions.pop()[: len(number)] == number


def test_a_real_one_with_the_call_taken_out_only_reads_the_setting() -> None:
    image = debians("trixie")
    path = f"{FOLDER}/sources/DataSourceAzure.py"
    text = image.tree.text(path) or ""
    assert text.count("self._check_azure_proxy_agent_status()") == 2
    image = changed(image, {path: file(text.replace("self._check_azure_proxy_agent_status()", "pass"))})
    found = cloud_init.support(image, FOLDER)
    assert found is not None
    assert (found.support, found.called) == (Support.PARSED, 0)


def test_a_real_old_one_with_the_function_taken_back_asks() -> None:
    image = debians("bookworm")
    path = f"{FOLDER}/sources/DataSourceAzure.py"
    image = changed(image, {path: file((image.tree.text(path) or "") + "\n\n" + NEW_DATASOURCE)})
    found = cloud_init.support(image, FOLDER)
    assert found is not None
    assert found.support is Support.ASKS


SETTING = "SETTING = 'ProvisionGuestProxyAgent'\n"


@pytest.mark.parametrize(
    ("source", "support"),
    [
        (NEW_DATASOURCE, Support.ASKS),
        (OLD_DATASOURCE, Support.NONE),
        (PARSING_DATASOURCE, Support.PARSED),
        ("# azure-proxy-agent --status, ProvisionGuestProxyAgent\n", Support.NONE),  # a comment
        (SETTING + "C = ('/usr/sbin/azure-proxy-agent', '--status')\ndef ask():\n    run(C)\nask()\n", Support.ASKS),
        (SETTING + "C = ('azure-proxy-agent', '--status')\n", Support.PARSED),  # nobody uses it
        (SETTING + "def ask():\n    run(['azure-proxy-agent', '--version'])\nask()\n", Support.PARSED),
        (
            SETTING + "def ask():\n    run(['azure-proxy-agent', '--status'])\n    ask()\n",
            Support.PARSED,
        ),  # by itself only
        (SETTING + "def ask():\n    ['azure-proxy-agent', '--status']\nask()\n", Support.PARSED),  # nothing is run
        (SETTING + "async def ask():\n    await run(['azure-proxy-agent', '--status'])\nawait_(ask())\n", Support.ASKS),
        ("def ask():\n    run(['azure-proxy-agent', '--status'])\nask()\n", Support.NONE),  # whatever the platform says
    ],
)
def test_in_source(source: str, support: Support) -> None:
    assert cloud_init.in_source({"a.py": source}).support is support


def test_it_may_be_spread_over_files() -> None:
    found = cloud_init.in_source(
        {"main.py": PARSING_DATASOURCE, "ask.py": NEW_DATASOURCE.replace("ProvisionGuest", "")}
    )
    assert found.support is Support.ASKS


@pytest.mark.parametrize(
    "source", ["print 'azure-proxy-agent'\n", "azure-proxy-agent = (" + "(" * 5000, "'azure-proxy-agent\0'"]
)
def test_what_speaks_of_it_and_cannot_be_parsed_is_not_found_out(source: str) -> None:
    with pytest.raises(Unread, match="no Python"):
        cloud_init.in_source({"a.py": source})


def test_python_2_that_does_not_speak_of_it_does_not_know_it() -> None:
    assert cloud_init.in_source({"a.py": "print 'hello'\n"}).support is Support.NONE


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("22.4.2-1+deb12u4", (22, 4, 2)), ("24.4", (24, 4)), ("1:23.1.2-0ubuntu0~22.04.1", (23, 1, 2)),
        ("24.3.1-0ubuntu0~20.04.1", (24, 3, 1)), ("v25.1", (25, 1)), ("", ()), ("unknown", ()),
    ],
)  # fmt: skip
def test_numbers(text: str, number: tuple[int, ...]) -> None:
    assert cloud_init.number(text) == number


def test_a_packaged_version_comes_before_upstreams() -> None:
    text = '__VERSION__ = "24.4"\n_PACKAGED_VERSION = "24.4.1-0ubuntu0~24.04.1"\n'
    image = changed(trees.debian(), {f"{FOLDER}/version.py": file(text)})
    assert cloud_init.file_versions(image, FOLDER)[f"{FOLDER}/version.py"] == "24.4.1-0ubuntu0~24.04.1"


# --- configuration ----------------------------------------------------------------------------------------------------


def read(**texts: str) -> cloud_config.CloudConfig:
    entries: dict[str, Entry] = {"/etc/cloud/cloud.cfg": file(texts.pop("main", ""))}
    entries |= {f"/etc/cloud/cloud.cfg.d/{name}.cfg": file(text) for name, text in texts.items()}
    return cloud_config.read(Image("x", trees.DISK, Tree(entries)))


def test_later_files_replace_lists_and_merge_mappings() -> None:
    found = read(main="a: [1]\nm: {x: 1, y: 2}\n", b10="a: [2]\nm: {y: 3}\n", b20="m: {z: 4}\n")
    assert found.values == {"a": [2], "m": {"x": 1, "y": 3, "z": 4}}
    assert found.told["a"] == ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/b10.cfg")


def test_a_wrong_file_is_told_and_left_out() -> None:
    found = read(main="a: 1\n", b="a: [\n", c="- 1\n", d="a: 2\n")
    assert found.values == {"a": 2}
    assert list(found.wrong.values()) == ["it is no YAML in line 2", "it is no mapping"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "!!python/object/apply:os.system [true]",
        "a: 2001-99-99",
        "? [a]\n: 1\n? {b: 1}\n: 2",
        "a: " + "9" * 10_000,
        "\0",
        "a: *b",
    ],
)
def test_hostile_yaml_is_wrong_and_no_more(text: str) -> None:
    values, trouble = cloud_config.parse(text)
    assert trouble
    assert values == {}


@given(st.text(alphabet=st.sampled_from("ab:- \n[]{},&*!#'\"|>%@`?\t0_.<"), max_size=80))
def test_any_text_is_parsed_or_told(text: str) -> None:
    values, trouble = cloud_config.parse(text)
    assert not (values and trouble)
    assert all(isinstance(name, str) for name in values)


_NAMES = st.text("ab", max_size=2)
_VALUES = st.recursive(
    st.none() | st.integers() | _NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=3))
def test_merging_the_same_again_changes_nothing(values: dict[str, Any]) -> None:
    once = cloud_config._merged({}, values)
    assert cloud_config._merged(once, values) == once


def test_a_huge_file_is_not_read() -> None:
    with pytest.raises(Unread, match="more than 128 KiB"):
        read(main="a: 1\n" + "#" * (200 << 10))
