"""Names that lead elsewhere."""

from pathlib import Path

import pytest

from harness.foreign.places import climbs_out, ends_below, inside, linked_out


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "C:\\x", "\\\\host\\x", "a\\..\\..\\x", "a\0b", "\ud800", "a" * 256]
)
def test_a_name_that_is_absolute_climbs_or_is_none_is_told(name):
    assert climbs_out(name)


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "..a", "a..b/c", "ü.png"])
def test_an_ordinary_name_is_none_of_these(name):
    assert not climbs_out(name)


def test_a_place_is_below_its_root_with_links_followed(tmp_path):
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "round").symlink_to(tmp_path / "root" / "round")
    (tmp_path / "root" / "in").symlink_to(tmp_path / "root" / "deep")
    root = tmp_path / "root"
    assert inside(root, "in/x") == (root / "deep" / "x").resolve()
    for name in ("../secret", "out/x", "/etc", "a\0", str(Path("..") / "root2")):
        with pytest.raises(ValueError, match="root"):
            inside(root, name)
    assert not ends_below(root / "out", root) and not ends_below(root / "round", root) and ends_below(root / "in", root)


def test_the_first_link_out_of_the_root_is_named(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "root" / "images"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for name in ("a.jpg", "sub/b.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "linked").symlink_to(tmp_path / "secret")
    (folder / "near.jpg").symlink_to(folder / "a.jpg")
    names = ["a.jpg", "sub/b.jpg", "near.jpg"]
    assert linked_out(folder, names, root) is None
    assert linked_out(folder, [*names, "linked/c.jpg"], root) == "linked/c.jpg"
    (folder / "far.jpg").symlink_to(tmp_path / "secret")
    assert linked_out(folder, [*names, "far.jpg"], root) == "far.jpg"
