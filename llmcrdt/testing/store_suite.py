"""The contract of store/base.py as tests: subclass ``StoreSuite`` in a test module, and say how to open a store."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..exceptions import ConversationDeleted, RepoClosed
from ..ids import NO_LOG
from ..store.base import SMALL, Listed, OutboxRow, Store

DOCUMENT, OTHER, RELAY, SECOND = "doc", "other", "ws://relay:1", "ws://second:2/a:b"
MINE, THEIRS = "S" * 22, "T" * 22
CURSOR = (b"log", 3, b"chain")


class StoreSuite:
    """Each test says one sentence of the contract."""

    @abstractmethod
    def open(
        self,
        cut: Callable[[str, bytes], Sequence[bytes]] = lambda _, update: [update],
        redact: Callable[[str, bytes, Sequence[bytes]], Sequence[bytes] | None] = lambda document, whole, updates: [
            whole
        ],
    ) -> Store:
        """A new, empty store."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        made = self.open()
        made.catalog.add(DOCUMENT, "conversation")
        yield made
        made.close()

    def waiting(self, store: Store, relay: str = RELAY, document: str = DOCUMENT) -> list[OutboxRow]:
        return store.outboxes.rows(relay, document, 0, 100)

    def datas(self, store: Store, relay: str = RELAY) -> list[bytes]:
        return [row.data for row in self.waiting(store, relay)]

    # ---------------------------------------------------------------- updates

    def test_updates_are_kept_in_order_and_told_apart_by_their_writer(self, store: Store) -> None:
        assert store.updates.last_seq(DOCUMENT) == 0
        seqs = [store.updates.append(DOCUMENT, bytes([n]), (MINE, THEIRS)[n % 2], ["e"]) for n in range(6)]
        assert seqs == sorted(set(seqs)) and store.updates.last_seq(DOCUMENT) == seqs[-1]
        kept = store.updates.since(DOCUMENT, 0)
        assert (kept.snapshot, kept.updates, kept.seq) == (None, [bytes([n]) for n in range(6)], seqs[-1])
        assert store.updates.since(DOCUMENT, seqs[1], MINE).updates == [b"\3", b"\5"]
        assert store.updates.since(DOCUMENT, seqs[-1]).updates == []
        assert store.updates.unseen(DOCUMENT, seqs[0], MINE)
        assert not store.updates.unseen(DOCUMENT, seqs[-1], None)
        assert not store.updates.unseen(DOCUMENT, seqs[4], THEIRS)
        assert store.updates.since(OTHER, 0).updates == []

    def test_a_transaction_is_kept_whole_or_not_at_all(self, store: Store) -> None:
        store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
        store.updates.append(DOCUMENT, b"one", MINE, [])
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.updates.append(DOCUMENT, b"never", MINE, [])
            with store.transaction():
                store.settings.put("a", "b")
                store.relay_tasks.deleted(RELAY, OTHER)
            raise ZeroDivisionError
        assert store.updates.since(DOCUMENT, 0).updates == [b"one"]
        assert store.settings.get("a") is None and store.relay_tasks.deleted_last(RELAY) == []
        store.updates.append(DOCUMENT, b"two", MINE, [])
        names: dict[str, list[int]] = {}
        for row in self.waiting(store):
            names.setdefault(row.session, []).append(row.n)
        assert all(found == list(range(1, len(found) + 1)) for found in names.values()), "no gap in any session"

    def test_compacting_waits_until_it_pays_and_until_all_was_seen(self, store: Store) -> None:
        def whole() -> tuple[bytes, Sequence[bytes]]:
            return b"whole", [b"waits"]

        large = bytes(SMALL + 1)
        seq = store.updates.append(DOCUMENT, b"small", MINE, [])
        assert store.updates.compact(DOCUMENT, seq, MINE, whole) is None
        store.outboxes.refill(RELAY, DOCUMENT, b"queued", CURSOR)
        theirs = store.updates.append(OTHER, b"x", MINE, [])
        store.outboxes.receive(RELAY, DOCUMENT, [(THEIRS, 1, large)], [], None)
        assert store.updates.compact(DOCUMENT, theirs, MINE, whole) is None
        seen = store.updates.last_seq(DOCUMENT)
        made = store.updates.compact(DOCUMENT, seen, MINE, whole)
        assert made is not None
        assert store.updates.since(DOCUMENT, 0).updates == [b"small", b"queued", large], "nothing is done yet"
        made.prepare()
        made.prepare()
        assert made.finish()
        assert store.updates.since(DOCUMENT, 0).snapshot == b"whole"
        while made.trim():
            pass
        kept = store.updates.since(DOCUMENT, 0)
        assert (kept.snapshot, kept.updates) == (b"whole", [b"queued", b"waits"])
        assert kept.seq == store.updates.last_seq(DOCUMENT) > seen
        assert not store.updates.unseen(DOCUMENT, seen, MINE), "the writer holds what waits for others"
        assert made.seq == seen
        assert store.updates.unseen(DOCUMENT, theirs - 1, MINE), "whose updates gave way to a snapshot lacks it"
        assert not store.updates.purge(DOCUMENT, theirs - 1, MINE, 0, whole)
        assert self.datas(store) == [b"queued"]
        assert store.updates.since(DOCUMENT, seen).snapshot is None
        assert store.updates.since(DOCUMENT, seq).snapshot == b"whole"
        assert made.finish()
        assert not made.trim()
        assert store.updates.since(DOCUMENT, 0) == kept

    def test_news_tell_of_every_document_and_of_snapshots_in_place_of_updates(self, store: Store) -> None:
        assert store.updates.news(0) == ([], 0) and store.updates.last() == 0
        store.updates.append(DOCUMENT, b"one", MINE, [])
        store.updates.append(OTHER, b"two", THEIRS, [])
        news, seen = store.updates.news(0)
        assert news == [(DOCUMENT, b"one"), (OTHER, b"two")]
        assert store.updates.news(seen) == ([], seen) and store.updates.last() == seen
        store.updates.append(DOCUMENT, bytes(SMALL + 1), MINE, [])
        begun = store.updates.compact(DOCUMENT, seen + 1, None, lambda: (b"whole", ()))
        assert begun is not None
        begun.prepare()
        assert begun.finish()
        while begun.trim():
            pass
        news, last = store.updates.news(seen)
        assert (DOCUMENT, None) in news and last > seen and store.updates.news(last) == ([], last)

    def test_while_a_compaction_goes_on_nothing_is_lost(self, store: Store) -> None:
        store.updates.append(DOCUMENT, bytes(SMALL + 1), MINE, [])
        seen = store.updates.last_seq(DOCUMENT)
        made, later = (store.updates.compact(DOCUMENT, seen, MINE, lambda: (b"whole", [])) for _ in range(2))
        assert made is not None and later is not None
        store.updates.append(DOCUMENT, b"mine", MINE, [])
        store.updates.append(DOCUMENT, b"theirs", THEIRS, [])
        assert made.finish()
        assert not made.trim()
        kept = store.updates.since(DOCUMENT, 0)
        assert (kept.snapshot, kept.updates) == (b"whole", [b"mine", b"theirs"])
        assert store.updates.since(DOCUMENT, seen, MINE).updates == [b"theirs"]
        assert not later.finish(), "another snapshot came first"
        assert store.updates.since(DOCUMENT, 0) == kept

    def test_a_compaction_does_not_bring_back_what_was_purged_or_deleted(self, store: Store) -> None:
        for end in ("purged", "deleted"):
            store.updates.append(DOCUMENT, bytes(SMALL + 1), MINE, [])
            seen = store.updates.last_seq(DOCUMENT)
            made = store.updates.compact(DOCUMENT, seen, MINE, lambda: (b"a secret", []))
            assert made is not None
            if end == "purged":
                assert store.updates.purge(DOCUMENT, seen, MINE, 1, lambda: (b"clean", []))
            else:
                store.catalog.add(DOCUMENT, "conversation")
                store.catalog.put([Listed(DOCUMENT, "", 0.0, False, True)])
                store.deletions.drop(DOCUMENT)
            assert not made.finish()
            assert store.updates.since(DOCUMENT, 0).snapshot == (b"clean" if end == "purged" else None)

    def test_a_purge_leaves_the_snapshot_and_tasks_for_relays(self) -> None:
        store = self.open(redact=lambda document, whole, updates: [b"clean"] if b"secret" in updates else None)
        store.outboxes.refill(RELAY, DOCUMENT, b"harmless", CURSOR)
        store.outboxes.refill(SECOND, DOCUMENT, None, CURSOR)
        store.updates.append(DOCUMENT, b"secret", MINE, ["e1"])
        store.outboxes.acknowledge(RELAY, DOCUMENT, [(row.session, row.n) for row in self.waiting(store)[1:]], CURSOR)
        store.outboxes.receive(RELAY, DOCUMENT, [], [(b"odd", "reason")], CURSOR, stale=True)
        before = self.waiting(store)
        assert store.updates.purged(DOCUMENT) == -1 and store.updates.set_aside_count(DOCUMENT) == 1
        assert not store.updates.purge(DOCUMENT, 0, THEIRS, 1, lambda: (b"whole", [])), "something was not seen"
        seen = store.updates.last_seq(DOCUMENT)
        assert store.updates.purge(DOCUMENT, seen, MINE, 1, lambda: (b"whole", [b"waits"]))
        assert store.updates.purged(DOCUMENT) == 1 and store.updates.set_aside_count(DOCUMENT) == 0
        kept = store.updates.since(DOCUMENT, 0)
        assert kept.snapshot == b"whole" and b"secret" not in kept.updates
        assert self.waiting(store) == before, "nothing deleted in it: it waits under its names"
        theirs = self.waiting(store, SECOND)
        assert {row.data for row in theirs} == {b"clean", b"waits"}
        assert store.outboxes.unacknowledged(DOCUMENT) == {"e1": max(row.seq for row in theirs if row.data == b"clean")}
        assert store.relay_tasks.compactions(RELAY) == store.relay_tasks.compactions(SECOND) == [DOCUMENT]
        store.relay_tasks.compacted(RELAY, DOCUMENT)
        assert store.relay_tasks.compactions(RELAY) == [] and store.relay_tasks.compactions(SECOND) == [DOCUMENT]
        store.close()

    def test_what_is_set_aside_leaves_the_document_and_the_outbox(self, store: Store) -> None:
        store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
        for data in (b"good", b"bad", b"good too"):
            store.updates.append(DOCUMENT, data, MINE, [])
        store.updates.set_aside(DOCUMENT, b"bad", "why")
        store.updates.set_aside(DOCUMENT, b"bad", "why")
        assert store.updates.since(DOCUMENT, 0).updates == self.datas(store) == [b"good", b"good too"]
        assert store.updates.set_aside_count(DOCUMENT) == 1 and store.updates.set_aside_count(OTHER) == 0

    # ---------------------------------------------------------------- outboxes

    def test_an_update_waits_for_the_relays_that_know_the_document(self, store: Store) -> None:
        store.updates.append(DOCUMENT, b"before", MINE, ["e0"])
        assert store.outboxes.unacknowledged(DOCUMENT) is None and store.outboxes.cursor(RELAY, DOCUMENT) is None
        store.outboxes.refill(RELAY, DOCUMENT, b"all", CURSOR, ["e0"])
        store.outboxes.refill(SECOND, DOCUMENT, None, CURSOR)
        last = store.updates.append(DOCUMENT, b"after", MINE, ["e1"])
        assert (self.datas(store), self.datas(store, SECOND)) == ([b"all", b"after"], [b"after"])
        assert store.outboxes.size(RELAY) == (2, 8) and store.outboxes.documents(RELAY) == [DOCUMENT]
        assert store.outboxes.end(RELAY, DOCUMENT) == last and store.outboxes.end(RELAY, OTHER) == 0
        assert store.outboxes.unacknowledged(DOCUMENT) == {"e0": self.waiting(store)[0].seq, "e1": last}
        first = self.waiting(store)[0]
        assert store.outboxes.rows(RELAY, DOCUMENT, first.seq, 100) == self.waiting(store)[1:]
        assert store.outboxes.rows(RELAY, DOCUMENT, 0, 1) == [first]
        store.outboxes.acknowledge(RELAY, DOCUMENT, [(first.session, first.n), ("unknown", 9)], (b"log", 5, b"c"))
        assert self.datas(store) == [b"after"] and store.outboxes.cursor(RELAY, DOCUMENT) == (b"log", 5, b"c")
        assert self.datas(store, SECOND) == [b"after"], "each relay has an outbox of its own"

    @pytest.mark.parametrize("seed", range(5))
    def test_the_names_in_an_outbox_have_no_holes_and_are_never_used_twice(self, seed: int) -> None:
        rng = random.Random(seed)
        store = self.open(cut=lambda document, update: [update[:2], update[2:]] if len(update) > 2 else [update])
        used: dict[tuple[str, int], bytes] = {}
        sent: dict[str, int] = {}
        store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
        for step in range(60):
            rows = self.waiting(store)
            for row in rows:
                assert used.setdefault((row.session, row.n), row.data) == row.data, "a name means one content"
            for row in rows:
                assert row.n == sent.get(row.session, 0) + 1 or (row.session, row.n - 1) in {r[1:3] for r in rows}
            match rng.randrange(6):
                case 0 if rows:
                    row = rows[0]
                    sent[row.session] = row.n
                    store.outboxes.acknowledge(RELAY, DOCUMENT, [(row.session, row.n)], CURSOR)
                case 1 if rows:
                    row = rng.choice(rows)
                    store.outboxes.refuse(RELAY, DOCUMENT, row.session, row.n, "why")
                    assert row.seq not in {other.seq for other in self.waiting(store)}
                    assert row.data in store.updates.since(DOCUMENT, 0).updates
                case 2 if rng.random() < 0.3:
                    count = store.outboxes.refills(RELAY, DOCUMENT)
                    store.outboxes.refill(RELAY, DOCUMENT, b"r%d" % step, CURSOR)
                    assert store.outboxes.refills(RELAY, DOCUMENT) == count + 1
                    assert b"".join(self.datas(store)) == b"r%d" % step
                case _:
                    store.updates.append(DOCUMENT, b"%d-%d" % (step, seed), MINE, [])
        store.close()

    def test_a_cursor_goes_back_only_at_a_refill_and_another_log_leaves_it_into_none(self, store: Store) -> None:
        def cursor() -> object:
            return store.outboxes.cursor(RELAY, DOCUMENT)

        store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
        store.outboxes.receive(RELAY, DOCUMENT, [], [], (b"log", 7, b"c7"))
        store.outboxes.acknowledge(RELAY, DOCUMENT, [], (b"log", 4, b"c4"))
        assert cursor() == (b"log", 7, b"c7")
        store.outboxes.acknowledge(RELAY, DOCUMENT, [], (b"gol", 9, b"d9"))
        assert cursor() == (b"log", 7, b"c7")
        for other in (None, (b"gol", 9, b"d9")):
            store.outboxes.receive(RELAY, DOCUMENT, [], [], other)
            assert cursor() == (NO_LOG, 7, b"c7")
            store.outboxes.refill(RELAY, DOCUMENT, None, (b"log", 7, b"c7"))
        store.outboxes.refill(RELAY, DOCUMENT, None, (b"log", 2, b"c2"))
        assert cursor() == (b"log", 2, b"c2")
        store.outboxes.receive(SECOND, DOCUMENT, [], [], CURSOR)
        assert store.outboxes.cursor(SECOND, DOCUMENT) is None

    def test_a_record_that_comes_again_is_kept_once(self, store: Store) -> None:
        store.outboxes.refill(SECOND, DOCUMENT, None, CURSOR)
        for _ in range(2):
            store.outboxes.receive(RELAY, DOCUMENT, [(THEIRS, 1, b"a"), (THEIRS, 2, b"b")], [(b"odd", "why")], None)
        assert store.updates.since(DOCUMENT, 0).updates == [b"a", b"b"]
        assert self.datas(store, SECOND) == [], "another relay's link brings it there"

    # ---------------------------------------------------------------- relays' tasks, deletion

    def test_what_is_deleted_is_gone_and_relays_are_to_delete_it(self, store: Store) -> None:
        store.settings.put("library", "lib")
        store.outboxes.refill(RELAY, DOCUMENT, b"all", CURSOR)
        store.outboxes.refill(SECOND, "lib", None, CURSOR)
        assert store.deletions.left() == []
        store.catalog.put([Listed(DOCUMENT, "t", 1.0, False, True)])
        assert store.deletions.left() == [DOCUMENT]
        with pytest.raises(ConversationDeleted):
            store.updates.append(DOCUMENT, b"late", MINE, [])
        store.deletions.drop(DOCUMENT)
        assert store.deletions.scrub() and store.deletions.left() == []
        assert store.updates.since(DOCUMENT, 0).updates == [] and self.waiting(store) == []
        assert store.outboxes.cursor(RELAY, DOCUMENT) is None
        tasks = store.relay_tasks
        assert tasks.deletions(RELAY) == tasks.deletions(SECOND) == [DOCUMENT]
        tasks.deletion_refused(RELAY, DOCUMENT, "token")
        assert (tasks.deletions(RELAY, "token"), tasks.deletions(RELAY, "another")) == ([], [DOCUMENT])
        assert tasks.ask_again(DOCUMENT) and not tasks.ask_again(DOCUMENT)
        assert tasks.deletions(RELAY, "token") == [DOCUMENT]
        tasks.deleted(RELAY, DOCUMENT)
        assert tasks.deletions(RELAY) == [] and tasks.deletions(SECOND) == [DOCUMENT]
        tasks.delete_all_again(RELAY)
        assert tasks.deletions(RELAY) == [DOCUMENT]

    def test_the_last_deletions_of_a_relay_are_known(self, store: Store) -> None:
        for n in (*range(12), 5):
            store.relay_tasks.deleted(RELAY, f"d{n}")
        store.relay_tasks.deleted(SECOND, "d1")
        assert store.relay_tasks.deleted_last(RELAY) == ["d4", "d6", "d7", "d8", "d9", "d10", "d11", "d5"]
        assert store.relay_tasks.deleted_last(SECOND) == ["d1"]

    def test_attachments_are_sent_to_each_relay_once_and_taken_away_where_they_may_be(self, store: Store) -> None:
        tasks = store.attachment_tasks
        tasks.want(DOCUMENT, ["a", "b"])
        tasks.want(OTHER, ["a"])
        assert tasks.to_send(RELAY) == tasks.to_send(SECOND) == sorted([(DOCUMENT, "a"), (DOCUMENT, "b"), (OTHER, "a")])
        for hash_ in "ab":
            tasks.sent(RELAY, DOCUMENT, hash_)
        tasks.want(DOCUMENT, ["a"])
        assert tasks.to_send(RELAY) == [(OTHER, "a")] and len(tasks.to_send(SECOND)) == 3
        tasks.send_again(RELAY, DOCUMENT)
        assert len(tasks.to_send(RELAY)) == 3
        for relay in (RELAY, SECOND):
            store.outboxes.refill(relay, DOCUMENT, None, CURSOR)
        tasks.sent(RELAY, DOCUMENT, "a")
        tasks.unwant(DOCUMENT, ["a", "c"])
        assert tasks.to_send(SECOND) == sorted([(DOCUMENT, "b"), (OTHER, "a")])
        assert tasks.to_discard(RELAY) == tasks.to_discard(SECOND) == [(DOCUMENT, "a"), (DOCUMENT, "c")]
        tasks.sent(RELAY, DOCUMENT, "a")
        tasks.send_again(RELAY, DOCUMENT)
        tasks.discarded(RELAY, DOCUMENT, "a")
        assert tasks.to_discard(RELAY) == [(DOCUMENT, "c")] and len(tasks.to_discard(SECOND)) == 2
        tasks.want(DOCUMENT, ["c"])
        assert tasks.to_discard(RELAY) == [] and (DOCUMENT, "c") in tasks.to_send(RELAY)
        tasks.forget(DOCUMENT)
        assert tasks.to_send(RELAY) == [(OTHER, "a")] and tasks.to_discard(SECOND) == []

    # ---------------------------------------------------------------- settings and listing

    def test_settings_and_documents_are_found_again(self, store: Store) -> None:
        assert store.settings.put_first("library", "a") == store.settings.put_first("library", "b") == "a"
        store.settings.put("library", "c")
        assert store.settings.get("library") == "c" and store.settings.get("x") is None
        store.catalog.add(DOCUMENT, "library")
        assert store.catalog.kind(DOCUMENT) == "conversation" and store.catalog.kind(OTHER) is None
        assert store.catalog.documents("conversation") == [DOCUMENT] and store.catalog.documents("library") == []

    def test_the_listing_is_paged_youngest_first_without_the_deleted(self, store: Store) -> None:
        rows = [Listed(f"c{n}", f"title {n}", float(n // 2), n == 1, n == 3) for n in range(7)]
        store.catalog.put(rows)
        assert [row.id for row in store.catalog.page(3, None)] == ["c6", "c5", "c4"]
        assert [row.id for row in store.catalog.page(3, "c4")] == ["c2", "c1", "c0"]
        assert store.catalog.everything() == set(rows)
        assert store.catalog.get("c3") == rows[3] and store.catalog.get("x") is None

    def test_no_relay_hears_of_a_local_document(self, store: Store) -> None:
        store.catalog.set_local(DOCUMENT, True)
        assert store.catalog.is_local(DOCUMENT) and store.catalog.locals() == {DOCUMENT}
        store.outboxes.refill(RELAY, OTHER, None, CURSOR)
        store.settings.put("library", OTHER)
        store.catalog.put([Listed(DOCUMENT, "", 0.0, False, True)])
        store.deletions.drop(DOCUMENT)
        store.relay_tasks.delete_all_again(RELAY)
        assert store.relay_tasks.deletions(RELAY) == []
        store.catalog.set_local(DOCUMENT, False)
        assert not store.catalog.is_local(DOCUMENT) and store.catalog.locals() == set()
        store.deletions.drop(DOCUMENT)
        assert store.relay_tasks.deletions(RELAY) == [DOCUMENT]

    def test_a_closed_store_says_so(self, store: Store) -> None:
        store.close()
        store.close()
        assert store.closed
        with pytest.raises(RepoClosed):
            store.settings.get("library")
        with pytest.raises(RepoClosed):
            store.updates.append(DOCUMENT, b"late", MINE, [])
