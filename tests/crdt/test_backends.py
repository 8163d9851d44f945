"""Every backend keeps the contract of crdt/backend.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.backend import Backend
from llmcrdt.crdt.registry import DEFAULT, backend, kinds
from llmcrdt.exceptions import InvalidContent
from llmcrdt.testing.backend_suite import BackendSuite
from llmcrdt.testing.memory_backend import MemoryBackend


class TestYjsBackend(BackendSuite):
    def backend(self) -> Backend:
        return backend("yjs")


@pytest.mark.skipif("automerge" not in kinds(), reason="automerge is not installed: pip install 'llmcrdt[automerge]'")
class TestAutomergeBackend(BackendSuite):
    locates = False

    def backend(self) -> Backend:
        return backend("automerge")

    def all_bytes(self, update: bytes) -> bytes:
        replica = backend("automerge").begin(update)
        assert isinstance(replica, AutomergeReplica)
        return b"\0".join((update, *(change.raw for change in replica.changes())))


class TestMemoryBackend(BackendSuite):
    def backend(self) -> Backend:
        return MemoryBackend()


def test_each_registered_kind_has_a_backend_that_says_so() -> None:
    assert DEFAULT in kinds()
    for kind in kinds():
        assert backend(kind).kind == kind
    with pytest.raises(InvalidContent, match="yjs"):
        backend("sealed")


def test_the_kinds_are_known_without_any_core() -> None:
    code = "import sys; from llmcrdt.crdt.registry import kinds; assert kinds(); assert 'pycrdt' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
