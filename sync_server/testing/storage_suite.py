"""One suite for each contract of a relay's storage: subclass it in a test module and say how to make a storage."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from llmcrdt.sync.chain import START, advance, digest
from llmcrdt.sync.messages import PLAIN, SEALED, AttachmentName, Cursor, Record

from ..log.admin import PIECE, REJECTED_KEPT, RejectedRecord, Storage, StoredAttachment
from ..log.base import Conflict, Gap, Head, LogError, Origin, Stored

D, E, S, T, LOG = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16, b"l" * 16
ORIGIN = Origin("yjs", LOG, "ann")


class _Suite:
    """``make`` is called again, after ``close``, in place of a restart."""

    @abstractmethod
    def make(self, folder: Path) -> Storage:
        """A storage over the data of this folder."""

    @abstractmethod
    def break_commits(self, storage: Storage) -> None:
        """From now on the disk fails when something is committed."""

    @abstractmethod
    def mend_commits(self, storage: Storage) -> None: ...

    def another(self, folder: Path) -> Storage:
        """A second user of the data at the same time."""
        return self.make(folder)

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = self.make(tmp_path)
        yield storage
        storage.close()


def append(storage: Storage, *data: bytes, document: bytes = D, session: bytes = S) -> Sequence[Stored]:
    """Append the next records of a session, durably."""
    stored = stage(storage, *data, document=document, session=session)
    assert not storage.records.commit()
    return stored


def stage(storage: Storage, *data: bytes, document: bytes = D, session: bytes = S) -> Sequence[Stored]:
    n = storage.records.last(document, session) + 1
    return storage.records.append(document, session, n, data, ORIGIN)


def head(storage: Storage, document: bytes = D) -> Cursor:
    found = storage.records.head(document)
    assert found is not None
    return found.cursor


class RecordLogSuite(_Suite):
    """The contract of RecordLog."""

    def test_positions_follow_the_order_of_appending(self, storage: Storage) -> None:
        log = storage.records
        assert log.head(D) is None
        records = [Record(S, 1, b"a"), Record(T, 1, b"b"), Record(S, 2, b"c")]
        for position, (session, _, data) in enumerate(records, 1):
            assert [s.position for s in append(storage, data, session=session)] == [position]
        assert append(storage, b"x", document=T)[0].position == 1
        assert log.read(D, 0, 1000, 1000) == [Stored(i, r) for i, r in enumerate(records, 1)]
        assert log.read(D, 2, 1000, 1000) == [Stored(3, records[2])]
        assert log.read(D, 3, 1000, 1000) == log.read(b"?" * 16, 0, 1000, 1000) == []
        cursor = Cursor(LOG, 0, START)
        for r in records:
            cursor = advance(cursor, digest(D, r))
            assert log.chain_at(D, cursor.position) == cursor.chain
            assert log.holds(D, cursor) and not log.holds(D, cursor._replace(chain=b"?" * 32))
            assert not log.holds(D, cursor._replace(log=b"?" * 16))
        assert log.head(D) == Head("yjs", cursor)
        assert log.chain_at(D, 0) == START and log.chain_at(D, 4) is None
        assert not log.holds(D, cursor._replace(position=4)) and not log.holds(E, cursor)

    def test_staged_records_are_seen(self, storage: Storage) -> None:
        for n in range(1, 4):
            stage(storage, b"a")
            assert [s.position for s in storage.records.read(D, 0, 100, 100)] == list(range(1, n + 1))
            assert storage.records.chain_at(D, n - 1) is not None
            assert head(storage).position == storage.records.last(D, S) == n

    @pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
    def test_many_records_of_several_documents_share_a_commit(self, tmp_path: Path, count: int) -> None:
        data = [bytes((i % 251,)) * (i % 7 + 1) for i in range(count)]
        storage = self.make(tmp_path)
        for document in (D, E):
            stage(storage, *data, document=document)
            stage(storage, b"a", b"b", document=document, session=T)
        assert not storage.records.commit()
        storage.close()
        storage = self.make(tmp_path)
        records = [Record(S, n, piece) for n, piece in enumerate(data, 1)] + [Record(T, 1, b"a"), Record(T, 2, b"b")]
        for document in (D, E):
            assert storage.records.read(document, 0, 1 << 20, 1000) == [Stored(i, r) for i, r in enumerate(records, 1)]
            cursor = Cursor(LOG, 0, START)
            for record in records:
                cursor = advance(cursor, digest(document, record))
                assert storage.records.chain_at(document, cursor.position) == cursor.chain
            assert head(storage, document) == cursor
        storage.close()

    def test_a_read_gives_at_least_one_record_and_stops_at_its_limits(self, storage: Storage) -> None:
        append(storage, *[b"x" * 10] * 9)
        assert [s.position for s in storage.records.read(D, 0, 25, 100)] == [1, 2]
        assert [s.position for s in storage.records.read(D, 0, 1, 100)] == [1]
        assert [s.position for s in storage.records.read(D, 4, 1000, 3)] == [5, 6, 7]

    @pytest.mark.parametrize("together", [True, False])
    def test_a_repeat_is_found_and_checked(self, storage: Storage, together: bool) -> None:
        stage(storage, b"a")
        stage(storage, b"b", session=T)
        if not together:
            assert not storage.records.commit()
        assert storage.records.find(D, Record(T, 1, b"b")) == 2
        assert storage.records.find(D, Record(S, 1, b"a")) == 1
        with pytest.raises(Conflict):
            storage.records.find(D, Record(T, 1, b"c"))
        # The same bytes under the name of another session, or n, are another record.
        for unknown in (Record(S, 2, b"a"), Record(E, 1, b"a")):
            with pytest.raises(Gap):
                storage.records.find(D, unknown)
        assert append(storage, b"a")[0].position == 3

    def test_a_gap_names_what_is_expected_and_spoils_nothing(self, storage: Storage) -> None:
        def gap(n: int) -> int:
            with pytest.raises(Gap) as found:
                storage.records.append(D, S, n, [b"?"], ORIGIN)
            return found.value.expected

        assert gap(2) == 1
        stage(storage, b"a")
        assert gap(1) == gap(3) == 2
        stage(storage, b"b")
        assert not storage.records.commit()
        assert [s.record.data for s in storage.records.read(D, 0, 100, 100)] == [b"a", b"b"]

    def test_records_that_were_not_committed_are_gone_after_a_restart(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a")
        before = storage.records.head(D)
        stage(storage, b"b")
        stage(storage, b"c", document=E)
        storage.close()
        storage = self.make(tmp_path)
        assert storage.records.head(D) == before and storage.records.head(E) is None
        assert append(storage, b"other")[0] == Stored(2, Record(S, 2, b"other"))
        storage.close()

    def test_a_commit_that_fails_names_its_documents_and_keeps_nothing_of_them(self, storage: Storage) -> None:
        append(storage, b"a")
        before = storage.records.head(D)
        self.break_commits(storage)
        stage(storage, b"b")
        stage(storage, b"c", document=E)
        assert set(storage.records.commit()) == {D, E}
        self.mend_commits(storage)
        assert not storage.records.commit(), "it names them once"
        assert storage.records.head(D) == before and storage.records.head(E) is None
        assert append(storage, b"other")[0] == Stored(2, Record(S, 2, b"other"))

    @pytest.mark.parametrize("seed", range(40))
    def test_it_is_a_list_per_document(self, tmp_path: Path, seed: int) -> None:
        """Against a dictionary of lists: groups of appends, some lost, with restarts in between."""
        rng = random.Random(seed)
        storage = self.make(tmp_path)
        model: dict[bytes, list[Record]] = {}
        for _ in range(rng.randrange(2, 10)):
            attempt = {d: list(records) for d, records in model.items()}
            for _ in range(rng.randrange(14)):
                record = Record(rng.choice((S, T)), rng.randrange(1, 7), rng.choice((b"a", b"b")))
                document = rng.choice((D, E))
                self._check(storage, attempt.setdefault(document, []), document, record)
            keep = rng.random() < 0.7
            if keep:
                assert not storage.records.commit()
                model = attempt
            if not keep or rng.random() < 0.5:
                storage.close()
                storage = self.make(tmp_path)
            for document in (D, E):
                stored = [Stored(i, r) for i, r in enumerate(model.get(document, []), 1)]
                assert storage.records.read(document, 0, 1 << 20, 1 << 20) == stored
                found = storage.records.head(document)
                assert (found.cursor.position if found else 0) == len(stored)
        storage.close()

    def _check(self, storage: Storage, records: list[Record], document: bytes, record: Record) -> None:
        log = storage.records
        last = sum(r.session == record.session for r in records)
        assert log.last(document, record.session) == last
        if record.n > last + 1:
            with pytest.raises(Gap) as gap:
                log.append(document, *record[:2], [record.data], ORIGIN)
            assert gap.value.expected == last + 1
        elif record.n == last + 1:
            records.append(record)
            stored = log.append(document, *record[:2], [record.data], ORIGIN)
            assert stored == [Stored(len(records), record)]
        elif record in records:
            assert log.find(document, record) == records.index(record) + 1
        else:
            with pytest.raises(Conflict):
                log.find(document, record)

    # ---------------------------------------------------------------- two users

    def test_others_see_what_is_committed_and_are_notified(self, storage: Storage, tmp_path: Path) -> None:
        other = self.another(tmp_path)
        append(storage, b"a", document=E)
        heard: list[bytes] = []
        for document in (D, E):
            other.records.subscribe(document, heard.append)
        other.records.unsubscribe(E)
        other.records.poll()
        heard.clear()
        stage(storage, b"a")
        stage(storage, b"b", document=E)
        other.records.poll()
        assert heard == [] and other.records.head(D) is None
        assert not storage.records.commit()
        other.records.poll()
        assert heard == [D] and other.records.head(D) == storage.records.head(D)
        assert other.records.head(E) == storage.records.head(E)
        other.records.poll()
        assert heard == [D]
        append(other, b"b")
        other.records.poll()
        assert heard == [D], "its own change is no news"
        other.close()

    def test_of_two_who_take_one_position_the_second_fails(self, storage: Storage, tmp_path: Path) -> None:
        other = self.another(tmp_path)
        append(storage, b"a")
        other.records.poll()
        other.records.subscribe(D, lambda _: None)
        assert head(other).position == 1
        append(storage, b"mine")
        (stored,) = other.records.append(D, T, 1, [b"yours"], ORIGIN)
        failed = other.records.commit()
        other.records.poll()
        if stored.position == 2:
            assert set(failed) == {D}
            append(other, b"yours", session=T)
        storage.records.poll()
        for user in (storage, other):
            assert [s.record.data for s in user.records.read(D, 0, 100, 100)] == [b"a", b"mine", b"yours"]
        other.close()


class SnapshotStoreSuite(_Suite):
    """The contract of SnapshotStore, and what Sweeper must leave alone."""

    def test_a_snapshot_stands_for_records(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        cursors = [Cursor(LOG, 0, START)]
        for n in range(1, 10):
            append(storage, b"%d" % n)
            cursors.append(head(storage))
        assert storage.snapshots.get(D) is None and storage.snapshots.tail_size(D) == 9
        assert storage.snapshots.put(D, cursors[6], T, [b"one to six", b"waits"], 4)
        assert not storage.records.commit()
        assert not storage.snapshots.put(D, cursors[6], T, [b"again"], 4)
        assert not storage.snapshots.put(D, cursors[8]._replace(chain=b"?" * 32), T, [b"unknown"], 4)
        for swept in range(8):
            snapshot = storage.snapshots.get(D)
            assert snapshot and snapshot == (*cursors[6][1:], T, 5, 15)
            parts = [storage.snapshots.part(D, at) for at in range(snapshot.parts)]
            assert b"".join(part.data for part in parts) == b"one to sixwaits"
            assert [(part.n, part.of, part.offset) for part in parts][2:4] == [(1, 2, 8), (2, 2, 0)]
            assert [s.position for s in storage.records.read(D, 2, 100, 100)] == [7, 8, 9]
            assert list(storage.snapshots.contents(D, 8)) == [b"one to six", b"waits", b"7", b"8"]
            thirds = [b"one to six", b"waits", b"", b"7", b"", b"8", b"9"]
            assert list(storage.snapshots.contents_around(D, 7, 9)) == thirds
            assert list(storage.snapshots.contents_around(D, 5, 9)) == []
            assert storage.snapshots.tail_size(D) == 3 and storage.snapshots.bytes_between(D, 2, 8) == 2
            assert storage.snapshots.tail_start(D, 2) == cursors[7]
            assert storage.snapshots.tail_start(D, 9) == cursors[6]
            assert storage.snapshots.tail_start(D, 0) == head(storage) == cursors[9]
            assert all(storage.records.holds(D, cursor) for cursor in cursors)
            assert not any(storage.records.holds(D, c._replace(chain=b"?" * 32)) for c in cursors)
            assert storage.records.find(D, Record(S, 8, b"8")) == 8
            if swept < 6:
                assert storage.sweeper.sweep(1) is (swept < 5)
            elif swept == 6:
                storage.close()
                storage = self.make(tmp_path)
        assert storage.records.last(D, S) == 9 and storage.records.find(D, Record(S, 3, b"any")) == 0
        assert storage.sweeper.scrub()
        storage.close()

    def test_a_snapshot_that_was_not_committed_is_none(self, storage: Storage) -> None:
        append(storage, b"a", b"b")
        self.break_commits(storage)
        assert storage.snapshots.put(D, head(storage), T, [b"ab"], 10)
        assert set(storage.records.commit()) == {D}
        self.mend_commits(storage)
        assert storage.snapshots.get(D) is None and not storage.sweeper.sweep(10)
        assert [s.record.data for s in storage.records.read(D, 0, 100, 100)] == [b"a", b"b"]

    def test_a_request_stays_until_a_snapshot_meets_it(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a")
        first = head(storage)
        stage(storage, b"b")
        storage.snapshots.request(D)
        assert not storage.records.commit()
        for upto, left in ((first, [D]), (head(storage), [])):
            assert storage.snapshots.put(D, upto, T, [b"x"], 10)
            assert not storage.records.commit()
            assert storage.snapshots.requested() == left
            storage.close()
            storage = self.make(tmp_path)
            assert storage.snapshots.requested() == left
        storage.close()


class TombstonesSuite(_Suite):
    """The contracts of Tombstones, Quotas and RejectedRecords."""

    def test_a_deleted_document_never_was_and_never_will_be(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a", b"b")
        cursor = head(storage)
        append(storage, b"c", document=E)
        storage.tombstones.delete(D)
        assert not storage.records.commit()
        for restart in (False, True):
            if restart:
                storage.close()
                storage = self.make(tmp_path)
            assert storage.tombstones.is_deleted(D) and not storage.tombstones.is_deleted(E)
            assert storage.records.head(D) is None and not storage.records.holds(D, cursor)
            assert storage.records.read(D, 0, 100, 100) == [] and storage.records.last(D, S) == 0
            assert list(storage.snapshots.contents_around(D, 0, 9)) == []
            assert storage.quotas.owner(D) == "" and storage.quotas.used("ann") == 1
            while storage.sweeper.sweep(1):
                pass
        assert list(storage.snapshots.contents(D, 9)) == []
        storage.close()

    def test_a_deletion_that_was_not_committed_is_none(self, storage: Storage) -> None:
        append(storage, b"a")
        self.break_commits(storage)
        storage.tombstones.delete(D)
        storage.tombstones.delete(E, "bob")
        assert set(storage.records.commit()) == {D, E}
        self.mend_commits(storage)
        assert not storage.tombstones.is_deleted(D) and not storage.tombstones.is_deleted(E)
        assert append(storage, b"b")[0].position == 2
        assert storage.quotas.used("ann") == 2 and storage.quotas.unknown_tombstones("bob") == 0

    def test_only_tombstones_of_unknown_documents_count(self, storage: Storage) -> None:
        append(storage, b"a")
        for document in (D, E, T, E):
            storage.tombstones.delete(document, "bob")
        assert not storage.records.commit()
        assert storage.quotas.unknown_tombstones("bob") == 2
        assert storage.quotas.unknown_tombstones("ann") == 0

    def test_the_first_record_says_whose_a_document_is(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"abc")
        storage.records.append(D, T, 1, [b"de"], Origin("other", b"?" * 16, "bob"))
        storage.records.append(E, T, 1, [b"f"], Origin("yjs", LOG, "ann"))
        for _ in range(2):
            assert storage.quotas.owner(D) == "ann" and storage.quotas.owner(S) == ""
            assert storage.quotas.used("ann") == 6 and storage.quotas.used("bob") == storage.quotas.used("") == 0
            assert not storage.records.commit()
        assert storage.records.head(D) == ("yjs", head(storage)) and head(storage).log == LOG
        storage.snapshots.put(D, head(storage), T, [b"0123456789"], 4)
        assert not storage.records.commit()
        for _ in range(2):
            assert storage.quotas.used("ann") == 11
            storage.close()
            storage = self.make(tmp_path)
        storage.close()

    def test_rejected_records_are_in_no_log_and_no_quota(self, storage: Storage) -> None:
        append(storage, b"a")
        for _ in range(3):
            storage.rejected.keep(D, Record(S, 2, b"bad"), "It can't be applied.")
        storage.rejected.keep(E, Record(S, 1, b"bad"), "It can't be applied.")
        assert not storage.records.commit()
        assert head(storage).position == storage.records.last(D, S) == storage.quotas.used("ann") == 1
        assert storage.records.head(E) is None and not storage.tombstones.is_deleted(E)
        assert list(storage.snapshots.contents(D, 9)) == [b"a"]
        assert list(storage.rejected.read(D)) == [RejectedRecord(S, 2, "It can't be applied.", 3, b"bad")]

    def test_the_last_rejected_records_are_kept_and_their_bytes_until_the_next_snapshot(self, storage: Storage) -> None:
        append(storage, b"a")
        for n in range(REJECTED_KEPT + 5):
            storage.rejected.keep(D, Record(S, 2, b"bad %d" % n), "why")
            assert not storage.records.commit()
        kept = storage.rejected.read(D)
        assert [record.data for record in kept] == [b"bad %d" % n for n in range(5, REJECTED_KEPT + 5)]
        assert storage.snapshots.put(D, head(storage), T, [b"a"], 4)
        assert not storage.records.commit()
        assert list(storage.rejected.read(D)) == [record._replace(data=None) for record in kept]
        storage.tombstones.delete(D)
        assert not storage.records.commit()
        assert not storage.rejected.read(D)


NAME, OTHER = AttachmentName(PLAIN, b"n" * 32), AttachmentName(SEALED, b"n" * 32)


class AttachmentStoreSuite(_Suite):
    """The contract of AttachmentStore."""

    def test_pieces_are_held_in_their_order_and_stay(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a")
        append(storage, b"b", document=E)
        pieces = [bytes([i]) * PIECE for i in range(3)] + [b"end"]
        size = 3 * PIECE + 3
        storage.attachments.begin(D, NAME, size)
        for i, piece in enumerate(pieces):
            assert not storage.records.commit()
            if i == 2:
                storage.close()
                storage = self.make(tmp_path)
            assert storage.attachments.get(D, NAME) == StoredAttachment(NAME, size, i * PIECE, False)
            assert [found.name for found in storage.attachments.unfinished(D)] == [NAME]
            storage.attachments.append(D, NAME, piece)
        storage.attachments.finish(D, NAME)
        assert not storage.records.commit()
        for _ in range(2):
            assert storage.attachments.get(D, NAME) == StoredAttachment(NAME, size, size, True)
            assert [storage.attachments.piece(D, NAME, i) for i in range(5)] == [*pieces, b""]
            assert storage.attachments.get(E, NAME) is None and storage.attachments.get(D, OTHER) is None
            assert storage.attachments.piece(E, NAME, 0) == b"" and not storage.attachments.unfinished(D)
            assert storage.attachments.count(D) == (1, size) and storage.attachments.count(E) == (0, 0)
            assert storage.quotas.used("ann") == size + 2
            storage.close()
            storage = self.make(tmp_path)
        storage.close()

    def test_one_that_was_removed_never_was(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a")
        for name in (NAME, OTHER):
            storage.attachments.begin(D, name, 2 * PIECE)
            storage.attachments.append(D, name, b"x" * PIECE)
        assert not storage.records.commit()
        storage.attachments.remove(D, NAME)
        storage.attachments.begin(D, NAME, 3)
        assert not storage.records.commit()
        for restart in (False, True):
            if restart:
                storage.close()
                storage = self.make(tmp_path)
            assert storage.attachments.get(D, NAME) == StoredAttachment(NAME, 3, 0, False)
            assert storage.attachments.piece(D, NAME, 0) == b""
            assert [found.name for found in storage.attachments.unfinished(D)] == [OTHER, NAME]
            assert storage.quotas.used("ann") == 2 * PIECE + 4
            while storage.sweeper.sweep(1):
                pass
        assert storage.attachments.piece(D, OTHER, 0) == b"x" * PIECE
        storage.close()

    def test_they_go_with_their_document(self, tmp_path: Path) -> None:
        storage = self.make(tmp_path)
        append(storage, b"a")
        storage.attachments.begin(D, NAME, 5)
        storage.attachments.append(D, NAME, b"12345")
        storage.attachments.finish(D, NAME)
        assert not storage.records.commit()
        storage.tombstones.delete(D)
        assert not storage.records.commit()
        while storage.sweeper.sweep(1):
            pass
        for restart in (False, True):
            if restart:
                storage.close()
                storage = self.make(tmp_path)
            assert storage.attachments.get(D, NAME) is None and storage.attachments.count(D) == (0, 0)
            assert storage.attachments.piece(D, NAME, 0) == b"" and storage.quotas.used("ann") == 0
        storage.close()

    def test_what_was_not_committed_is_not_there(self, storage: Storage) -> None:
        append(storage, b"a")
        storage.attachments.begin(D, NAME, PIECE + 1)
        assert not storage.records.commit()
        self.break_commits(storage)
        with suppress(LogError):  # the disk may be full before the commit
            storage.attachments.append(D, NAME, b"x" * PIECE)
            storage.attachments.begin(D, OTHER, 1)
        assert set(storage.records.commit()) == {D}
        storage.attachments.remove(D, NAME)
        assert set(storage.records.commit()) == {D}
        self.mend_commits(storage)
        assert storage.attachments.get(D, NAME) == StoredAttachment(NAME, PIECE + 1, 0, False)
        assert storage.attachments.get(D, OTHER) is None and storage.attachments.piece(D, NAME, 0) == b""
        assert storage.quotas.used("ann") == PIECE + 2
