"""The tree in memory: links are followed inside it and never out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image.tree import Entry, Kind, Tree


def file(data: bytes = b"") -> Entry:
    return Entry(Kind.FILE, size=len(data), data=data)


def link(target: str) -> Entry:
    return Entry(Kind.LINK, 0o777, target=target)


TREE = Tree(
    {
        "/bin": link("usr/bin"),
        "/usr/bin/tool": file(b"tool"),
        "/etc/passwd": file(b"root"),
        "/etc/out": link("../../../../etc/passwd"),
        "/etc/absolute": link("/usr/bin/tool"),
        "/etc/loop": link("loop"),
        "/etc/nowhere": link("/no/such"),
        "/etc/under": link("passwd/below"),
    }
)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/bin/tool", "tool"),
        ("/etc/out", "root"),  # above the root is the root
        ("/etc/absolute", "tool"),
        ("/../bin/../bin/./tool", "tool"),
        ("/etc/loop", None),
        ("/etc/nowhere", None),
        ("/etc/under", None),
        ("/etc/passwd/below", None),
        ("/etc", None),
    ],
)
def test_links_are_followed_inside_the_tree(path: str, text: str | None) -> None:
    assert TREE.text(path) == text


def test_a_link_to_nowhere_is_there_and_leads_to_nothing() -> None:
    assert TREE.exists("/etc/nowhere")
    assert TREE.entry("/etc/nowhere") is None
    assert TREE.link("/etc/nowhere") == "/no/such"


def test_parents_are_directories_and_names_are_sorted() -> None:
    assert TREE.is_directory("/usr")
    assert TREE.names("/bin") == ["tool"]
    assert TREE.names("/") == ["bin", "etc", "usr"]
    assert TREE.names("/no") == []
    assert TREE.glob("/etc/*o*") == ["/etc/absolute", "/etc/loop", "/etc/nowhere", "/etc/out"]
    assert [path for path, _ in TREE.below("/usr")] == ["/usr/bin", "/usr/bin/tool"]


def test_a_changed_tree_is_another() -> None:
    changed = TREE.with_entries({"/usr": None, "/etc/new": file(b"new")})
    assert changed.text("/bin/tool") is None
    assert changed.text("/etc/new") == "new"
    assert TREE.text("/bin/tool") == "tool"


NAMES = st.sampled_from(["a", "b", "c", "..", "."])
TARGETS = st.lists(NAMES, min_size=1, max_size=4).map("/".join) | st.lists(NAMES).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    st.dictionaries(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p)), TARGETS)
)
def test_whatever_links_there_are_a_path_ends_in_the_tree(links: dict[str, str]) -> None:
    tree = Tree({"/a/b/c": file(b"x"), **{path: link(target) for path, target in links.items()}})
    for path in links:
        found = tree.resolve(path)
        assert found is None or found == "/" or tree.exists(found)
