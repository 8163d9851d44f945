"""Ways to break what docs/protocol.md promises in the code. The simulator of relay and clients must notice each; where
that takes more schedules than a test should, a test of its own does.

The rule is the section of docs/protocol.md, or the promise.
"""

from __future__ import annotations

from mutations import Mutation

_DOOR = "tests/sync_server/doors/test_automerge_door.py::"
_SEEDS = "tests/sim/test_relay_schedules.py::test_every_promise_holds_over_seeded_schedules"

RELAY_MUTATIONS = (
    Mutation(
        "P5.5", "the relay's commits are not fsynced", "open_file",
        "synchronous=FULL", "synchronous=NORMAL", _SEEDS,
    ),
    Mutation(
        "P5.5", "the folder of a relay is in no folder after a power failure", "server:Relay.start",
        "make_folder(self.data)", "self.data.mkdir(parents=True, exist_ok=True)",
        "tests/power/test_power_loss.py::test_what_was_acknowledged_is_there_after_a_power_failure[relay]",
    ),
    Mutation(
        "P5.5", "a backup has no name after a power failure", "operator:backup",
        "sync_folder(file.parent)", "pass",
        "tests/power/test_power_loss.py::test_what_was_acknowledged_is_there_after_a_power_failure[operator]",
    ),
    Mutation(
        "P5.5", "what a failed commit would have said is said", "Rooms.step",
        "self._undo(failed)", "logger.error(failed)", _SEEDS,
    ),
    Mutation(
        "P5.5", "a document that failed takes others with it", "Rooms._undo",
        "for peer, document in self._senders if document in failed", "for peer, _ in self._senders",
        "tests/sync_server/core/test_two_relays.py::test_a_document_that_fails_drops_who_spoke_of_it_and_nobody_else",
    ),
    Mutation(
        "P5.5", "what rests on a document that failed is said", "Rooms._undo",
        "not (isinstance(output, Send) and document_of(output.message) in failed)", "True",
        "tests/sync_server/core/test_two_relays.py::test_nothing_is_said_that_rests_on_a_document_that_failed",
    ),
    Mutation(
        "P5.5", "records of another relay are not heard of", "Rooms._handle_appended",
        "self._subscriptions.refresh(document)", "pass", "tests/sync_server/core/test_two_relays.py",
    ),
    Mutation(
        "P5.5", "a commit that failed keeps its records", "SqliteDatabase.commit",
        "if failure is not None:\n    self._roll_back()", "", "tests/sync_server/log/test_sqlite.py",
    ),
    Mutation(
        "P5.5", "an ack comes before the records before it", "Appender._append_new",
        "return Pushed(len(stored))",
        "return Pushed(len(stored), acks(push.document, [(at, session, r.n) for at, r in stored]))", _SEEDS,
    ),
    Mutation(
        "P5.5", "the last records of a commit are not written", "SqliteDatabase.flush",
        "connection.executemany(_insert(1), rows[:single])", "pass", "tests/sync_server/log/test_sqlite.py",
    ),
    Mutation(
        "P5.4", "a record that is pushed again waits for two acks", "OwnRecords._insert",
        "if before is None or before.position + before.length <= run.position:", "if True:",
        "tests/sync_server/core/test_own_records.py",
    ),
    Mutation(
        "P5.4", "a repeat is taken for a gap", "Appender._append_one",
        "if record.n <= self._log.last(document, record.session):", "if False:", _SEEDS,
    ),
    Mutation(
        "P5.2", "a cursor is known by its position alone", "snapshots:holds",
        "return chain == cursor.chain", "return chain is not None",
        "tests/sync_server/core/test_rooms.py::test_a_cursor_that_is_no_place_in_the_log_starts_over",
    ),
    Mutation(
        "P5.2", "a cursor counts in any log", "Subscriptions.holds",
        "if cursor.log != room.head.log:\n    return False", "", _SEEDS,
    ),
    Mutation(
        "P5.6", "a barrier is reached at once", "Delivery._is_reached",
        "if subscription is not None and subscription.sent < ends[document]:\n    return False", "",
        "tests/sync_server/core/test_delivery.py::test_a_barrier_is_answered_behind_all_that_was_there",
    ),
    Mutation(
        "P5.8", "the records after a snapshot are left out", "Delivery._end_snapshot",
        "subscription.sent = snapshot.position",
        "subscription.sent = self._subscriptions.rooms[document].head.position", _SEEDS,
    ),
    Mutation(
        "P5.8", "a newer snapshot goes on where another was", "Delivery._send_part",
        "if session != snapshot.session:\n    index = 0", "",
        "tests/sync_server/core/test_compaction.py::test_whoever_a_fold_overtakes_misses_nothing",
    ),
    Mutation(
        "P4", "a slow reader is buffered", "Delivery.deliver",
        "if state is None or state.outstanding >= limit:", "if state is None:",
        "tests/sync_server/core/test_delivery.py::test_a_slow_reader_is_not_buffered_and_misses_nothing",
    ),
    Mutation(
        "P4", "each document of a reader has a queue of its own", "Delivery.deliver",
        "state.outstanding += weights[start]", "",
        "tests/sync_server/core/test_delivery.py::test_the_queue_of_a_reader_is_one_for_all_its_documents",
    ),
    Mutation(
        "duties", "a client's commits are not fsynced", "Connection._prepare",
        "synchronous=FULL", "synchronous=NORMAL", _SEEDS,
    ),
    Mutation(
        "duties", "a relay that lost data is not filled again", "SqliteOutboxes.refill",
        "if data is not None:", "if False:", _SEEDS,
    ),
    Mutation(
        "duties", "a refill is one record, however large", "Resources.__init__",
        "cut=self._cut,", "", "tests/repo/test_large.py::test_what_is_larger_than_a_record_is_sent_all_the_same",
    ),
    Mutation(
        "duties", "what was deleted is missing in a refill", "RepoCore.missing_from",
        "kept.diff(since=theirs.version())",
        "kept.diff(since=theirs.version()); missing = b'\\x00\\x00' if kept.version() == theirs.version() else missing",
        "tests/repo/test_repo.py::test_a_refill_holds_what_was_only_deleted",
    ),
    Mutation(
        "duties", "the outbox is not sent again after a reconnection", "ConnectionSync._go_live",
        "self.push(doc)", "pass", _SEEDS,
    ),
    Mutation(
        "duties", "what comes after an acknowledgement is read before it decides", "GroupCommit.before",
        "event.document in self._acked", "False",
        "tests/sync/test_group_commit.py::test_what_is_said_of_logs_is_kept_together_and_nothing_else",
    ),
    Mutation(
        "duties", "a cursor is remembered before what the log lacks is queued", "ConnectionSync._handle_log",
        "None if filling else cursor", "cursor",
        "tests/sync/test_synchronizer.py::test_a_cut_while_another_log_is_taken_in_loses_nothing",
    ),
    Mutation(
        "duties", "a cursor goes back", "SqliteOutboxes._move_cursor",
        "position < ?", "position != ?",
        "tests/store/test_store.py::test_a_cursor_goes_back_within_a_log_only_at_a_refill",
    ),
    Mutation(
        "duties", "an old cursor counts again when another log was taken in", "SqliteOutboxes.receive",
        "db.execute(query, [NO_LOG, relay, document])", "pass",
        "tests/store/test_store.py::test_records_of_another_log_leave_a_cursor_into_none",
    ),
    Mutation(
        "duties", "an ack moves a cursor into another log", "SqliteOutboxes._move_cursor",
        "return False", "db.execute('UPDATE cursors SET log = ?', [log])",
        "tests/store/test_store.py::test_records_of_another_log_leave_a_cursor_into_none",
    ),
    Mutation(
        "synced", "what is gone counts as refused before the library can say why", "ConnectionSync._refused",
        "waiters.ask_again()", "",
        "tests/sync/test_deletion_requests.py::test_gone_is_a_refusal_only_where_the_library_does_not_say_why",
    ),
    Mutation(
        "duties", "names go on after a refill", "SqliteOutboxes._name",
        "known and known[0] == refills", "known", _SEEDS,
    ),
    Mutation(
        "synced", "what replaced waiting records is not waited for", "still_waits",
        "if before.replaced != local.replaced(document):\n    before = end_of(local, document)", "",
        "tests/repo/test_erase_everywhere.py::test_what_an_erase_puts_in_the_place_of_waiting_records_is_waited_for",
    ),
    Mutation(
        "synced", "whoever waits does not ask what the relay has", "SyncWaiters.advance",
        "waiter.received_all and not waiter.marks", "not goal.marks", _SEEDS,
    ),
    Mutation(
        "synced", "deletions are no part of what is local", "SyncWaiters.ask_again",
        "waiter.received_all = False", "pass",
        "tests/sync/test_deletion_requests.py::test_who_waits_to_be_in_step_waits_until_the_relay_has_heard_of_it",
    ),
    Mutation(
        "duties", "a deletion that was refused is asked for again on every connection", "SqliteRelayTasks.deletions",
        " AND (? = '' OR refused != ?)", " AND ? = ?",
        "tests/repo/test_deletion.py::test_a_deletion_that_the_relay_refuses_is_told_once_and_asked_again_with_another_token",
    ),
    Mutation(
        "duties", "a deletion that was refused is forgotten", "SqliteRelayTasks.deletion_refused",
        "UPDATE relay_deletions SET refused = ? WHERE", "DELETE FROM relay_deletions WHERE ? != refused AND",
        "tests/repo/test_deletion.py::test_a_deletion_that_the_relay_refuses_is_told_once_and_asked_again_with_another_token",
    ),
    Mutation(
        "duties", "a refill drops what another process wrote meanwhile", "SyncSource.refill",
        "self._store.updates.last_seq(document) != found[2]", "False",
        "tests/repo/test_repo.py::test_a_refill_holds_what_another_process_wrote_meanwhile",
    ),
    Mutation(
        "erased", "a record that repeats erased words is kept", "SyncSource.received",
        "bool(self._store.updates.purged(document))", "False",
        "tests/repo/test_erase_everywhere.py::test_a_record_that_repeats_what_was_erased_leaves_no_words",
    ),
    Mutation(
        "synced", "the first refusal ends the wait for all others", "SyncWaiters.advance",
        "if not held_back and (not waiter.received_all or waiter.marks.keys() - refused.keys()):", "if False:",
        "tests/repo/test_large.py::test_what_a_relay_takes_less_of_waits_alone_and_an_erase_frees_the_rest",
    ),
    Mutation(
        "duties", "what stands before a record that is too large is not sent again", "Sender.start_over",
        "doc.outbox_refused = None", "", "tests/sync/test_sender.py",
    ),
    Mutation(
        "erased", "what waits is replaced at every purge", "redact_updates",
        "if not _common(held, gone):", "if not gone:", "tests/crdt/yjs/test_redact.py",
    ),
    Mutation(
        "erased", "what waits keeps the words that were erased", "redact_updates",
        "if not _common(held, gone):", "if gone:", "tests/repo/test_erase_everywhere.py",
    ),
    Mutation(
        "erased", "what is left of what waits lacks its deletes", "redact_updates",
        "_union(*said, _common(gone, _ranges(left)))", "_common(gone, _ranges(left))", "tests/crdt/yjs/test_redact.py",
    ),
    Mutation(
        "P5.10", "a deleted document is opened again", "Rooms._open",
        "if self._deletions.is_deleted(document):\n"
        "    return self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)", "", _SEEDS,
    ),
    Mutation(
        "P5.10", "a deletion is answered before nothing is left", "Rooms._answer_compactions",
        "if self._compaction.clean:", "if True:", _SEEDS,
    ),
    Mutation(
        "deleted", "a deletion is not owed to relays", "SqliteDeletions.drop",
        "self._relay_tasks.want_deletion(db, relay, document)", "pass", _SEEDS,
    ),
    Mutation(
        "deleted", "a relay that lost data is not told again what was deleted", "LossDetector.note_loss",
        "self._local.lost()", "",
        "tests/repo/test_deletion.py::test_a_relay_that_went_back_to_an_old_copy_is_told_again",
    ),
    Mutation(
        "deleted", "a deletion is asked for before it is durable that the library says so", "DeletionRequests.ask",
        "if waits is not None:\n    deletion.mark = waits\nelse:", "if True:",
        "tests/sync/test_deletion_requests.py::test_it_waits_for_the_library_and_is_asked_once",
    ),
    Mutation(
        "deleted", "a deletion that was not answered is not asked for again", "DeletionRequests.start_over",
        "deletion.asked = False", "pass",
        "tests/sync/test_deletion_requests.py::test_what_was_not_answered_is_asked_for_on_the_next_connection",
    ),
    Mutation(
        "P5.5", "what goes wrong at one connection is not kept from the others", "Connections.each",
        "except Exception:", "except ConnectionError:",
        "tests/sync_server/test_faults.py::test_all_others_are_told_and_may_go_on",
    ),
    Mutation(
        "checked", "a bad record is appended after the good ones", "Writes.finish",
        "data if result.good == job.records else data[: result.good]", "data", _SEEDS,
    ),
    Mutation(
        "checked", "what a worker gone mad says is believed", "read_answers",
        " or not _is_possible(order, answer)", "",
        "tests/sync_server/core/test_validation.py::test_a_worker_that_says_what_can_not_be_is_started_again",
    ),
    Mutation(
        "checked", "a document that a record broke is kept", "ValidatorWorker._look",
        "if held.replica.broken:", "if False:",
        "tests/sync_server/core/test_validation.py::test_a_document_in_doubt_is_gone_until_it_is_loaded_again",
    ),
    Mutation(
        "checked", "what the core refuses among many is put on the first", "ValidatorWorker._do_some",
        "if records > 1:\n    raise _OneByOne from None", "",
        "tests/sync_server/core/test_validation.py::test_what_only_the_core_refuses_is_found_among_many_records",
    ),
    Mutation(
        "checked", "words are joined that can't be read one by one", "join_words",
        "or following[-1]", "",
        "tests/crdt/yjs/test_join.py::test_what_is_joined_could_be_read_and_says_what_it_said",
    ),
    Mutation(
        "checked", "words are joined across a clock that is read another way", "join_words",
        "or end + len(letters) > _LOW_CLOCK_END", "",
        "tests/crdt/yjs/test_join.py::test_a_word_past_the_clocks_that_are_read_at_once_is_not_joined",
    ),
    Mutation(
        "checked", "a document in which some of a batch may be is kept", "ValidatorWorker._look",
        "except _OneByOne:\n    self._held.pop(document, None)", "except _OneByOne:",
        "tests/sync_server/core/test_validation.py::test_a_document_in_doubt_is_gone_until_it_is_loaded_again",
    ),
    Mutation(
        "steps", "a slow disk holds up the loop", "Pace.quick",
        "return self._mean < _QUICK", "return True",
        "tests/sync_server/test_steps.py::test_a_slow_disk_holds_up_nobody_who_does_not_need_it",
    ),
    Mutation(
        "frames", "a plain frame is taken when the connection is closing", "PlainFrames.feed",
        "open_ = self._open()", "", "tests/sync_server/net/test_frames.py",
    ),
    Mutation(
        "frames", "a push goes on where another session's ended", "read_following",
        "if not frame.startswith(name):\n    return ()", "", "tests/sync_server/net/test_frames.py",
    ),
    Mutation(
        "frames", "a push goes on wherever it likes", "read_following",
        "if reader.name(MAX_RECORDS) != n:\n    return ()", "reader.name(MAX_RECORDS)",
        "tests/sync_server/net/test_frames.py",
    ),
    Mutation(
        "presence", "who comes new is not told who is there", "Presence.watch",
        "if found.entries:\n    self._changed.add(document)", "", _SEEDS,
    ),
    Mutation(
        "presence", "a device does not announce itself again on a new connection", "ConnectionSync._handle_log",
        "self.announce(doc, anew=True)", "", _SEEDS,
    ),
    Mutation(
        "presence", "a device that is back has the clock that it had", "Presence.announced",
        "if anew and self._text:\n    self._next_clock()", "", _SEEDS,
    ),
    Mutation(
        "presence", "who has fallen silent is present for ever", "SILENCE",
        "30.0", "1e9", _SEEDS,
    ),
    Mutation(
        "P5.10", "a sweep that was rolled back is taken for done", "Compaction.sweep",
        "self._paused = True", "self._sweeping = False",
        "tests/sync_server/core/test_deletion.py::test_a_sweep_that_could_not_be_written_is_done_again_before_the_answer",
    ),
    Mutation(
        "P2", "who takes nothing of what waits for it is not given up", "Keepalive.beat",
        "return now - self._asked < self._patience", "return waiting > 0",
        "tests/sync_server/net/test_slow_readers.py::test_who_takes_nothing_is_given_up_and_who_takes_some_is_not",
    ),
    Mutation(
        "P2", "who takes what waits for it slowly is given up", "Keepalive.beat",
        "takes or ", "",
        "tests/sync_server/net/test_slow_readers.py::test_who_takes_nothing_is_given_up_and_who_takes_some_is_not",
    ),
    Mutation(
        "logs", "the log shows what websockets reads", "_unrevealing",
        "return record.levelno > logging.DEBUG and not isinstance(error, InvalidHandshake)", "return True",
        "tests/sync_server/test_operating.py::test_no_level_of_logging_shows_tokens_documents_or_content",
    ),
    Mutation(
        "deleted", "a relay that lost nothing but tombstones is not noticed", "Synchronizer.connected",
        "current.loss.probe(current.documents)", "",
        "tests/repo/test_deletion.py::test_a_relay_that_lost_nothing_but_tombstones_is_told_again",
    ),
    Mutation(
        "P5.8", "what is condensed leaves out what was deleted of what was there", "YjsReplica.since",
        "less_ranges(span.deletes, place.deletes)", "{}", _SEEDS,
    ),
    Mutation(
        "P5.8", "updates that wait for others are left out of a catch-up snapshot", "Intake.let_nothing_wait",
        'if self.waiting:\n    raise MalformedUpdate("Updates wait for others.")', "pass",
        "tests/crdt/yjs/test_catch_up.py::test_a_device_has_the_same_as_with_the_records",
    ),
    Mutation(
        "P5.8", "what was condensed for one place is sent at another", "Delivery.end_wait",
        "if there and subscription.awaits_catch_up and subscription.sent == result.after:", "if state:",
        "tests/sync_server/core/test_catch_up.py::test_who_is_gone_or_opens_it_anew_is_not_told_what_it_did_not_ask",
    ),
    Mutation(
        "P5.8", "what could not be condensed in time is tried again for ever", "CatchUp.find",
        " < _TRIES", "", "tests/sync_server/core/test_catch_up.py::test_what_failed_is_tried_again_but_not_for_ever",
    ),
    Mutation(
        "P5.8", "what was condensed outlives the fold that an erase asked for", "Rooms._handle_event",
        "self._catch_up.forget(document)", "",
        "tests/sync_server/core/test_catch_up.py::test_a_fold_takes_the_place_of_what_is_condensed",
    ),
    Mutation(
        "P5.8", "who waits for what can't be condensed waits for ever", "Delivery.end_wait",
        "self._subscriptions.lagging[peer, result.document] = None", "", _SEEDS,
    ),
    Mutation(
        "P5.8", "a first record of which some waits is taken for a document", "begin",
        "replica.diff() != first", "replica.diff() == _EMPTY",
        "tests/crdt/yjs/test_catch_up.py::test_a_first_record_of_which_some_waits_is_no_document",
    ),
    Mutation(
        "P5.8", "what slow readers are still to get has no bound", "CatchUp._make_room",
        "return self._held + size <= most", "return True",
        "tests/sync_server/core/test_catch_up.py::test_who_does_not_read_holds_no_more_than_may_be_kept",
    ),
    Mutation(
        "checked", "turns go by name", "Turns.order",
        "key=self._used.__getitem__",
        "key=str",
        "tests/sync_server/core/test_turns.py",
    ),
    Mutation(
        "checked", "a debt goes with its owner", "Turns.enter",
        "max(self._now, self._used.get(source, 0.0))",
        "self._now",
        "tests/sync_server/core/test_turns.py",
    ),
    Mutation(
        "checked", "a newcomer saved up time", "Turns.enter",
        "max(self._now, self._used.get(source, 0.0))",
        "self._used.get(source, 0.0)",
        "tests/sync_server/core/test_turns.py",
    ),
    Mutation(
        "checked", "a long push is one order", "Batches._orders",
        "max(_LEAST, _PIECES // max(1, lane.ready.sources))",
        "1 << 30",
        "tests/sync_server/workers/test_scheduler.py::test_a_long_push_is_cut_and_others_come_between",
    ),
    Mutation(
        "checked", "an overrun blames all before it", "Outcomes.lost",
        "sent[: place.order]] * (not overran)",
        "sent[: place.order]]",
        "tests/sync_server/workers/test_scheduler.py::test_what_runs_out_of_time_is_to_blame_alone_and_tried_once_more_in_the_slow_lane",
    ),
    Mutation(
        "checked", "an overrun has three tries", "Outcomes._blame",
        "if overran or job.deaths >= _TRIES:",
        "if job.deaths >= _TRIES:",
        "tests/sync_server/workers/test_scheduler.py::test_what_runs_out_of_time_is_to_blame_alone_and_tried_once_more_in_the_slow_lane",
    ),
    Mutation(
        "checked", "one source fills the batch", "Batches._orders",
        "rest.append(line)",
        "rest.insert(0, line)\nbreak",
        "tests/sync_server/workers/test_scheduler.py::test_a_batch_has_a_slice_of_each_source_before_a_second_of_any",
    ),
    Mutation(
        "checked", "a part of a push counts as all of it", "Validation.take",
        "if answer.more:", "if False:",
        "tests/sync_server/core/test_validation.py::test_messages_of_one_peer_about_one_document_keep_their_order",
    ),
    Mutation(
        "checked", "records that were answered are validated again", "Job.advance",
        "rest_of(request, count)", "request",
        "tests/sync_server/workers/test_scheduler.py::test_a_long_push_is_cut_and_others_come_between",
    ),
    Mutation(
        "checked", "what follows a bad update is not looked at", "Outcomes._handle_verdict",
        'or (refused and order.name == b"check")', "or refused",
        "tests/sync_server/doors/test_yjs_door_rules.py::test_a_bad_update_among_many_takes_no_good_one_with_it",
    ),
    Mutation(
        "checked", "what waits is not kept where updates are merged", "YjsReplica._merge_together",
        "if waits:\n    kept.append(updates[count - 1].data)", "",
        "tests/crdt/yjs/test_merge.py::test_what_waits_is_kept_as_it_came_and_what_follows_by_itself",
    ),
    Mutation(
        "checked", "a replica in hand is dropped at once", "ValidationScheduler.put",
        "if document is not None and document.busy:",
        "if False:",
        "tests/sync_server/workers/test_scheduler.py::test_the_answer_of_a_replica_that_is_dropped_meanwhile_is_given_to_nobody_else",
    ),
    Mutation(
        "checked", "a document is slow for good", "Documents.enqueue",
        "elif document.lane.slow and not document.jobs and document.size <= LARGE:",
        "elif False:",
        "tests/sync_server/workers/test_scheduler.py::test_a_document_comes_back_when_it_was_not_slow_for_a_while",
    ),
    Mutation(
        "checked", "all documents load at once", "Batches._open",
        "len(lane.opening) < _OPENING and",
        "",
        "tests/sync_server/workers/test_scheduler.py::test_no_more_than_some_documents_are_loaded_at_one_time_and_each_source_has_its_turn",
    ),
    Mutation(
        "checked", "an own queue makes the relay unwell", "Outcomes._handle_verdict",
        "self._documents.report(order.source, result._replace(more=True), now)",
        "self._documents.answer(result._replace(more=True))",
        "tests/sync_server/workers/test_scheduler.py::test_it_tells_for_how_long_somebody_waits_in_vain_but_not_for_his_own_queue",
    ),
    Mutation(
        "checked", "later orders pass a cut slice", "ValidatorWorker.work",
        "(document in waiting or now > end)",
        "now > end",
        "tests/sync_server/workers/test_scheduler.py::test_what_a_batch_has_no_time_for_is_left_and_of_a_document_nothing_goes_past",
    ),
    Mutation(
        "checked", "a batch has no end", "ValidatorWorker.work",
        "(document in waiting or now > end)",
        "document in waiting",
        "tests/sync_server/workers/test_scheduler.py::test_what_a_batch_has_no_time_for_is_left_and_of_a_document_nothing_goes_past",
    ),
    Mutation(
        "checked", "a quick worker does heavy records", "ValidatorWorker._do_some",
        "if work.seconds > self._heavy and not read:",
        "if False:",
        "tests/sync_server/workers/test_scheduler.py::test_a_quick_worker_does_not_begin_with_what_would_take_long",
    ),
    Mutation(
        "checked", "far neighbours cost nothing", "_Count.item",
        "self.blocks + self.added + 1",
        "1",
        "tests/crdt/yjs/test_work.py",
    ),
    Mutation(
        "checked", "each connection has its own turns", "Writes._source",
        "self._subscriptions.peers[peer].subject or peer",
        "peer",
        "tests/sync_server/core/test_validation.py::test_what_is_checked_is_on_the_time_of_a_subject_or_of_a_connection_that_has_none",
    ),
    Mutation(
        "checked", "a subject has no window", "SubjectWindow.has_room",
        "if self.in_progress <= self._most:",
        "if True:",
        "tests/hostile/test_windows.py",
    ),
    Mutation(
        "checked", "the relay is always healthy", "HttpPages.answer",
        "late = waits > self._limits.check_wait",
        "late = False",
        "tests/hostile/test_windows.py",
    ),
    Mutation(
        "checked", "the slow worker stays", "Validator._watch",
        "and now > hands.used + _IDLE:",
        "and False:",
        "tests/sync_server/core/test_validation.py::test_the_slow_worker_is_there_while_something_is_slow",
    ),
    Mutation(
        "checked", "an overrun goes unnoticed", "ran_out",
        'return sys.platform != "win32" and status == -signal.SIGPROF',
        "return False",
        "tests/hostile/test_the_check_is_fair.py",
    ),
    Mutation(
        "P6", "a client that knows an id opens the document", "Subscriptions.may_use",
        "== state.subject", "is not None", "tests/sync_server/core/test_own.py",
    ),
    Mutation(
        "P6", "a client that had a document open before it was another's reads on", "Access.end_foreign",
        "self._subscriptions.foreign(document)", "()",
        "tests/sync_server/core/test_own.py::test_who_had_a_document_open_before_it_was_another_s_has_it_no_more",
    ),
    Mutation(
        "P6", "a page is answered about what is another's by then", "Writes._follow",
        "if not self._subscriptions.may_use(peer, document):", "if False:",
        "tests/sync_server/core/test_own.py::"
        "test_what_was_asked_before_a_document_was_another_s_is_not_answered_after",
    ),
    Mutation(
        "P6", "the first writer of a document is seen by others before", "Access.is_for",
        "return not presence or self._subscriptions.is_there(document)", "return True",
        "tests/sync_server/core/test_own.py::test_nobody_is_seen_in_a_document_before_it_is_anybody_s",
    ),
    Mutation(
        "P6", "the relay isn't told that a token is for its subject's own", "Sessions._greet",
        "grant.names if grant.own else None", "None",
        "tests/sync_server/auth/test_own_documents.py::test_what_was_written_without_tokens_is_given_to_a_subject",
    ),
    Mutation(
        "P4", "a part of a message costs as much as a compressed one", "PlainFrames.feed",
        "1 if kind & _FINAL and kind & _OPCODE in _DATA else _PART", "1",
        "tests/sync_server/net/test_frames.py::test_a_frame_that_brings_no_message_costs_more_than_one_that_is_compressed",
    ),
    Mutation(
        "P9.2", "half of a letter that is there is given to the core", "Pairs.split",
        "broken = _common(self._pairs, there)", "broken = {}", "tests/crdt/yjs/test_pairs.py",
    ),
    Mutation(
        "P9.2", "an update that splits its own letters comes in as it is", "Pairs._take_pairs",
        "if own else update", "if False else update", "tests/crdt/yjs/test_pairs.py",
    ),
    Mutation(
        "P9.2", "a delete that came early is forgotten", "Pairs._note_ahead",
        "if deleted > end:", "if False:",
        "tests/crdt/yjs/test_pairs.py::test_a_delete_that_came_before_its_letter_splits_it",
    ),
    Mutation(
        "P9.2", "nobody looks for letters in a snapshot", "Pairs.split",
        "if there and self._pairs is None:", "if False:", "tests/crdt/yjs/test_pairs.py",
    ),
    Mutation(
        "P9.2", "half a letter is told as nothing", "Pairs.on_letters",
        "state[client] -= 1", "pass", "tests/crdt/yjs/test_pairs.py::test_half_a_letter_is_told_from_its_beginning",
    ),
    Mutation(
        "P9.2", "updates that overlap in a letter are merged as they are", "merge_whole",
        "or not _overlap(updates)", "or True",
        "tests/crdt/yjs/test_pairs.py::test_half_a_letter_is_told_from_its_beginning",
    ),
    Mutation(
        "P5.8", "deletes may be told in any order", "update:_read_update",
        "if start < end:", "if False:",
        "tests/crdt/yjs/test_pairs.py::test_deletes_that_the_core_would_forget_are_refused",
    ),
    Mutation(
        "P5.8", "depth is not looked at across updates", "_Levels._add",
        "if struct.kind == _TYPE and level >= DEPTH:",
        "if False:",
        "tests/crdt/yjs/test_nesting.py::test_updates_that_each_add_a_level_stop_at_the_limit",
    ),
    Mutation(
        "P5.8", "an id told twice counts as told last", "Nesting.admit",
        "if not span.repeats(state) and self._raise(span):",
        "if self._raise(span):",
        "tests/crdt/yjs/test_nesting.py::test_an_id_that_is_told_twice_lies_where_it_lay_first",
    ),
    Mutation(
        "P5.8", "a neighbour's depth is forgotten", "_Levels._add",
        "level = max((self._level(id_) for id_ in struct.beside), default=0)",
        "level = 0",
        "tests/crdt/yjs/test_nesting.py::test_a_type_that_only_names_its_neighbour_lies_as_deep_as_that",
    ),
    Mutation(
        "P5.8", "types without a place raise no bound", "Nesting._raise",
        "+ span.hanging",
        "+ 0",
        "tests/crdt/yjs/test_nesting.py::test_a_type_that_only_names_its_neighbour_lies_as_deep_as_that",
    ),
    Mutation(
        "P5.8", "an update that waits is given to the core", "UpdateRange.lacks",
        "return any(",
        "return False and any(",
        "tests/crdt/yjs/test_catch_up.py",
    ),
    Mutation(
        "P5.8", "a circle is kept", "YjsReplica._confirm",
        "raise MalformedUpdate(\"The update waits for itself.\")",
        "return",
        "tests/crdt/yjs/test_nesting.py::test_what_waits_for_itself_is_refused",
    ),
    Mutation(
        "P5.8", "an item may stand in itself", "_read_id",
        "if at >= clock:",
        "if False:",
        "tests/crdt/yjs/test_nesting.py::test_what_waits_for_itself_is_refused",
    ),
    Mutation(
        "workers", "a fork keeps what belongs to others", "fork_server:_work",
        "for file in others:", "for file in ():",
        "tests/sync_server/workers/test_starter.py::test_what_a_worker_is_given_is_its_own",
    ),
    Mutation(
        "workers", "a fork server that was killed stays lost", "ForkServer.fork",
        "with suppress(ConnectionError, TimeoutError):", "if True:",
        "tests/sync_server/workers/test_starter.py::test_a_fork_server_that_was_killed_is_replaced",
    ),
    Mutation(
        "workers", "a worker whose end nobody would hear goes on", "_Forked.ended",
        "self.kill()", "pass",
        "tests/sync_server/workers/test_starter.py::test_a_fork_server_that_was_killed_is_replaced",
    ),
    Mutation(
        "checked", "records that can't be checked are acknowledged", "Documents._refuse_all",
        "ValidateResult(job.todo.ticket, failed=True)",
        "ValidateResult(job.todo.ticket, job.todo.records)",
        "tests/sync_server/core/test_validation.py::test_a_document_that_can_not_be_loaded_takes_nothing",
    ),
    Mutation(
        "duties", "a record that ended a process stays", "Resources._set_aside_deadly",
        "if found is None or found == SNAPSHOT:",
        "if True:",
        "tests/repo/test_deadly_records.py",
    ),
    Mutation(
        "duties", "a living process's mark is taken", "Applying.left",
        "if _lock(handle):",
        "if True:",
        "tests/repo/test_deadly_records.py",
    ),
    Mutation(
        "P10", "a filter with any parameters is read", "automerge_sync:_read_filter",
        "(bits, probes) != (BITS, PROBES) or (entries * BITS + 7) // 8 != end - at", "False",
        _DOOR + "test_a_hostile_sync_message_is_malformed_before_anything_is_made_of_it",
    ),
    Mutation(
        "P10", "things in a frame are not counted", "cbor:_count",
        "if inside > items:", "if False:", _DOOR + "test_cbor_that_is_large_deep_or_strange_is_malformed",
    ),
    Mutation(
        "P10", "any document is shown to anybody", "AutomergeDoor._sync",
        'not self.grant.allows("read", document)', "False",
        _DOOR + "TestAutomergeDoor::test_another_document_is_not_shown",
    ),
    Mutation(
        "P10", "a client that may read may write", "AutomergeDoor._may_append",
        'self.grant.allows("append", document)', "True",
        _DOOR + "TestAutomergeDoor::test_a_client_that_only_reads_writes_nothing",
    ),
    Mutation(
        "P10", "a client that has what it was told is answered", "AutomergeDoor._question",
        "self._context.told.holds(document, sync.heads)", "False",
        _DOOR + "test_a_client_that_has_what_it_was_told_is_not_answered",
    ),
    Mutation(
        "P10", "the same question is answered without end", "AutomergeDoor._question",
        "known and not request and self._asked[document] == hashlib.sha256(question).digest()", "False",
        _DOOR + "test_a_client_that_has_what_it_was_told_is_not_answered",
    ),
    Mutation(
        "P10", "clients are not told that all up to the heads is here", "crdt.automerge.sync:tell",
        "[Have(heads, NOTHING)]", "[]", _DOOR + "test_updates_tell_all_heads_and_each_chunk_by_itself",
    ),
    Mutation(
        "P10", "the changes that others wait for are not asked for", "History.wanted",
        "if not any(dep in known for known in here)", "if False",
        "tests/crdt/automerge/test_sync.py::test_what_waits_is_asked_for_by_name_and_told_to_nobody_as_a_head",
    ),
    Mutation(
        "P10", "a change that follows a lacking one is believed to be there", "_lacking",
        "any(dep in lacked for dep in change.deps) or ", "",
        "tests/crdt/automerge/test_sync.py::test_what_follows_a_change_that_somebody_lacks_is_sent_too",
    ),
    Mutation(
        "P10", "a document is loaded as what it is not", "Writes._is_refused",
        "found != kind", "False",
        _DOOR + "test_a_document_of_another_kind_is_refused_and_the_connection_goes_on",
    ),
    Mutation(
        "P10", "ephemeral messages of one tick are lost but for the last", "ephemeral:Ephemeral.take",
        "len(sender.messages) > _MESSAGES", "len(sender.messages) > 1",
        _DOOR + "test_an_ephemeral_message_is_presence_and_back",
    ),
)  # fmt: skip
