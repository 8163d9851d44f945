"""Break each rule in a copy of the tree, one at a time, and check that its test fails:  python scripts/mutate.py [RULE]

A mutation that survives means that a rule has no test. ``--check`` says which mutations no longer fit the code, and
runs nothing. ``--table`` writes the list into docs/semantics.md.
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

from access_mutations import ACCESS_MUTATIONS
from anchors import AnchorError, Change, Definitions
from engine_mutations import ENGINE_MUTATIONS
from format_mutations import FORMAT_MUTATIONS
from hidden_mutations import HIDDEN_MUTATIONS
from http_mutations import HTTP_MUTATIONS
from mutations import MUTATIONS, Mutation
from people_mutations import PEOPLE_MUTATIONS
from relay_mutations import RELAY_MUTATIONS
from stream_mutations import STREAM_MUTATIONS

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "semantics.md"
_BEGIN, _END = "<!-- mutations: written by scripts/mutate.py --table -->\n", "<!-- end of mutations -->"
_PACKAGES = ("llmcrdt", "sync_server")
_NEEDED = (*_PACKAGES, "tests", "pyproject.toml")
EVERY = (
    *MUTATIONS,
    *HIDDEN_MUTATIONS,
    *FORMAT_MUTATIONS,
    *STREAM_MUTATIONS,
    *ENGINE_MUTATIONS,
    *ACCESS_MUTATIONS,
    *HTTP_MUTATIONS,
    *PEOPLE_MUTATIONS,
    *RELAY_MUTATIONS,
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
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = _copy(_ROOT, Path(folder) / "whole")
        code = definitions(whole)
        if found := misfits(code, chosen):
            print("\n".join(found), file=sys.stderr)
            return 2
        failed = _run(whole, sorted({mutation.test for mutation in chosen}))
        if failed:
            print(f"The tests fail without any mutation:\n{failed}", file=sys.stderr)
            return 2
        with ThreadPoolExecutor(2) as pool:
            caught = list(pool.map(lambda pair: _is_caught(code, whole, *pair), enumerate(chosen)))
    for mutation, result in zip(chosen, caught, strict=True):
        print(f"{'caught  ' if result else 'SURVIVED'} {mutation.rule:4} {mutation.name}")
    print(f"{sum(caught)} of {len(caught)} mutations caught in {time.monotonic() - start:.0f} s")
    return 0 if all(caught) else 1


def _copy(root: Path, to: Path) -> Path:
    to.mkdir()
    for name in _NEEDED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to)
    return to


def _is_caught(code: Definitions, whole: Path, number: int, mutation: Mutation) -> bool:
    """Whether the mutation's test fails on a copy of the whole tree that has only this change."""
    tree = _copy(whole, whole.with_name(str(number)))
    change = mutated(code, mutation)
    (tree / change.file).write_text(change.text, encoding="utf-8")
    caught = bool(_run(tree, [mutation.test]))
    shutil.rmtree(tree)
    return caught


def _run(tree: Path, tests: Sequence[str]) -> str:
    """The output of pytest where a test fails; "" where all pass. Anything else, such as a test that is not there, ends
    the run."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    return done.stdout if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
