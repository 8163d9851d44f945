"""Presence between devices: through a real relay, offline, and while a model answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.models import write_model
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ..waiting import eventually

PATIENCE = 60


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay", limits=Limits(presence_tick=0.01)) as relay:
        yield relay


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


def authors(conversation: llmcrdt.Conversation) -> list[str]:
    return sorted(other.author for other in conversation.presence())


def test_devices_see_each_other_come_type_and_go(tmp_path: Path, relay: RelayThread) -> None:
    with llmcrdt.open(tmp_path / "a.db", author="ann") as a:
        chat = a.create("chat")
        chat.present({"typing": True})
        with a.connect(relay.url) as link, llmcrdt.open(tmp_path / "b.db", library=a.library, author="bob") as b:
            link.wait_synced(PATIENCE)
            with b.connect(relay.url) as other:
                other.wait_synced(PATIENCE)
                same = b.get(chat.id)
                seen: list[tuple[llmcrdt.Present, ...]] = []
                same.observe_presence(seen.append)
                eventually(lambda: authors(same) == ["ann"])
                assert same.presence()[0].typing
                same.present({})
                eventually(lambda: authors(chat) == ["bob"])
                chat.present({})
                eventually(lambda: not same.presence()[0].typing)
                chat.present(None)
                eventually(lambda: authors(same) == [])
                eventually(lambda: bool(seen) and seen[-1] == ())
                # It is in no document.
                assert len(chat.transcript()) == 0
            eventually(lambda: authors(chat) == [])


def test_a_closed_conversation_is_left_and_a_lost_connection_comes_back(tmp_path: Path, relay: RelayThread) -> None:
    with llmcrdt.open(tmp_path / "a.db", author="ann") as a, a.connect(relay.url) as link:
        chat = a.create("chat")
        link.wait_synced(PATIENCE)
        with llmcrdt.open(tmp_path / "b.db", library=a.library, author="bob") as b:
            same = b.join(chat.id)
            same.present({})
            for _ in range(2):
                with b.connect(relay.url):
                    eventually(lambda: authors(chat) == ["bob"])
                eventually(lambda: authors(chat) == [])
            with b.connect(relay.url):
                eventually(lambda: authors(chat) == ["bob"])
                same.close()
                eventually(lambda: authors(chat) == [])


def test_offline_nothing_happens(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("chat")
        chat.present({"typing": True})
        assert chat.presence() == ()
        chat.present(None)


def test_generate_says_which_model_answers_here(tmp_path: Path, relay: RelayThread, model: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a, a.connect(relay.url) as link:
        chat = a.create("chat")
        chat.append("user", "Hello")
        link.wait_synced(PATIENCE)
        with (
            llmcrdt.open(tmp_path / "b.db", library=a.library) as b,
            b.connect(relay.url) as other,
            llmcrdt.LlamaEngine(model, cache=NullCache()) as engine,
        ):
            other.wait_synced(PATIENCE)
            same = b.get(chat.id)
            generation = llmcrdt.generate(chat, engine, max_tokens=400)
            eventually(lambda: [o.generating for o in same.presence()] == [engine.name])
            generation.cancel()
            generation.result(PATIENCE)
            eventually(lambda: same.presence() == ())
