"""All that must be true of a relay and its clients once the network is whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress

from relay_operations import PRESENT
from relay_world import Said, World, says_all
from sim_checks import oracle_state
from sim_clients import URL, ClientProcess
from sim_disk import kept
from sim_relay import LIMITS

from llmcrdt.exceptions import EntryNotFound
from llmcrdt.ids import DocumentId, EntryId, document_bytes, document_id
from sync_server.log import verify
from sync_server.log.file import DATABASE


def check_converged(world: World) -> None:
    """All clients have the same documents, with all that anybody had, and so has the relay."""
    states = {process.name: process.state() for process in world.processes()}
    first_name, first = next(iter(states.items()))
    relay = world.relay_state()
    here = {document: Said(document, world.library, [update]) for document, update in first.items()}
    there = {document: Said(document, world.library, updates) for document, updates in relay.items()}
    for name, state in states.items():
        assert state.keys() == first.keys(), "everybody follows the same documents"
        for document, update in state.items():
            assert sorted(oracle_state(update)) == sorted(oracle_state(first[document])), (
                f"{name} has what {first_name} has"
            )
            assert here[document].holds(update)
            if relay.get(document) or len(oracle_state(update)):
                assert there[document].holds(update), "the relay has all of it"
    for document, updates in relay.items():
        for update in updates if document in first else ():
            assert here[document].holds(update), "and nothing else"
    deleted = {document for document in world.deletions if world.processes()[0].is_deleted(document)}
    for page in world.pages:
        document = document_id(page.document)
        assert page.gone == (document in deleted), "a page is told that its document was deleted"
        if not page.gone:
            log, shown = relay.get(document, []), page.doc.get_update()
            assert says_all(document, world.library, log, shown), "a page has nothing that the log does not have"
            assert all(map(Said(document, world.library, [shown]).holds, log)), "and all of that"
    hashes = {tuple((c.id, c.transcript().hash) for c in process.conversations()) for process in world.processes()}
    assert len(hashes) == 1, "one transcript"
    assert deleted >= set().union(*(machine.deleted for machine in world.machines))
    assert not deleted & relay.keys(), "nothing of what was deleted is on the relay"
    for process in world.processes():
        process.run(lambda process=process: world.check_said(process))
        assert {document for document in world.deletions if process.is_deleted(document)} == deleted
        assert not process.repo._core.store.relay_tasks.deletions(URL), "every deletion that was owed is done"
        for document in process.repo._core.following():
            assert not process.local.outbox(document), "nothing waits"
            assert process.repo._core.store.updates.set_aside_count(document) == 0, "nothing was set aside"


def check_log(world: World) -> None:
    """The log is what its hashes say; no record is there twice under a name; what was acknowledged is there."""
    world.check_acked()
    with world.disks.running(world.relay.name):
        db = sqlite3.connect(world.relay_folder / DATABASE, isolation_level=None)
        try:
            assert list(verify.faults(db)) == []
        finally:
            db.close()
    assert world.relay.peak <= 2 * LIMITS.outgoing + world.ledger.largest


def check_cursors(world: World) -> None:
    """Coming back with nothing new costs one round trip: every cursor is a place at the end of the relay's log."""
    before = {raw: world.relay.log.records.head(raw) for raw in world.relay.log.documents()}
    for process in world.processes():
        for document in process.repo._core.following():
            head = before.get(document_bytes(document))
            if head is not None:
                assert process.local.cursor(document) == head.cursor, "the cursor is where the log ends"
        process.cut(0, 0)
    for page in world.pages:
        page.cut()
    world.clock.run(world.clock.now + 40)
    for raw in world.relay.log.documents():
        assert world.relay.log.records.head(raw) == before[raw], f"nobody had anything to add to {document_id(raw)}"


def check_present(world: World) -> None:
    """Everybody sees who is present, and nobody else: at once, after every connection broke, who comes new; and after a
    while, when a relay and a client died at the same time."""
    for process in world.processes():
        process.run(lambda process=process: _announce(world, process))
    _check_seen(world, world.processes(), after=_AT_ONCE)
    for process in world.processes()[::2]:
        process.cut(0, 0)
    _check_seen(world, world.processes(), after=_AT_ONCE)
    gone = world.processes()[0]
    ghosts = {_state(gone, conversation.id) for conversation in gone.conversations()}
    world.end_process(gone, 0)
    world.clock.run(world.clock.now + 0.01)
    _check_seen(world, gone.machine.processes[-1:], after=_AT_ONCE, ghosts=ghosts)
    world.end_relay(0)
    world.end_process(world.processes()[-1], 0)
    _check_seen(world, world.processes(), after=_AT_LAST)


_AT_ONCE, _AT_LAST = 4.0, 45.0
"""Virtual seconds: in which a connection is made, and what was said goes there and back, before anybody says it anew;
and in which those are missed who say nothing any more."""


def _check_seen(world: World, by: Sequence[ClientProcess], after: float, ghosts: Collection[str] = frozenset()) -> None:
    """``ghosts``: those of whom the relay may not have heard yet that they are gone."""
    world.clock.run(world.clock.now + after)
    for process in by:
        for conversation in process.conversations():
            others = [_state(other, conversation.id) for other in world.processes() if other is not process]
            seen = [str(present.state.get("word")) for present in conversation.presence()]
            seen = [word for word in seen if word not in ghosts]
            assert sorted(seen) == sorted(filter(None, others)), "everybody who is present is seen, once"


def _announce(world: World, process: ClientProcess) -> None:
    for conversation in process.conversations():
        if world.rng.random() < 0.6:
            conversation.present({"word": world.name(PRESENT)})


def _state(process: ClientProcess, conversation: str) -> str:
    known = process.repo._core.documents.known_presence(DocumentId(conversation))
    return str(known._state["word"]) if known and known._state else ""


def check_words(world: World) -> None:
    """Erased words are in no file of a client, nor of a relay that was not put back to an old copy. A deleted document
    is in no file at all, and presence never was."""
    folders = [(machine.folder, "chats.db") for machine in world.machines] + [(world.relay_folder, DATABASE)]
    for process in world.processes():
        assert not process.repo._core.store.relay_tasks.compactions(URL), "every fold that was owed is done"
    deleted = [document for document in world.deletions if world.processes()[0].is_deleted(document)]
    gone = [PRESENT, *(word for document in deleted for word in world.words_of.get(document, ()))]
    erased = [word for entry, word in world.erased.items() if _is_erased(world, entry)]
    for folder, name in folders:
        paths = sorted(path for path in folder.glob(name + "*") if not path.name.endswith("-shm"))
        data = b"".join(map(kept, paths))
        for word in gone:
            assert word.encode() not in data, f"{word}, which is gone, is in {folder.name}"
        if folder != world.relay_folder or not world.relay_rolled_back:
            data = b"".join(path.read_bytes() for path in paths)
            for word in erased:
                assert word.encode() not in data, f"the erased {word} is in {folder.name}"


def _is_erased(world: World, entry: str) -> bool:
    """The device that erased it may have been rolled back before anybody heard of it."""
    for conversation in world.processes()[0].conversations():
        with suppress(EntryNotFound):
            return conversation.entry(EntryId(entry)).status == "erased"
    return False
