"""Arguments of another type are refused with an error that says what to give; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.exceptions import InvalidContent, LLMCRDTError, MalformedUpdate, RelayUnreachable

WRONG: dict[str, tuple[type[LLMCRDTError], Callable[[Any, Any], Any]]] = {
    "create": (InvalidContent, lambda repo, conv: repo.create(5)),
    "rename": (InvalidContent, lambda repo, conv: repo.rename(conv.id, None)),
    "search": (InvalidContent, lambda repo, conv: repo.search(5)),
    "search limit": (InvalidContent, lambda repo, conv: repo.search("x", limit="2")),
    "list limit": (InvalidContent, lambda repo, conv: repo.list(limit="x")),
    "list before": (InvalidContent, lambda repo, conv: repo.list(before=5)),
    "connect": (RelayUnreachable, lambda repo, conv: repo.connect(5)),
    "apply": (MalformedUpdate, lambda repo, conv: conv.apply("x")),
    "diff": (InvalidContent, lambda repo, conv: conv.diff("x")),
    "entries": (InvalidContent, lambda repo, conv: conv.entries(last="x")),
    "hidden": (InvalidContent, lambda repo, conv: conv.append("user", "x", hidden=5)),
    "model": (InvalidContent, lambda repo, conv: conv.append("user", "x", model=5)),
    "frame": (InvalidContent, lambda repo, conv: conv.append("assistant", "x", frame=5)),
    "observe": (InvalidContent, lambda repo, conv: conv.observe(5)),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_another_type_is_told_and_changes_nothing(tmp_path: Path, name: str) -> None:
    error, call = WRONG[name]
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create("Trip")
        conv.append("user", "Hello")
        before = conv.version(), [row.title for row in repo.list()]
        with pytest.raises(error) as told:
            call(repo, conv)
        assert told.value.message and told.value.hint
        assert (conv.version(), [row.title for row in repo.list()]) == before
