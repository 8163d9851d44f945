"""Every store keeps the contract of store/base.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmcrdt.store.base import Store
from llmcrdt.store.store import SqliteStore
from llmcrdt.testing.memory_store import MemoryStore
from llmcrdt.testing.store_suite import StoreSuite


class TestSqliteStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def open(
        self,
        cut: Callable[[str, bytes], Sequence[bytes]] = lambda _, update: [update],
        redact: Callable[[str, bytes, Sequence[bytes]], Sequence[bytes] | None] = lambda _, whole, updates: [whole],
    ) -> Store:
        return SqliteStore(self.folder / "a.db", lock=threading.RLock(), cut=cut, redact=redact)


class TestMemoryStore(StoreSuite):
    def open(
        self,
        cut: Callable[[str, bytes], Sequence[bytes]] = lambda _, update: [update],
        redact: Callable[[str, bytes, Sequence[bytes]], Sequence[bytes] | None] = lambda _, whole, updates: [whole],
    ) -> Store:
        return MemoryStore(cut=cut, redact=redact)
