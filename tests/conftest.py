"""Shared fixtures: repos in a temporary folder, closed at the end."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import llmcrdt
from llmcrdt.crdt import registry
from llmcrdt.exceptions import MalformedUpdate
from sync_server.memory import keep_what_is_there

# How long an example takes is the machine's affair.
settings.register_profile("llmcrdt", deadline=None)
settings.load_profile("llmcrdt")


_YJS = "no Automerge chunk", "Cannot decode update", "Cannot merge updates", "and this one is of kind yjs"
"""The error of another kind's bytes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--crdt", help="the kind of all documents that tests make; those that need Yjs are skipped")


def pytest_configure(config: pytest.Config) -> None:
    if kind := config.getoption("--crdt"):
        registry.backend(kind)
        registry.DEFAULT = kind


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Modules and tests stay until the end, so the garbage collector need not look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        keep_what_is_there()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """With ``--crdt``: what gives a document the bytes of another kind is not a test of that kind."""
    try:
        yield
    except (MalformedUpdate, ValueError) as error:
        if item.config.getoption("--crdt") and any(words in str(error) for words in _YJS):
            pytest.skip("somebody writes or reads Yjs")
        raise


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


@pytest.fixture
def relay_url(tmp_path: Path) -> Iterator[str]:
    """The address of a relay that runs as a process of its own."""
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(tmp_path / "relay")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(10)
    process.stdout.close()
