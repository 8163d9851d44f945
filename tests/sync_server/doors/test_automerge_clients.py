"""Unmodified automerge-repo clients at the relay, beside native ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import llmcrdt
from llmcrdt.crdt.automerge.derive import root_change
from llmcrdt.ids import document_bytes, new_document_id
from sync_server.auth.tokens import Tokens
from sync_server.doors.automerge import LOAD_ANEW
from sync_server.thread import RelayThread

from ...repo.test_erase_in_automerge import history
from ...waiting import eventually
from ..automerge_peers import NodeClient, NodeProcess, needs_door, needs_node
from ..core.test_compaction import stored
from ..relay_kills import start

OpenRepo = Callable[..., llmcrdt.Repo]
pytestmark = [needs_door, needs_node]


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with NodeProcess() as process:
        yield process


class KilledRelay:
    """A relay in a process of its own, which is killed and comes back on its port."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._process, self.url = start(data)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self) -> None:
        self._process, _ = start(self._data, int(self.url.rpartition(":")[2]))

    def __enter__(self) -> KilledRelay:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def texts(conv: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conv.transcript()]


def test_two_clients_edit_any_document(node: NodeProcess, tmp_path: Path) -> None:
    with RelayThread(tmp_path) as relay:
        one, two = node.client(relay.url), node.client(relay.url)
        document = one("create", value={"title": "Trip", "list": [1, {"a": None}], "n": 1.5})
        found(two, document)
        for n in range(5):
            one("put", document=document, key=f"a{n}", value=n)
            two("put", document=document, key=f"b{n}", value="x" * 300)
        one("splice", document=document, key="title", place=4, text=" to 😀")
        same(one, two, document, lambda doc: len(doc) == 13 and doc["title"] == "Trip to 😀")
        two("offline")
        one("many", document=document, times=100)
        two("put", document=document, key="offline", value=True)
        two("splice", document=document, key="title", place=0, text="A ")
        two("online")
        same(one, two, document, lambda doc: len(doc) == 114 and doc["title"] == "A Trip to 😀")
        late = node.client(relay.url)
        found(late, document)
        same(one, late, document, lambda doc: len(doc) == 114)
        assert late("find", document=new_document_id()).startswith("not here")


def found(page: NodeClient, document: str) -> None:
    """Wait until a client finds a document, which may still be on its way to the relay."""
    eventually(lambda: page("find", document=document) == document)


def found_anew(page: NodeClient, document: str) -> bool:
    """An answer to an earlier question may come in between, and make the document unavailable."""
    page("forget", document=document)
    return bool(page("find", document=document) == document)


def same(one: NodeClient, two: NodeClient, document: str, check: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until both have the same document, of which something holds."""
    eventually(lambda: one("doc", document=document), check)
    eventually(lambda: two("heads", document=document) == one("heads", document=document))
    assert two("doc", document=document) == one("doc", document=document)


def test_a_page_and_a_device_edit_one_conversation_beside_a_relay_that_is_killed(
    node: NodeProcess, tmp_path: Path, open_repo: OpenRepo
) -> None:
    repo = open_repo("ann")
    conv = repo.create("talk", crdt="automerge")
    conv.append("user", "from python")
    with KilledRelay(tmp_path / "relay") as relay, repo.connect(relay.url) as link:
        link.wait_synced(60)
        page = node.client(relay.url)
        found(page, conv.id)
        assert page("read", document=conv.id) == ["from python"]
        page("say", document=conv.id, text="from a page")
        eventually(lambda: texts(conv), lambda found: "from a page" in found)
        with conv.stream("assistant") as stream:
            stream.write("as it ")
            eventually(lambda: page("read", document=conv.id), lambda found: "as it " in found)
            stream.write("grows")
        eventually(lambda: page("read", document=conv.id), lambda found: "as it grows" in found)
        page("offline")
        page("say", document=conv.id, text="said offline")
        conv.append("user", "meanwhile")
        relay.kill()
        conv.append("user", "with no relay")
        page("say", document=conv.id, text="still offline")
        relay.start()
        page("online")
        everything = {"from python", "from a page", "as it grows", "said offline", "meanwhile", "with no relay"}
        everything |= {"still offline"}
        eventually(lambda: page("read", document=conv.id), lambda found: set(found) == everything)
        eventually(lambda: texts(conv), lambda found: set(found) == everything)
        assert not conv.transcript().malformed and not conv.verify()
        relay.kill()
        relay.start()
        conv.append("user", "after all")
        eventually(lambda: page("read", document=conv.id), lambda found: "after all" in found)
        other = node.client(relay.url)
        found(other, conv.id)
        eventually(lambda: set(other("read", document=conv.id)) == everything | {"after all"})


def test_a_conversation_that_a_page_began_opens_on_a_device_and_verifies(
    node: NodeProcess, tmp_path: Path, open_repo: OpenRepo
) -> None:
    document = new_document_id()
    roots = [root_change(root).raw.hex() for root in ("meta", "entries", "acts")]
    with RelayThread(tmp_path) as relay:
        page = node.client(relay.url)
        page("begin", document=document, chunks=roots)
        page("say", document=document, text="the first words")
        repo = open_repo("bob")
        conv = repo.join(document, crdt="automerge")
        with repo.connect(relay.url, only=[document]):
            eventually(lambda: texts(conv), lambda found: found == ["the first words"])
            conv.append("assistant", "an answer")
            eventually(lambda: page("read", document=document), lambda found: found[-1] == "an answer")
            assert not conv.verify()


def test_pages_with_the_history_of_before_an_erase_are_told_to_load_it_anew(
    node: NodeProcess, tmp_path: Path, open_repo: OpenRepo
) -> None:
    """One is there when the erase comes, one comes back later, to a relay that was killed. Their words are kept."""
    repo = open_repo("ann")
    conv = repo.create("talk", crdt="automerge")
    conv.append("user", "first")
    secret = conv.append("user", "Rumpelstilzchen")
    with KilledRelay(tmp_path / "relay") as relay, repo.connect(relay.url) as link:
        link.wait_synced(60)
        here, away = node.client(relay.url), node.client(relay.url)
        for page in (here, away):
            found(page, conv.id)
        away("offline")
        away("say", document=conv.id, text="said offline")
        here("say", document=conv.id, text="from a page")
        eventually(lambda: texts(conv), lambda found: "from a page" in found)
        conv.erase(secret)
        eventually(lambda: here("ephemeral"), told_to_load_anew)
        here("say", document=conv.id, text="on the old one")
        eventually(lambda: texts(conv), lambda found: "on the old one" in found)
        relay.kill()
        relay.start()
        away("online")
        eventually(lambda: away("ephemeral"), told_to_load_anew)
        everything = {"first", "", "from a page", "on the old one", "said offline"}
        eventually(lambda: texts(conv), lambda found: set(found) == everything)
        for n, page in enumerate((here, away)):
            assert "Rumpelstilzchen" in page("read", document=conv.id)
            eventually(lambda page=page: found_anew(page, conv.id))
            eventually(lambda page=page: set(page("read", document=conv.id)) == everything)
            page("say", document=conv.id, text=f"after all {n}")
            everything.add(f"after all {n}")
            eventually(lambda: texts(conv), lambda found: set(found) == everything)
        assert not conv.verify()
        assert b"Rumpelstilzchen" not in history(stored(relay.url, "automerge", document_bytes(conv.id)))


def told_to_load_anew(heard: list[list[Any]]) -> bool:
    return {"type": LOAD_ANEW} in [message for _, message in heard]


def test_presence_goes_both_ways(node: NodeProcess, tmp_path: Path, open_repo: OpenRepo) -> None:
    repo = open_repo("ann")
    conv = repo.create("talk", crdt="automerge")
    conv.append("user", "hello")
    with RelayThread(tmp_path) as relay, repo.connect(relay.url) as link:
        link.wait_synced(60)
        one, two = node.client(relay.url), node.client(relay.url)
        for page in (one, two):
            found(page, conv.id)
        conv.present({"name": "Ann"})
        one("present", document=conv.id, state={"name": "Bob"})
        two("present", document=conv.id, state={"name": "Eve"})
        for page, others in ((one, {"Ann", "Eve"}), (two, {"Ann", "Bob"})):
            eventually(lambda page=page, others=others: others == {state["name"] for state in page("others").values()})
        eventually(lambda: {present.state["name"] for present in conv.presence()} == {"Bob", "Eve"})
        for n in range(5):
            one("broadcast", document=conv.id, message={"n": n})
        heard = lambda: [message for _, message in two("ephemeral") if "n" in message]  # noqa: E731
        eventually(lambda: heard() == [{"n": n} for n in range(5)])
        conv.present(None)
        eventually(lambda: "Ann" not in json.dumps(one("others")))


def test_a_refused_client_harms_nobody_and_asks_without_end_in_vain(node: NodeProcess, tmp_path: Path) -> None:
    """A counter is not taken, and what follows it waits for it. A reader's changes go nowhere."""
    tokens = Tokens(tmp_path)
    read, append, admin = (tokens.make("ann", level, ["*"]) for level in ("read", "append", "admin"))
    with RelayThread(tmp_path) as relay:
        one, two, reader = (node.client(relay.url, token) for token in (append, append, read))
        document = one("create", value={"a": 1})
        for page in (two, reader):
            found(page, document)
        reader("put", document=document, key="mine", value=1)
        two("count", document=document, key="c")
        two("put", document=document, key="late", value=1)
        one("put", document=document, key="b", value=2)
        for page in (two, reader):
            eventually(lambda page=page: page("doc", document=document).get("b") == 2)
        assert one("doc", document=document) == {"a": 1, "b": 2}
        before = count(relay, admin)
        reader("put", document=document, key="mine", value=2)
        one("put", document=document, key="d", value=3)
        eventually(lambda: reader("doc", document=document).get("d") == 3)
        assert count(relay, admin) - before < 20


def count(relay: RelayThread, admin: str) -> int:
    """Messages that the relay was sent. Asked with a token that may ask."""
    request = Request(relay.url.replace("ws", "http", 1) + "/metrics", headers={"Authorization": f"Bearer {admin}"})
    with urlopen(request) as page:
        found = re.search(r"^llmcrdt_relay_frames_received_total (\d+)$", page.read().decode(), re.M)
    assert found
    return int(found[1])
