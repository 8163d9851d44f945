"""A record that a relay never takes: what stands before it goes, the document is read on, and it is told."""

from __future__ import annotations

from llmcrdt.ids import document_bytes, document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import RESUMED, Cursor, Error, ErrorCode, Message, Opened, Push, Welcome
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments

DOCUMENT = document_id(b"d" * 16)
RAW = document_bytes(DOCUMENT)
HEAD = Cursor(b"c" * 16, 1, bytes(32))
SMALL, LARGE = b"small", b"x" * 200


def tell(synchronizer: Synchronizer, *messages: Message) -> list[Message]:
    """The relay says something. Returns what it gets for it."""
    for message in messages:
        synchronizer.receive(codec.encode(message))
    return [codec.decode(frame) for frame in synchronizer.drain_frames()]


def pushed(messages: list[Message]) -> int:
    """How many records were sent."""
    return sum(len(message.data) for message in messages if isinstance(message, Push))


class Stuck:
    """A device before a relay that takes 100 bytes as one record: one small record went, a large one stays."""

    def __init__(self) -> None:
        self.local = BlobDocuments(1)
        self.local.follow(DOCUMENT)
        self.local.refill(DOCUMENT, [], HEAD)
        self.local.put(DOCUMENT, SMALL)
        self.local.put(DOCUMENT, LARGE)
        self.synchronizer = Synchronizer(self.local, lambda: 0.0)
        self.synchronizer.connected()
        opened = Opened(RAW, RESUMED, HEAD, HEAD.position)
        assert pushed(tell(self.synchronizer, Welcome(record_bytes=100), opened)) == 1
        assert self.code == ErrorCode.RECORD_TOO_LARGE

    @property
    def code(self) -> int | None:
        refused = self.synchronizer.refused.get(DOCUMENT)
        return refused.code if refused else None

    def erase(self) -> None:
        """The large one gives way to nothing."""
        self.local.refill(DOCUMENT, [data for w in self.local.outbox(DOCUMENT)[1:] for data in [w.record.data]], HEAD)
        self.synchronizer.local_changed(DOCUMENT)


def test_nothing_behind_it_is_sent_until_the_outbox_holds_something_else() -> None:
    stuck = Stuck()
    stuck.local.put(DOCUMENT, b"behind")
    stuck.synchronizer.local_changed(DOCUMENT)
    assert pushed(tell(stuck.synchronizer)) == 0 and stuck.code == ErrorCode.RECORD_TOO_LARGE
    stuck.erase()
    assert pushed(tell(stuck.synchronizer)) == 1 and stuck.code is None


def test_what_stands_before_it_is_sent_again_where_the_document_is_opened_anew() -> None:
    stuck = Stuck()
    tell(stuck.synchronizer, Error(ErrorCode.NOT_OPEN, "", RAW))
    assert pushed(tell(stuck.synchronizer, Opened(RAW, RESUMED, HEAD, HEAD.position))) == 1
    assert stuck.code == ErrorCode.RECORD_TOO_LARGE


def test_what_is_erased_while_the_document_is_opened_anew_refuses_nothing_any_more() -> None:
    stuck = Stuck()
    tell(stuck.synchronizer, Error(ErrorCode.NOT_OPEN, "", RAW))
    stuck.erase()
    tell(stuck.synchronizer, Opened(RAW, RESUMED, HEAD, HEAD.position))
    assert stuck.code is None


def test_that_the_log_is_full_is_not_forgotten_with_it() -> None:
    stuck = Stuck()
    tell(stuck.synchronizer, Error(ErrorCode.LOG_FULL, "", RAW))
    stuck.erase()
    assert pushed(tell(stuck.synchronizer)) == 0 and stuck.code == ErrorCode.LOG_FULL
