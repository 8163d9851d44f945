"""Finds a definition by its qualified name, wherever it stands in the packages, and changes a piece of its source.

A file that moves and code that is indented anew leave such an anchor valid.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class AnchorError(Exception):
    """No definition, or more than one, has the name; or it does not hold the pattern exactly once."""


class Definition(NamedTuple):
    """The place of a function, a class, or a variable of a module or class."""

    file: Path
    module: str
    start: int  # the first character of its first line, which may be a decorator
    end: int  # after the last character of its last line


class Change(NamedTuple):
    """A file, below the root, and the text that it has after a change."""

    file: Path
    text: str


class Definitions:
    """All definitions of the packages below ``root``, as they are when this is made."""

    def __init__(self, root: Path, packages: Sequence[str]) -> None:
        self._texts: dict[Path, str] = {}
        self._named: dict[str, list[Definition]] = defaultdict(list)
        for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
            file = path.relative_to(root)
            self._texts[file] = text = path.read_text(encoding="utf-8")
            module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
            starts = [0]
            for line in text.split("\n"):
                starts.append(starts[-1] + len(line) + 1)
            for name, first, last in _definitions(ast.parse(text, str(file)), ""):
                self._named[name].append(Definition(file, module, starts[first - 1], starts[last] - 1))

    def find(self, target: str) -> Definition:
        """The definition that ``target`` names: ``Class.method`` where only one module has it; otherwise
        ``module:Class.method``, with as many of the module's last components as tell it apart.

        AnchorError: there is none, or more than one.
        """
        module, _, name = target.rpartition(":")
        named = [d for d in self._named.get(name, ()) if f".{d.module}".endswith(f".{module}" if module else "")]
        if not named:
            last = name.rpartition(".")[2]
            alike = (f"{d.module}:{n}" for n, ds in self._named.items() if n.rpartition(".")[2] == last for d in ds)
            raise AnchorError(f"nothing is called {target}; of that last name there is {_listed(alike)}")
        if len(named) > 1:
            raise AnchorError(f"{target} is defined more than once, in {_listed(d.module for d in named)}")
        return named[0]

    def change(self, target: str, old: str, new: str) -> Change:
        """``old`` replaced by ``new`` in the definition ``target``.

        The lines of both after the first are indented relative to the line that ``old`` begins on. A line of which
        nothing is left goes.

        AnchorError: see ``find``; or ``old`` is not in it exactly once; or the result is no Python.
        """
        file, _, start, end = self.find(target)
        text = self._texts[file]
        found = list(_places(text, old, start, end))
        if len(found) != 1:
            times = f"holds {len(found)} times" if found else "no longer holds"
            raise AnchorError(f"{target} {times} {old!r}")
        (first, last, indent) = found[0]
        before, after = text[:first], text[last:]
        if not new and after.startswith("\n") and not before.rpartition("\n")[2].strip():
            before, after = before.rstrip(" "), after[1:]
        text = before + new.replace("\n", f"\n{indent}") + after
        try:
            ast.parse(text)
        except SyntaxError as e:
            raise AnchorError(f"{target} is no Python with {new!r}: {e}") from None
        return Change(file, text)


def _definitions(parent: ast.AST, prefix: str, local: bool = False) -> Iterator[tuple[str, int, int]]:
    """The qualified name of each definition, its first and its last line. ``local``: variables are no definitions."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield prefix + node.name, first, node.end_lineno or node.lineno
            yield from _definitions(node, f"{prefix}{node.name}.", not isinstance(node, ast.ClassDef))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not local:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, node.lineno, node.end_lineno or node.lineno
        else:
            yield from _definitions(node, prefix, local)


def _places(text: str, pattern: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """The place of the pattern, and the indentation of the line that it begins on."""
    head, _, _ = pattern.partition("\n")
    place = text.find(head, start, end)
    while place >= 0:
        line = text[text.rfind("\n", 0, place) + 1 :]
        indent = line[: len(line) - len(line.lstrip(" "))]
        whole = pattern.replace("\n", f"\n{indent}")
        if text.startswith(whole, place) and place + len(whole) <= end:
            yield place, place + len(whole), indent
        place = text.find(head, place + 1, end)


def _listed(names: Iterator[str]) -> str:
    return ", ".join(sorted(names)) or "none"
