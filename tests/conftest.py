"""Shared fixtures: repos in a temporary folder, closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import llmcrdt

# How long an example takes is the machine's affair.
settings.register_profile("llmcrdt", deadline=None)
settings.load_profile("llmcrdt")


@pytest.fixture
def open_repo(tmp_path: Path) -> Iterator[Callable[..., llmcrdt.Repo]]:
    """``open_repo(name, library=None, **more)`` opens a repo in the test's folder."""
    opened: list[llmcrdt.Repo] = []

    def open_(name: str, library: str | None = None, **more: object) -> llmcrdt.Repo:
        repo = llmcrdt.open(tmp_path / f"{name}.db", library, author=name, **more)  # type: ignore[arg-type]
        opened.append(repo)
        return repo

    yield open_
    for repo in opened:
        repo.close()


@pytest.fixture
def sdist() -> Path:
    """The folder of real chat templates and vocabularies; the test is skipped where it is not here."""
    pytest.importorskip("llama_cpp")
    from benchmarks.sdist import NoSdist, models_folder

    try:
        return models_folder()
    except NoSdist as missing:
        pytest.skip(str(missing))
