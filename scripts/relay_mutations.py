"""Ways to break what docs/protocol.md promises in the code. The simulator of relay and clients must notice each; where
that takes more schedules than a test should, a test of its own does.

The rule is the section of docs/protocol.md, or the promise.
"""

from __future__ import annotations

from mutations import Mutation

_LOG = "sync_server/sqlite_log.py"
_ROOMS = "sync_server/rooms.py"
_STORE = "llmcrdt/store/database.py"
_FOLLOWER = "llmcrdt/sync/follower.py"
_GOALS = "llmcrdt/sync/goals.py"
_REPO = "llmcrdt/repo.py"
_PRESENT = "llmcrdt/document/presence.py"
_SEEDS = "tests/sim/test_relay_schedules.py::test_every_promise_holds_over_seeded_schedules"

RELAY_MUTATIONS = (
    Mutation(
        "P5.5", "the relay's commits are not fsynced", "sync_server/log_file.py",
        'connection.execute("PRAGMA synchronous=FULL")', 'connection.execute("PRAGMA synchronous=NORMAL")', _SEEDS,
    ),
    Mutation(
        "P5.5", "what a failed commit would have said is said", _ROOMS,
        "            self._undo(events, done, e)\n", "            logger.error(e)\n", _SEEDS,
    ),
    Mutation(
        "P5.5", "an ack comes before the records before it", _ROOMS,
        "        reading.own.update((position, (session, record.n)) for position, record in stored)\n",
        "        for ack in _acks(document, [(position, session, record.n) for position, record in stored]):\n"
        "            self._send(peer, ack)\n", _SEEDS,
    ),
    Mutation(
        "P5.4", "a repeat is taken for a gap", _LOG,
        "        if doc and session and record.n <= session.last:\n", "        if False:\n", _SEEDS,
    ),
    Mutation(
        "P5.2", "a cursor is known by its position alone", _LOG,
        "        return chain == cursor.chain\n", "        return chain is not None\n",
        "tests/sync_server/test_rooms.py::"
        "test_a_cursor_that_is_no_place_in_the_log_starts_over",
    ),
    Mutation(
        "P5.2", "a cursor counts in any log", _ROOMS,
        "        if cursor.log != room.head.log:\n            return False\n", "", _SEEDS,
    ),
    Mutation(
        "P5.6", "a barrier is reached at once", _ROOMS,
        "            if reading is not None and reading.sent < ends[document]:\n                return False\n", "",
        "tests/sync_server/test_rooms.py::"
        "test_a_barrier_is_answered_behind_all_that_was_there",
    ),
    Mutation(
        "P5.8", "the records behind a snapshot are left out", _ROOMS,
        "        reading.sent = fold.position\n",
        "        reading.sent = self._rooms[document].head.position\n", _SEEDS,
    ),
    Mutation(
        "P5.8", "a newer snapshot goes on where another was", _ROOMS,
        "        if session != fold.session:\n            place = 0\n", "",
        "tests/sync_server/test_folding.py::test_whoever_a_fold_overtakes_misses_nothing",
    ),
    Mutation(
        "P4", "a slow reader is buffered", _ROOMS,
        "            if state.outstanding >= self.limits.outgoing:\n", "            if False:\n",
        "tests/sync_server/test_rooms.py::"
        "test_a_slow_reader_is_not_buffered_and_misses_nothing",
    ),
    Mutation(
        "P4", "each document of a reader has a queue of its own", _ROOMS,
        "                state.outstanding += weights[place]\n", "",
        "tests/sync_server/test_rooms.py::test_the_queue_of_a_reader_is_one_for_all_its_documents",
    ),
    Mutation(
        "duties", "a client's commits are not fsynced", _STORE,
        '"synchronous=FULL"', '"synchronous=NORMAL"', _SEEDS,
    ),
    Mutation(
        "duties", "a relay that lost data is not filled again", _STORE,
        "            if data is not None:\n                self._queue",
        "            if False:\n                self._queue",
        _SEEDS,
    ),
    Mutation(
        "duties", "a refill is one record, however large", _REPO,
        "cut=cut_update, ", "",
        "tests/test_large.py::test_what_is_larger_than_a_record_is_sent_all_the_same",
    ),
    Mutation(
        "duties", "what was deleted is missing in a refill", _REPO,
        "missing = kept.diff(since=theirs.version())",
        "missing = kept.diff(since=theirs.version()); missing = b'\\x00\\x00' if"
        " kept.version() == theirs.version() else missing",
        "tests/test_repo.py::"
        "test_a_refill_holds_what_was_only_deleted",
    ),
    Mutation(
        "duties", "the outbox is not sent again after a reconnection", _FOLLOWER,
        "        self._filling.discard(doc.id)\n        self._push(doc)\n", "        self._filling.discard(doc.id)\n",
        _SEEDS,
    ),
    Mutation(
        "duties", "a cursor is remembered before what the log lacks is queued", _FOLLOWER,
        "self._local.received(doc.id, named, None if filling else cursor)",
        "self._local.received(doc.id, named, cursor)",
        "tests/sync/test_sync_machine.py::"
        "test_a_cut_while_another_log_is_taken_in_loses_nothing",
    ),
    Mutation(
        "duties", "a cursor goes back", _STORE,
        "AND document = ? AND position < ?", "AND document = ? AND position != ?",
        "tests/store/test_database.py::"
        "test_a_cursor_goes_back_within_a_log_only_at_a_refill",
    ),
    Mutation(
        "duties", "an old cursor counts again when another log was taken in", _STORE,
        "db.execute(query, [NO_LOG, relay, document])", "pass",
        "tests/store/test_database.py::test_records_of_another_log_leave_a_cursor_into_none",
    ),
    Mutation(
        "duties", "an ack moves a cursor into another log", _STORE,
        "!= log:\n            return False\n",
        "!= log:\n            self._db.execute('UPDATE cursors SET log = ?', [log])\n",
        "tests/store/test_database.py::test_records_of_another_log_leave_a_cursor_into_none",
    ),
    Mutation(
        "synced", "what is gone counts as refused before the library can say why", _FOLLOWER,
        "                self._goals.ask_again()  # the library's", "                # the library's",
        "tests/sync/test_deletions.py::test_gone_is_a_refusal_only_where_the_library_does_not_say_why",
    ),
    Mutation(
        "duties", "names go on after a refill", _STORE,
        "session, n = known[1:] if known and known[0] == refills else", "session, n = known[1:] if known else", _SEEDS,
    ),
    Mutation(
        "synced", "what replaced waiting records is not waited for", "llmcrdt/sync/marks.py",
        "    if before.replaced != local.replaced(document):\n        before = end_of(local, document)\n", "",
        "tests/test_erase_everywhere.py::test_what_an_erase_puts_in_the_place_of_waiting_records_is_waited_for",
    ),
    Mutation(
        "synced", "a goal does not ask what the relay has", _GOALS,
        "            if goal.heard and not goal.marks:\n", "            if not goal.marks:\n", _SEEDS,
    ),
    Mutation(
        "synced", "deletions are no part of what is local", _GOALS,
        "            goal.heard = False\n", "            pass\n",
        "tests/sync/test_deletions.py::test_who_waits_to_be_in_step_waits_until_the_relay_has_heard_of_it",
    ),
    Mutation(
        "duties", "a deletion that was refused is asked for again on every connection", _STORE,
        "if not credential or refused != credential]", "]",
        "tests/test_deletion.py::"
        "test_a_deletion_that_the_relay_refuses_is_told_once_and_asked_again_with_another_token",
    ),
    Mutation(
        "duties", "a deletion that was refused is forgotten", _STORE,
        'db.execute("UPDATE settings SET value = ? WHERE name = ?", [credential, name])',
        'db.execute("DELETE FROM settings WHERE ? != name AND name = ?", [credential, name])',
        "tests/test_deletion.py::"
        "test_a_deletion_that_the_relay_refuses_is_told_once_and_asked_again_with_another_token",
    ),
    Mutation(
        "duties", "a refill drops what another process wrote meanwhile", "llmcrdt/relay_documents.py",
        "if self._store.last_place(document) != place:", "if False:",
        "tests/test_repo.py::"
        "test_a_refill_holds_what_another_process_wrote_meanwhile",
    ),
    Mutation(
        "erased", "a record that repeats erased words is kept", "llmcrdt/relay_documents.py",
        "stale = bool(self._store.purged(document)) and", "stale = False and", _SEEDS,
    ),
    Mutation(
        "synced", "the first refusal ends the wait for all others", "llmcrdt/sync/goals.py",
        "if not held_back and (not goal.heard or goal.marks.keys() - refused.keys()):", "if False:",
        "tests/test_large.py::test_what_a_relay_takes_less_of_waits_alone_and_an_erase_frees_the_rest",
    ),
    Mutation(
        "duties", "what stands before a record that is too large is not sent again", "llmcrdt/sync/pushes.py",
        "        self.stalled.pop(doc.id, None)\n        doc.stuck = None\n\n",
        "        self.stalled.pop(doc.id, None)\n\n",
        "tests/sync/test_pushes.py",
    ),
    Mutation(
        "erased", "what waits is replaced at every purge", "llmcrdt/crdt/yjs_redact.py",
        "if not _common(held, gone):", "if not gone:", "tests/crdt/test_yjs_redact.py",
    ),
    Mutation(
        "erased", "what waits keeps the words that were erased", "llmcrdt/crdt/yjs_redact.py",
        "if not _common(held, gone):", "if gone:", "tests/test_erase_everywhere.py",
    ),
    Mutation(
        "erased", "what is left of what waits lacks its deletes", "llmcrdt/crdt/yjs_redact.py",
        "_union(*said, _common(gone, _ranges(left)))", "_common(gone, _ranges(left))", "tests/crdt/test_yjs_redact.py",
    ),
    Mutation(
        "P5.10", "a deleted document is opened again", _ROOMS,
        "        if self._is_gone(document):\n            return self._refuse(peer, ErrorCode.GONE, _GONE, document)\n"
        "        if len(state.readings)", "        if len(state.readings)", _SEEDS,
    ),
    Mutation(
        "P5.10", "a deletion is answered before nothing is left", _ROOMS,
        "        if self._folding.clean:\n            for peer, document in self._deleting",
        "        if True:\n            for peer, document in self._deleting", _SEEDS,
    ),
    Mutation(
        "deleted", "a deletion is not owed to relays", _STORE,
        "[f\"delete:{document}:{relay}\"])\n            for table",
        "[f\"fold:{document}:{relay}\"])\n            for table", _SEEDS,
    ),
    Mutation(
        "deleted", "a relay that lost data is not told again what was deleted", _FOLLOWER,
        "            self._local.lost()\n", "",
        "tests/test_deletion.py::test_a_relay_that_went_back_to_an_old_copy_is_told_again",
    ),
    Mutation(
        "deleted", "a deletion is asked for before it is durable that the library says so", "llmcrdt/sync/deletions.py",
        "            if waits is not None:\n                deletion.mark = waits\n            else:",
        "            if True:", "tests/sync/test_deletions.py::test_it_waits_for_the_library_and_is_asked_once",
    ),
    Mutation(
        "deleted", "a deletion that was not answered is not asked for again", "llmcrdt/sync/deletions.py",
        "            deletion.asked = False\n", "            pass\n",
        "tests/sync/test_deletions.py::test_what_was_not_answered_is_asked_for_on_the_next_connection",
    ),
    Mutation(
        "P5.5", "what goes wrong at one connection is not kept from the others", "sync_server/server.py",
        "            except Exception:\n                self._break_off(connection)\n",
        "            except ConnectionError:\n                self._break_off(connection)\n",
        "tests/sync_server/test_faults.py::test_all_others_are_told_and_may_go_on",
    ),
    Mutation(
        "checked", "a bad record is appended behind the good ones", _ROOMS,
        "good = data if answer.good == records else data[: answer.good]", "good = data", _SEEDS,
    ),
    Mutation(
        "checked", "all that a worker had in hand is to blame for its death", "sync_server/keeper.py",
        "                job.alone = True\n            if job",
        "                done = Checked(job.todo.ticket, job.good, (), \"?\")\n"
        "                self._finish(order.document, job, done)\n            if job",
        _SEEDS,
    ),
    Mutation(
        "checked", "what a worker gone mad says is believed", "sync_server/keeper.py",
        "if len(answer.data) != int(count) or not _is_possible(order, answer):", "if len(answer.data) != int(count):",
        "tests/sync_server/test_checking.py::test_a_worker_that_says_what_can_not_be_is_started_again",
    ),
    Mutation(
        "checked", "a document that a record broke is kept", "sync_server/keeper_worker.py",
        "            if replica.broken:\n", "            if False:\n",
        "tests/sync_server/test_checking.py::test_a_document_in_doubt_is_gone_until_it_is_loaded_again",
    ),
    Mutation(
        "checked", "what the core refuses among many is put on the first", "sync_server/keeper_worker.py",
        "                if len(read) > 1:\n                    raise _OneByOne from None\n", "",
        "tests/sync_server/test_checking.py::test_what_only_the_core_refuses_is_found_among_many_records",
    ),
    Mutation(
        "checked", "a document in which some of a batch may be is kept", "sync_server/keeper_worker.py",
        "        except _OneByOne:\n            self._held.pop(document, None)\n", "        except _OneByOne:\n",
        "tests/sync_server/test_checking.py::test_a_document_in_doubt_is_gone_until_it_is_loaded_again",
    ),
    Mutation(
        "steps", "a slow disk holds up the loop", "sync_server/server.py",
        "        return self._mean < _QUICK\n", "        return True\n",
        "tests/sync_server/test_steps.py::test_a_slow_disk_holds_up_nobody_who_does_not_need_it",
    ),
    Mutation(
        "frames", "a plain frame is taken when the connection is closing", "sync_server/frames.py",
        "                open_ = self._open()\n", "", "tests/sync_server/test_frames.py",
    ),
    Mutation(
        "frames", "a push goes on where another session's ended", "llmcrdt/sync/wire.py",
        "    if not frame.startswith(name):\n        return ()\n", "", "tests/sync_server/test_frames.py",
    ),
    Mutation(
        "frames", "a push goes on wherever it likes", "llmcrdt/sync/wire.py",
        "        if reader.name(MAX_RECORDS) != n:\n            return ()\n", "        reader.name(MAX_RECORDS)\n",
        "tests/sync_server/test_frames.py",
    ),
    Mutation(
        "presence", "who comes new is not told who is there", "sync_server/presence.py",
        "        if found.entries:\n            self._changed.add(document)\n", "", _SEEDS,
    ),
    Mutation(
        "presence", "a device does not announce itself again on a new connection", _FOLLOWER,
        "                self.announce(doc.id, anew=True)\n", "", _SEEDS,
    ),
    Mutation(
        "presence", "a device that is back has the clock that it had", _PRESENT,
        "            if anew and self._text:\n                self._next_clock()\n", "", _SEEDS,
    ),
    Mutation(
        "presence", "who has fallen silent is present for ever", _PRESENT,
        "SILENCE = 30.0\n", "SILENCE = 1e9\n", _SEEDS,
    ),
    Mutation(
        "P5.10", "a sweep that was rolled back is taken for done", "sync_server/folding.py",
        "        self._paused = self._sweeping = self._scrubbing = True\n", "        self._paused = True\n",
        "tests/sync_server/test_deleting.py::"
        "test_a_sweep_that_could_not_be_written_is_done_again_before_the_answer",
    ),
    Mutation(
        "P2", "who takes nothing of what waits for it is not given up", "llmcrdt/sync/pulse.py",
        "            return now - self._asked < self._patience\n", "            return waiting > 0\n",
        "tests/sync_server/test_slow_readers.py::"
        "test_who_takes_nothing_is_given_up_and_who_takes_some_is_not",
    ),
    Mutation(
        "P2", "who takes what waits for it slowly is given up", "llmcrdt/sync/pulse.py",
        "        if heard > self._heard or takes or excused:\n", "        if heard > self._heard or excused:\n",
        "tests/sync_server/test_slow_readers.py::"
        "test_who_takes_nothing_is_given_up_and_who_takes_some_is_not",
    ),
    Mutation(
        "logs", "the log shows what websockets reads", "sync_server/server.py",
        "return record.levelno > logging.DEBUG and not isinstance(error, InvalidHandshake)", "return True",
        "tests/sync_server/test_operating.py::"
        "test_no_level_of_logging_shows_tokens_documents_or_content",
    ),
    Mutation(
        "deleted", "a relay that lost nothing but tombstones is not noticed", _FOLLOWER,
        "        self._list()\n        self._probe()\n", "        self._list()\n",
        "tests/test_deletion.py::"
        "test_a_relay_that_lost_nothing_but_tombstones_is_told_again",
    ),
    Mutation(
        "P5.8", "what is condensed leaves out what was deleted of what was there", "llmcrdt/crdt/yjs.py",
        "write_deletes(less_ranges(span.deletes, place.deletes))", "write_deletes({})", _SEEDS,
    ),
    Mutation(
        "P5.8", "what waits for others is left out where a tail is condensed", "llmcrdt/crdt/yjs.py",
        '        if self._pending:\n            raise MalformedUpdate("Updates wait for others.")\n', "        pass\n",
        "tests/crdt/test_condensing.py::test_a_device_has_the_same_as_with_the_records",
    ),
    Mutation(
        "P5.8", "what leaves a hole is given to the core", "llmcrdt/crdt/yjs.py",
        "            if span.begins_behind(self._known):\n                late",
        "            if False:\n                late",
        "tests/crdt/test_condensing.py::test_a_device_that_has_some_of_it_from_elsewhere_has_the_same",
    ),
    Mutation(
        "P5.8", "what was condensed for one place is sent at another", _ROOMS,
        "            if there and reading.waiting and reading.sent == answer.after:\n", "            if state:\n",
        "tests/sync_server/test_condensing.py::"
        "test_who_is_gone_or_opens_it_anew_is_not_told_what_it_did_not_ask",
    ),
    Mutation(
        "P5.8", "what could not be condensed in time is tried again for ever", "sync_server/condensing.py",
        "0 < kept.failures < _TRIES", "0 < kept.failures",
        "tests/sync_server/test_condensing.py::test_what_failed_is_tried_again_but_not_for_ever",
    ),
    Mutation(
        "P5.8", "what was condensed outlives the fold that an erase asked for", _ROOMS,
        "                    self._condensing.forget(document)\n", "",
        "tests/sync_server/test_condensing.py::test_a_fold_takes_the_place_of_what_is_condensed",
    ),
    Mutation(
        "P5.8", "who waits for what can't be condensed waits for ever", _ROOMS,
        "                self._behind[peer, answer.document] = None\n", "", _SEEDS,
    ),
    Mutation(
        "P5.8", "a first record of which some waits is taken for a document", "llmcrdt/crdt/fold.py",
        "    if replica.diff() != first:\n", "    if replica.diff() == _EMPTY:\n",
        "tests/crdt/test_condensing.py::test_a_first_record_of_which_some_waits_is_no_document",
    ),
    Mutation(
        "P5.8", "what slow readers are still to get has no bound", "sync_server/condensing.py",
        "        return self._held + size <= most\n", "        return True\n",
        "tests/sync_server/test_condensing.py::test_who_does_not_read_holds_no_more_than_may_be_kept",
    ),
)  # fmt: skip
