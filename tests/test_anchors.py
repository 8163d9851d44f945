"""Mutations find the code that they break by its name, so it may move."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import mutate
from anchors import AnchorError, Definitions

ROOT = Path(__file__).parents[1]
CODE = """
LIMIT: int = 3


class Shelf:
    @property
    def room(self) -> int:
        def left() -> int:
            if self.full:
                return 0
            return LIMIT - 1

        return left()
"""
AT = " " * 12  # where the lines of ``left`` begin


def code(root: Path, **files: str) -> Definitions:
    (root / "package" / "inner").mkdir(parents=True)
    for name, text in files.items():
        (root / "package" / name.replace("__", "/")).with_suffix(".py").write_text(text, encoding="utf-8")
    return Definitions(root, ("package",))


def moved(text: str) -> str:
    """The code as it is one level deeper."""
    return "if True:\n    pass\n" + textwrap.indent(text, "    ")


def test_every_mutation_still_fits_when_all_files_moved_and_all_code_is_indented_anew(tmp_path: Path) -> None:
    before = mutate.definitions()
    for package in ("llmcrdt", "sync_server"):
        for file in (ROOT / package).rglob("*.py"):
            to = tmp_path / package / "elsewhere" / file.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(moved(file.read_text(encoding="utf-8")), encoding="utf-8")
    after = mutate.definitions(tmp_path)
    for mutation in mutate.EVERY:
        file, text = mutate.mutated(before, mutation)
        assert mutate.mutated(after, mutation) == (Path(file.parts[0], "elsewhere", file), moved(text)), mutation.name


@pytest.mark.parametrize(
    ("target", "old", "new", "before", "after"),
    [
        ("LIMIT", "3", "4", "LIMIT: int = 3", "LIMIT: int = 4"),
        ("Shelf.room", "@property", "@cached", "@property", "@cached"),
        ("Shelf.room.left", "return 0", "a()\nreturn 1", f"{AT}    return 0", f"{AT}    a()\n{AT}    return 1"),
        ("Shelf.room.left", "if self.full:\n    return 0", "pass", f"if self.full:\n{AT}    return 0", "pass"),
        ("Shelf.room.left", "full:\n    return 0", "full: a()", f"full:\n{AT}    return 0", "full: a()"),
        ("Shelf.room.left", "if self.full:\n    return 0", "", f"{AT}if self.full:\n{AT}    return 0\n", ""),
    ],
)
def test_a_piece_of_a_definition_is_changed_and_nothing_else(
    target: str, old: str, new: str, before: str, after: str, tmp_path: Path
) -> None:
    assert code(tmp_path, shop=CODE).change(target, old, new) == (Path("package/shop.py"), CODE.replace(before, after))


def test_two_definitions_of_one_name_are_told_apart_by_their_modules(tmp_path: Path) -> None:
    found = code(tmp_path, shop=CODE, inner__shop=CODE, store=CODE)
    with pytest.raises(AnchorError, match=r"more than once, in package\.inner\.shop, package\.shop, package\.store"):
        found.find("Shelf.room")
    with pytest.raises(AnchorError, match=r"more than once, in package\.inner\.shop, package\.shop"):
        found.find("shop:Shelf.room")
    assert found.find("inner.shop:Shelf.room").file == Path("package/inner/shop.py")
    assert found.find("store:LIMIT").file == Path("package/store.py")


@pytest.mark.parametrize(
    ("target", "old", "new", "error"),
    [
        ("Box.room", "0", "1", "nothing is called Box.room; of that last name there is package.shop:Shelf.room"),
        ("store:LIMIT", "3", "4", "nothing is called store:LIMIT; of that last name there is package.shop:LIMIT"),
        ("Shelf.size", "0", "1", "nothing is called Shelf.size; of that last name there is none"),
        ("Shelf.room", "return 2", "", "Shelf.room no longer holds 'return 2'"),
        ("LIMIT", "LIMIT - 1", "", "LIMIT no longer holds 'LIMIT - 1'"),
        ("LIMIT", "3\n\n\nclass", "4", "LIMIT no longer holds"),
        ("Shelf.room", "return", "", "Shelf.room holds 3 times 'return'"),
        ("Shelf.room", "return 0", "", "Shelf.room is no Python with '': expected an indented block"),
        ("Shelf.room.left", "if self.full:\nreturn 0", "", "Shelf.room.left no longer holds"),
    ],
)
def test_what_does_not_fit_is_said(target: str, old: str, new: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(AnchorError) as raised:
        code(tmp_path, shop=CODE).change(target, old, new)
    assert str(raised.value).startswith(error)
