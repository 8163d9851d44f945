"""Break each rule in a copy of the tree, one at a time, and check that its test fails:  python scripts/mutate.py [RULE]

A mutation that survives means that a rule has no test. ``--check`` says which mutations no longer fit the code, and
runs nothing. ``--table`` writes the list into docs/semantics.md.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from py_compile import PycInvalidationMode

from access_mutations import ACCESS_MUTATIONS
from anchors import AnchorError, Change, Definitions
from attachment_mutations import ATTACHMENT_MUTATIONS
from automerge_mutations import AUTOMERGE_MUTATIONS
from engine_mutations import ENGINE_MUTATIONS
from format_mutations import FORMAT_MUTATIONS
from hidden_mutations import HIDDEN_MUTATIONS
from http_mutations import HTTP_MUTATIONS
from mutations import MUTATIONS, Mutation
from people_mutations import PEOPLE_MUTATIONS
from relay_mutations import RELAY_MUTATIONS
from run_tests import MEMORY, room_in_memory
from stream_mutations import STREAM_MUTATIONS

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "semantics.md"
_BEGIN, _END = "<!-- mutations: written by scripts/mutate.py --table -->\n", "<!-- end of mutations -->"
_PACKAGES = ("llmcrdt", "sync_server")
_NEEDED = (*_PACKAGES, "tests", "pyproject.toml")
_NODE = Path("tests", "peers", "node_modules")
_ROOM = 2 << 30
"""Bytes: the copies of the tree are links to one, and tests leave their last three folders."""
_AT_ONCE = 2
_CAUGHT, _SURVIVED, _NOT_RUN = "caught", "SURVIVED", "NOT RUN"
EVERY = (
    *MUTATIONS,
    *HIDDEN_MUTATIONS,
    *FORMAT_MUTATIONS,
    *STREAM_MUTATIONS,
    *ENGINE_MUTATIONS,
    *ACCESS_MUTATIONS,
    *ATTACHMENT_MUTATIONS,
    *HTTP_MUTATIONS,
    *PEOPLE_MUTATIONS,
    *RELAY_MUTATIONS,
    *AUTOMERGE_MUTATIONS,
)


def table() -> str:
    """The list of mutations as the page has it."""
    rows = (f"| {m.rule} | {m.name} | `{m.test.removeprefix('tests/')}` |" for m in MUTATIONS)
    return "\n".join(["| rule | broken so | test that fails |", "|---|---|---|", *rows, ""])


def page() -> str:
    """docs/semantics.md with the list as it is now."""
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table() + _END + after


def definitions(root: Path = _ROOT) -> Definitions:
    """All that the mutations can change in the tree below ``root``."""
    return Definitions(root, _PACKAGES)


def mutated(code: Definitions, mutation: Mutation) -> Change:
    """The file that breaks the rule, as it is with this change alone.

    AnchorError: the mutation doesn't fit the code any more.
    """
    try:
        return code.change(mutation.target, mutation.old, mutation.new)
    except AnchorError as e:
        raise AnchorError(f"{mutation.rule} {mutation.name!r}: {e}") from None


def misfits(code: Definitions, mutations: Sequence[Mutation]) -> list[str]:
    """Of each mutation that doesn't fit the code, why."""
    found = []
    for mutation in mutations:
        try:
            mutated(code, mutation)
        except AnchorError as e:
            found.append(str(e))
    return found


def main(rules: Sequence[str]) -> int:
    if rules == ["--table"]:
        _PAGE.write_text(page(), encoding="utf-8")
        return 0
    if rules == ["--check"]:
        found = misfits(definitions(), EVERY)
        print("\n".join([*found, f"{len(EVERY) - len(found)} of {len(EVERY)} mutations fit the code"]))
        return 1 if found else 0
    if unknown := {*rules} - {mutation.rule for mutation in EVERY}:
        known = " ".join(sorted({mutation.rule for mutation in EVERY}))
        text = f"No rule is called {', '.join(sorted(unknown))}. There are: {known}, and --check and --table."
        print(text, file=sys.stderr)
        return 2
    chosen = [mutation for mutation in EVERY if not rules or mutation.rule in rules]
    folder = room_in_memory(MEMORY, Path("/proc/meminfo"), _ROOM) or Path(tempfile.mkdtemp())
    try:
        return _break_each(chosen, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _break_each(chosen: Sequence[Mutation], folder: Path) -> int:
    """Says of each mutation, as soon as it is known, whether its test fails; at the end, which ones survived."""
    start = time.monotonic()
    whole = _copy(_ROOT, folder / "whole")
    code = definitions(whole)
    if found := misfits(code, chosen):
        print("\n".join(found), file=sys.stderr)
        return 2
    tests = sorted({mutation.test for mutation in chosen})
    print(f"{len(tests)} tests and files of tests run without any mutation", flush=True)
    environment = _environment(whole)
    del environment["PYTHONDONTWRITEBYTECODE"]
    done = _run(whole, ["-n", str(_AT_ONCE), "--dist", "worksteal", *tests], environment)
    if done.returncode:
        print(f"The tests fail without any mutation:\n{done.stdout}{done.stderr}", file=sys.stderr)
        return 2
    print(f"They pass, after {time.monotonic() - start:.0f} s", flush=True)
    missed = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = {pool.submit(_outcome, code, whole, number, m): m for number, m in enumerate(chosen)}
        for count, future in enumerate(as_completed(results), 1):
            mutation, outcome = results[future], future.result()
            line = f"{outcome:8} {mutation.rule:4} {mutation.name}"
            print(f"{count:3}/{len(chosen)} {line}", flush=True)
            if outcome != _CAUGHT:
                missed.append(line)
    for line in missed:
        print(line)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutations caught in {time.monotonic() - start:.0f} s")
    return 1 if missed else 0


def _copy(root: Path, to: Path) -> Path:
    """A copy of all that the tests need, compiled. Packages for Node are linked to, for no mutation changes one.

    What is compiled names the content of its source, not its time, so a changed file is never taken for the old one.
    """
    to.mkdir()
    for name in _NEEDED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__", _NODE.name))
        else:
            shutil.copy(source, to)
    if (root / _NODE).is_dir():
        (to / _NODE).symlink_to(root / _NODE)
    for package in _PACKAGES:
        compileall.compile_dir(to / package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return to


def _outcome(code: Definitions, whole: Path, number: int, mutation: Mutation) -> str:
    """Whether the mutation's test fails on a tree that differs from the whole one by this change alone."""
    tree = whole.with_name(str(number))
    shutil.copytree(whole, tree, symlinks=True, copy_function=os.link)
    change = mutated(code, mutation)
    (tree / change.file).unlink()  # the whole tree has the same file
    (tree / change.file).write_text(change.text, encoding="utf-8")
    done = _run(tree, ["-x", mutation.test], _environment(tree))
    shutil.rmtree(tree)
    if done.returncode not in (0, 1):
        print(f"pytest could not run {mutation.test}:\n{done.stdout}{done.stderr}", file=sys.stderr, flush=True)
        return _NOT_RUN
    return _CAUGHT if done.returncode else _SURVIVED


def _environment(tree: Path) -> dict[str, str]:
    """Tests find the tree's packages, and leave nothing compiled that another tree would take for its own."""
    return {
        "PYTHONPATH": str(tree),
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(tree.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _run(tree: Path, arguments: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """pytest's exit code is 1 where a test fails, and 0 where all pass. It has others, such as for a test that is not
    there."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
