"""Ways to break what attachments promise: nobody gets what is not for them, or what is not what its hash says."""

from __future__ import annotations

from mutations import Mutation

_CORE = "tests/sync_server/core/test_attachments.py::"
_CIPHER = "tests/document/test_sealed_blob.py::"
_TRAVEL = "tests/repo/test_attachments_travel.py::"

_CONNECTION = "tests/sync/test_attachment_connection.py::"

ATTACHMENT_MUTATIONS = (
    Mutation(
        "fetched",
        "a piece of another place is taken",
        "AttachmentConnection.fetch",
        "if answer.offset != come or (not answer.data and come < size):",
        "if False:",
        _CONNECTION + "test_what_was_not_asked_for_ends_the_connection",
    ),
    Mutation(
        "fetched",
        "an answer about something else is taken",
        "AttachmentConnection._answer",
        "or answer.document != document or answer.name != name",
        "",
        _CONNECTION + "test_what_was_not_asked_for_ends_the_connection",
    ),
    Mutation(
        "fetched",
        "one of another size fills the disk",
        "AttachmentConnection.fetch",
        "if answer.size != size:",
        "if False:",
        _CONNECTION + "test_one_of_another_size_is_not_taken",
    ),
    Mutation(
        "attachments",
        "whoever knows document and hash may fetch",
        "Access.is_for",
        "if self._subscriptions.may_use(peer, document):",
        "if True:",
        _CORE + "test_a_hash_alone_opens_nothing",
    ),
    Mutation(
        "attachments",
        "a token that may only read may bring and discard",
        "NativeDoor._forbidden",
        'Offer(document) | Data(document) | Discard(document) if grant and not grant.allows("append", document)',
        'Offer(document) | Data(document) | Discard(document) if grant and not grant.allows("read", document)',
        "tests/sync_server/doors/test_native_door.py::test_who_may_do_what_with_attachments",
    ),
    Mutation(
        "attachments",
        "a token of another document may fetch",
        "NativeDoor._forbidden",
        'case Fetch(document) if grant and not grant.allows("read", document):',
        "case Fetch(document) if False:",
        "tests/sync_server/doors/test_native_door.py::test_who_may_do_what_with_attachments",
    ),
    Mutation(
        "attachments",
        "the relay keeps what is not what its name says",
        "attachments:Attachments.check",
        "name.form != PLAIN or check.digest.digest() == name.hash",
        "True",
        _CORE + "test_what_is_not_what_its_name_says_is_taken_away",
    ),
    Mutation(
        "attachments",
        "a half attachment is sent",
        "attachments:Attachments._send",
        "not found.whole or ",
        "",
        _CORE + "test_nothing_of_a_half_attachment_is_sent",
    ),
    Mutation(
        "attachments",
        "pieces are taken in any order",
        "attachments:Attachments._take",
        "offset == found.held and ",
        "",
        _CORE + "test_pieces_are_whole_pieces_in_their_order",
    ),
    Mutation(
        "attachments",
        "a reader that takes nothing is sent all",
        "attachments:Attachments.serve",
        "if self._delivery.is_full(peer):",
        "if False:",
        _CORE + "test_a_reader_that_takes_nothing_is_sent_little",
    ),
    Mutation(
        "attachments",
        "attachments count in no quota",
        "SqliteAttachments.begin",
        "self._count(doc.owner, size)",
        "pass",
        _CORE + "test_each_limit_has_its_answer",
    ),
    Mutation(
        "attachments",
        "a deleted document's pieces stay in the file",
        "tombstones:_mark",
        'attachments.doom(db, "document", found[0])',
        "pass",
        _CORE + "test_a_deleted_document_takes_its_attachments_along",
    ),
    Mutation(
        "attachments",
        "what is discarded stays in the file",
        "sync_server.log.attachments:doom",
        'db.execute(f"INSERT INTO doomed SELECT number FROM attachments WHERE {column} = ?", (value,))',
        "pass",
        _CORE + "test_what_is_discarded_is_in_no_file",
    ),
    Mutation(
        "attachments",
        "a device keeps whatever came",
        "BlobStore.take",
        "if digest.hexdigest() != hash:",
        "if False:",
        "tests/store/test_blobs.py::test_what_comes_in_pieces_is_kept_if_it_is_what_its_hash_says",
    ),
    Mutation(
        "attachments",
        "what came is fetched again",
        "Carrier._bring",
        "if have > whole:",
        "if have:",
        _TRAVEL + "test_what_came_is_not_fetched_again",
    ),
    Mutation(
        "attachments",
        "a conversation with a key sends in the clear",
        "Forms.newest",
        "if keys:",
        "if False:",
        _TRAVEL + "test_encrypted_where_there_is_a_key",
    ),
    Mutation(
        "attachments",
        "an erase leaves it at the relay",
        "ConversationBlobs.release",
        "self._tasks.unwant(self._conversation, sorted(hashes))",
        "pass",
        _TRAVEL + "test_an_erase_takes_it_from_devices_and_relay",
    ),
    Mutation(
        "attachments",
        "chunks can be exchanged",
        "BlobCipher._bound",
        "self.size, number]",
        "self.size, 0]",
        _CIPHER + "test_chunks_cannot_be_moved_left_out_or_changed",
    ),
    Mutation(
        "attachments",
        "one key for all contents",
        "BlobCipher.__init__",
        '"llmcrdt/attachment-key/1", conversation, hash, str(size)',
        '"llmcrdt/attachment-key/1", conversation',
        _CIPHER + "test_no_two_contents_have_one_key",
    ),
)
