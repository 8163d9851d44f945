"""Every limit of the relay, as a number."""

from __future__ import annotations

from dataclasses import dataclass

from llmcrdt.sync.keepalive import PATIENCE
from llmcrdt.sync.messages import MAX_ATTACHMENT, MAX_RECORD, MAX_RECORDS


@dataclass(frozen=True)
class Limits:
    """Sizes are bytes, times seconds. Section 4 of docs/protocol.md has those that a peer can meet, and the answer past
    each; the others are the relay's own affair."""

    record: int = MAX_RECORD
    """Data of one record; at most what a frame can carry."""
    window_records: int = MAX_RECORDS
    """Records pushed and not acknowledged, per connection."""
    window: int = 1 << 20
    """Bytes taken from a connection and not processed yet; above it the connection is not read from."""
    subject_window: int = 8 << 20
    """The same for all connections of one token's subject together."""
    large: int = 128 << 20
    """Bytes of frames above 64 KiB, unfinished or in progress, of all connections together; those above 9 MiB have half
    of it, where one alone always has room. Others wait, and are not read from."""
    answers: int = 64 << 20
    """Bytes of answers to Yjs clients that have not left, of all connections together, the same one for many counted
    once; one alone always has room. Others wait for theirs."""
    outgoing: int = 128 << 10
    """Bytes queued to a connection; above it the connection is served from the log, as it drains."""
    batch: int = 64 << 10
    """Data in one RECORDS message, unless a single record is larger."""
    rate: int = 16 << 20
    """Bytes a second that are taken from a connection, or from all connections of one token's subject together."""
    burst: int = 64 << 20
    """Bytes that are taken at once after a rest; then the connection is read from no faster than ``rate``."""
    documents: int = 10_000
    """Documents open on one connection."""
    barriers: int = 16
    """Barriers not reached, per connection."""
    connections: int = 1_000
    """Connections that have said who they are."""
    strangers: int = 200
    """Those that have not yet, from TCP on; past it the one that is silent for longest is cut."""
    subject_connections: int = 100
    """Connections of one token's subject."""
    log: int = 1 << 30
    """Bytes of data in one document's log, its snapshot included."""
    subject_log: int = 16 << 30
    """Bytes of data in all logs that belong to one token's subject, snapshots and attachments included."""
    attachment: int = 256 << 20
    """Bytes of one attachment."""
    attachment_bytes: int = 2 << 30
    """Bytes of all attachments of one document; they count in ``subject_log`` as well."""
    attachments: int = 10_000
    """Attachments of one document."""
    attachments_unfinished: int = 8
    """Those of one document that are not whole; whoever begins another takes the place of the oldest."""
    deletes: int = 1_024
    """DELETEs not answered, per connection."""
    max_unknown_tombstones: int = 100_000
    """Documents deleted for one token's subject, or for all without one, of which this relay never had a record."""
    group: int = 4_096
    """Messages that share one commit."""
    compaction_bytes: int = 256 << 10
    """Bytes of records after the snapshot from which on a log is compacted; and at least as many as the snapshot."""
    compaction_tail: int = 64 << 10
    """Bytes of records that a compaction leaves after the snapshot, for devices that were away for a short time. None
    where a client asked for the compaction."""
    compaction_seconds: int = 60
    """Processor time of the worker that compacts; it is ended after twice as long in any case."""
    compaction_memory: int = 4 << 30
    catch_up_records: int = 32
    """Records that a device missed from which on it may get a catch-up in place of them."""
    catch_up_bytes: int = 4 << 10
    """Bytes of data in those records, at least."""
    catch_up_most: int = 16_384
    """Records that one catch-up stands for, at most."""
    catch_up_free: int = 1 << 20
    """Bytes of a document's log, snapshot included, that are loaded for a catch-up of any part of it."""
    catch_up_ratio: int = 256
    """A longer log is loaded where it has at most so many times the bytes that were missed."""
    catch_up_document: int = 32 << 20
    """A longer one never is."""
    catch_up_share: float = 0.75
    """A catch-up is sent where it has at most this part of the bytes that it stands for."""
    catch_up_wait: float = 1.0
    """For a catch-up to be begun, and again to be ready; then the records are sent as they are."""
    catch_up_jobs: int = 64
    """Catch-ups that wait for the worker."""
    catch_up_idle: float = 300.0
    """Without any catch-up, after which the worker gives way to a new one, which takes less memory."""
    catch_up_kept: int = 16 << 20
    """Bytes of catch-ups in memory: for devices that get them, and for others that come with the same cursor; each
    counts 1 KiB more. Without room for one, the records are sent as they are."""
    keep: int = 64 << 20
    """Bytes of updates of the documents that the validator holds; those used last go first. One larger
    document is held alone. Each counts 4 KiB beside its updates. In memory they are some seven times that."""
    keep_memory: int = 4 << 30
    """Memory of each of the validator's processes."""
    check_quick: float = 0.25
    """Processor time for a record, update or question in the worker that all begin with, and a tenth of a second more
    for each MiB; then that worker is ended, and the document goes to the slow one."""
    check_heavy: float = 0.15
    """Estimated processor time of a record or update from which on the slow worker looks at it, to begin with."""
    check_seconds: float = 4.0
    """Processor time for one of them there, and a second more for each MiB; then that worker is ended, and the record
    refused."""
    check_cost: int = 1 << 10
    """The weight of a record that is to be checked in ``window`` beside its bytes, so that many small ones are no long
    queue."""
    merge_cost: int = 4 << 10
    """The same for an update of a Yjs client, which takes a transaction of its own."""
    check_wait: float = 10.0
    """That somebody's records may wait without any of them being looked at; then the relay says that it is not
    well."""
    version: int = 512 << 10
    """A state vector of a Yjs client: one entry of some seven bytes for everybody who ever wrote."""
    yjs_frame: int = 64 << 20
    """One frame of a client at the Yjs or the Automerge door: its whole document comes in one."""
    cached: int = 10_000
    """Documents of which the log's end is held in memory, and as many sessions and subjects; those used last stay."""
    sweep: int = 512
    """Compacted records that are removed in one step."""
    presence_tick: float = 0.1
    """Between two PRESENCE messages for one document to one connection."""
    presence_entries: int = 64
    """Presence entries of one connection, in all documents together."""
    presence_bytes: int = 64 << 10
    """Bytes of their states."""
    presence_document: int = 1_000
    """Presence entries of one document; as many that are gone are remembered."""
    presence_cost: int = 16 << 10
    """The weight of a PRESENCE message in ``rate`` beside its bytes."""
    retry_after: float = 1.0
    """Seconds after which a client may come back, told when the relay stops, is full, or can't write."""
    handshake: float = 10.0
    """From the TCP connection to the upgraded WebSocket, and again to HELLO."""
    idle_timeout: float = PATIENCE
    """Without a sign of life from a client; then it is pinged, and after as long again given up."""
    shutdown: float = 5.0
    """For the last messages to leave when the relay stops."""
    close_timeout: float = 30.0
    """For a client that is sent away to take what is queued for it and the reason; then the connection is cut."""

    def __post_init__(self) -> None:
        if not 0 < self.record <= MAX_RECORD:
            raise ValueError(f"record must be 1 to {MAX_RECORD}")
        if not 0 < self.attachment < MAX_ATTACHMENT or self.attachments_unfinished < 1:
            raise ValueError(f"attachment must be 1 to {MAX_ATTACHMENT - 1}, and attachments_unfinished at least 1")
        if not 0 < self.rate <= self.burst:
            raise ValueError("rate must be at least 1, and burst at least rate")
