"""Break each rule in a copy of the tree, one at a time, and check that its test fails:  python scripts/mutate.py [RULE]

A mutation that survives means that a rule has no test. ``--table`` writes the list into docs/semantics.md instead.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation
from relay_mutations import RELAY_MUTATIONS

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "semantics.md"
_BEGIN, _END = "<!-- mutations: written by scripts/mutate.py --table -->\n", "<!-- end of mutations -->"
_NEEDED = ("llmcrdt", "sync_server", "tests", "pyproject.toml")


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


def main(rules: Sequence[str]) -> int:
    if rules == ["--table"]:
        _PAGE.write_text(page(), encoding="utf-8")
        return 0
    every = (*MUTATIONS, *RELAY_MUTATIONS)
    if unknown := {*rules} - {mutation.rule for mutation in every}:
        known = " ".join(sorted({mutation.rule for mutation in every}))
        print(f"No rule is called {', '.join(sorted(unknown))}. There are: {known}, and --table.", file=sys.stderr)
        return 2
    chosen = [mutation for mutation in every if not rules or mutation.rule in rules]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = _copy(Path(folder) / "whole")
        failed = _run(whole, sorted({mutation.test for mutation in chosen}))
        if failed:
            print(f"The tests fail without any mutation:\n{failed}", file=sys.stderr)
            return 2
        with ThreadPoolExecutor(2) as pool:
            caught = list(pool.map(lambda pair: _is_caught(Path(folder) / str(pair[0]), pair[1]), enumerate(chosen)))
    for mutation, result in zip(chosen, caught, strict=True):
        print(f"{'caught  ' if result else 'SURVIVED'} {mutation.rule:4} {mutation.name}")
    print(f"{sum(caught)} of {len(caught)} mutations caught in {time.monotonic() - start:.0f} s")
    return 0 if all(caught) else 1


def _copy(to: Path) -> Path:
    to.mkdir()
    for name in _NEEDED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to)
    return to


def _is_caught(folder: Path, mutation: Mutation) -> bool:
    """Whether the mutation's test fails on a tree that has only this change."""
    tree = _copy(folder)
    file = tree / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file}: {mutation.name!r} does not fit the code any more")
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    caught = bool(_run(tree, [mutation.test]))
    shutil.rmtree(tree)
    return caught


def _run(tree: Path, tests: Sequence[str]) -> str:
    """What pytest says where a test fails; "" where all pass. Anything else, such as a test that is not there, ends
    the run."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    return done.stdout if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
