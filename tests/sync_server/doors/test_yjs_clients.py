"""Unmodified Yjs clients at the relay, beside native ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.ids import new_document_id
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ...waiting import eventually
from ..yjs_peers import Bare, NodeClient, ProviderClient, needs_node, texts

OpenRepo = Callable[..., llmcrdt.Repo]


@needs_node
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_page_and_a_device_edit_one_conversation(tmp_path: Path, open_repo: OpenRepo, version: int) -> None:
    repo = open_repo("ann")
    conv = repo.create("talk")
    conv.append("user", "from python")
    with RelayThread(tmp_path / "relay") as relay, repo.connect(relay.url) as link:
        link.wait_synced(60)
        with NodeClient(version, relay.url, conv.id) as page:
            eventually(lambda: page("read"), lambda found: found == ["from python"])
            page("say", text="from a page")
            eventually(lambda: [e.text for e in conv.transcript()], lambda found: "from a page" in found)
            with conv.stream("assistant") as stream:
                stream.write("as it ")
                eventually(lambda: page("read"), lambda found: found[-1] == "as it ")
                stream.write("grows")
            eventually(lambda: page("read"), lambda found: found[-1] == "as it grows")
            page("offline")
            page("say", text="said offline")
            conv.append("user", "meanwhile")
            page("online")
            eventually(lambda: page("read"), lambda found: {"said offline", "meanwhile"} <= set(found))
            eventually(lambda: [e.text for e in conv.transcript()], lambda found: "said offline" in found)
            assert not conv.transcript().malformed
    with (
        llmcrdt.open(tmp_path / "other.db", repo.library) as other,
        RelayThread(tmp_path / "relay") as relay,
        other.connect(relay.url) as link,
    ):
        link.wait_synced(60)
        assert {e.text for e in other.get(conv.id).transcript()} == {e.text for e in conv.transcript()}


@needs_node
def test_all_versions_and_pycrdt_see_each_other(tmp_path: Path) -> None:
    document = new_document_id()
    with RelayThread(tmp_path) as relay:
        pages = [NodeClient(version, relay.url, document) for version in (1, 2, 3)]
        try:
            with ProviderClient(relay.url, document) as python:
                for page in pages:
                    eventually(lambda page=page: page("synced"))
                    page("set", key=str(page("client")), value="here")
                python.put("python", "here")
                for ask in (python.map, *(lambda page=page: page("map") for page in pages)):
                    eventually(ask, lambda found: len(found) == 4)
                for page in pages:
                    page("announce", state={"name": page("client")})
                names = {str(page("client")) for page in pages}
                for page in pages:
                    eventually(lambda page=page: page("present"), lambda found: names <= set(found))
                pages[0]("leave")
                for page in pages[1:]:
                    eventually(lambda page=page: page("present"), lambda found: len(names & set(found)) == 2)
        finally:
            for page in pages:
                page.__exit__()


@needs_node
def test_a_page_reconnects_after_a_restart_and_offline_edits_of_both_sides_arrive(tmp_path: Path) -> None:
    document = new_document_id()
    with RelayThread(tmp_path) as relay:
        port = relay.port
        page, other = NodeClient(3, relay.url, document), NodeClient(2, relay.url, document)
        page("set", key="a", value=1)
        eventually(lambda: other("map"), lambda found: found == {"a": 1})
    with page, other:
        page("set", key="b", value=2)
        other("remove", key="a")
        with RelayThread(tmp_path, port=port):
            eventually(lambda: page("map"), lambda found: found == {"b": 2})
            eventually(lambda: other("map"), lambda found: found == {"b": 2})
    with RelayThread(tmp_path) as relay, Bare(relay.url, document) as bare:
        assert texts(bare.sync()) == {"b": 2}


@needs_node
def test_a_page_that_leaves_at_once_leaves_its_edits(tmp_path: Path) -> None:
    """pycrdt-websocket kept none or two of 200 edits."""
    document = new_document_id()
    with RelayThread(tmp_path) as relay:
        with NodeClient(3, relay.url, document) as page:
            eventually(lambda: page("synced"))
            for n in range(200):
                page("set", key=str(n), value=n)
            page("leave")
        with Bare(relay.url, document) as bare:
            eventually(lambda: len(texts(bare.sync())), lambda found: found == 200)


@needs_node
def test_a_document_above_10_mb_comes_and_goes(tmp_path: Path) -> None:
    document = new_document_id()
    size = 12 << 20
    with RelayThread(tmp_path) as relay:
        with NodeClient(3, relay.url, document) as page, NodeClient(1, relay.url, document) as other:
            page("fill", size=size)
            eventually(lambda: other("length"), lambda found: found == size)
        with NodeClient(2, relay.url, document) as late, ProviderClient(relay.url, document) as python:
            eventually(lambda: late("length"), lambda found: found == size)
            late("set", key="small", value="change")
            eventually(python.map, lambda found: found == {"small": "change"})


@needs_node
def test_a_page_without_a_good_token_stops_trying(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    reader, writer = tokens.make("ann", "read", ["*"]), tokens.make("bob", "append", ["*"])
    document = new_document_id()
    with RelayThread(tmp_path, limits=Limits()) as relay:
        with NodeClient(3, relay.url, document) as page:
            assert eventually(lambda: page("closed"))[0] == 4401
            assert eventually(lambda: not page("trying"))
        with (
            NodeClient(3, relay.url, document, token=writer) as write,
            NodeClient(3, relay.url, document, token=reader) as read,
        ):
            write("set", key="a", value=1)
            eventually(lambda: read("map"), lambda found: found == {"a": 1})
            read("set", key="b", value=2)
            assert eventually(lambda: read("closed"))[0] == 4403
            write("set", key="c", value=3)
            assert eventually(lambda: write("map")) == {"a": 1, "c": 3}
