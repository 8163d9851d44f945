"""Properties of the project as a whole."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmcrdt

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "llmcrdt" / "__init__.pyi"
SKIP = {".git", ".venv", "__pycache__", "shared", "build", "dist"}
CACHES = re.compile(r"\..*_cache|\.hypothesis|.*\.egg-info")

# Written in pieces, so that this file doesn't hold what it looks for.
ELSEWHERE = {
    "a home folder": re.compile(r"(?<![\w.])/(?:home|Users)/" + r"[\w.-]|(?<![\w.])/root" + r"/"),
    "a work folder": re.compile(r"(?<![\w.~])/(?:work|tmp" + r"/w)/"),
    "a registry": re.compile(r"(?:pypi\.org|pythonhosted\.org|registry\.npmjs|anaconda\.org|artifact" + r"ory)\b"),
}


def files_of_the_project() -> list[Path]:
    """The files that git tracks, or would; where there is no git, all that isn't a cache."""
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        inside = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        paths = [ROOT / p for p in inside if not any(part in SKIP or CACHES.fullmatch(part) for part in p.parts)]
    return [path for path in paths if path.is_file()]


def modules_loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter loads for a statement, beyond those it starts with."""
    code = (
        f"import sys, json; sys.path.insert(0, {str(ROOT)!r}); before = {{*sys.modules}}\n"
        f"{statement}\nprint(json.dumps(sorted({{*sys.modules}} - before)))"
    )
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(found.stdout))


def foreign(modules: set[str]) -> set[str]:
    roots = {name.partition(".")[0] for name in modules}
    return roots - {*sys.stdlib_module_names} - {"llmcrdt"}


def names_in(stub: str) -> list[str]:
    """The public names that a stub file declares: `import X as X`, assignments, functions and classes."""
    names = []
    for node in ast.parse(stub).body:
        match node:
            case ast.ImportFrom() | ast.Import():
                names += [alias.asname for alias in node.names if alias.asname]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.append(node.name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Assign(targets=targets):
                names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def test_importing_the_library_loads_nothing_of_others() -> None:
    loaded = modules_loaded_by("import llmcrdt")
    assert "llmcrdt" in loaded
    assert foreign(loaded) == set()


@pytest.mark.parametrize("package", ["llmcrdt", "sync_server"])
def test_type_checkers_are_told_that_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_what_others_wrote_would_be_noticed() -> None:
    assert "pytest" in foreign(modules_loaded_by("import llmcrdt, pytest"))


def test_importing_the_library_loads_no_engine_store_or_wire() -> None:
    heavy = {
        "asyncio",
        "sqlite3",
        "ssl",
        "llmcrdt.repo.repo",
        "llmcrdt.document.conversation",
        "llmcrdt.engine.llama.engine",
    }
    assert modules_loaded_by("import llmcrdt") & heavy == set()


def test_every_public_name_resolves() -> None:
    names = names_in(STUB.read_text(encoding="utf-8"))
    assert names
    assert [name for name in names if not hasattr(llmcrdt, name)] == []


def test_the_stub_and_the_module_name_the_same() -> None:
    public = {name for name in llmcrdt.__all__ if not name.startswith("_")}
    assert {*names_in(STUB.read_text(encoding="utf-8"))} == public


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = llmcrdt.no_such_name  # type: ignore[attr-defined]


def test_names_in_a_stub_are_found() -> None:
    stub = "from .a import B as B, _c as _c\nfrom typing import Any\ndef f() -> None: ...\nclass C: ...\nx: int\n_y = 0"
    assert names_in(stub) == ["B", "f", "C", "x"]


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_no_file_names_a_place_outside_the_project(kind: str) -> None:
    found = []
    for path in files_of_the_project():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # bytes: vectors, pictures
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if ELSEWHERE[kind].search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a home folder", "open('/home" + "/ann/x')"),
        ("a home folder", "see /root" + "/.cache"),
        ("a work folder", "cd /work" + "/main"),
        ("a work folder", "PATH=/tmp" + "/w/v"),
        ("a registry", "https://pypi" + ".org/simple"),
    ],
)
def test_such_a_place_would_be_noticed(kind: str, text: str) -> None:
    assert ELSEWHERE[kind].search(text)


def test_the_files_are_all_looked_at() -> None:
    assert {ROOT / "pyproject.toml", Path(__file__), ROOT / "llmcrdt" / "ids.py"} <= {*files_of_the_project()}
