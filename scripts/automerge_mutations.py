"""Ways to break what Automerge documents promise, and the test that must notice. Run by ``mutate.py``."""

from __future__ import annotations

from mutations import Mutation

_SYNC = "tests/crdt/automerge/test_sync.py::"
_ANEW = _SYNC + "test_who_holds_the_history_of_before_an_erase_gives_what_he_wrote_and_is_told"
_ENDS = "tests/crdt/automerge/test_ends.py::"
_ON_TOP = _ENDS + "test_what_comes_on_top_of_a_snapshot_is_taken_as_by_a_replica_that_was_never_stored"

AUTOMERGE_MUTATIONS = (
    Mutation(
        "ends", "what comes after changes that are not noted waits for them", "LazyHistory._goes_on",
        "if key not in known and key not in history:", "if False:", _ON_TOP,
    ),
    Mutation(
        "ends", "a change that is there passes for a new one", "LazyHistory._goes_on",
        " or change.seq <= history.seqs.get(change.actor, 0)", "",
        _ENDS + "test_a_change_of_a_stranger_that_comes_after_nothing_and_is_there_is_no_news",
    ),
    Mutation(
        "ends", "a document is loaded change by change", "LazyHistory.begin",
        "self._ends = True", "pass", _ENDS + "test_a_tail_that_goes_on_needs_no_look_at_all_changes",
    ),
    Mutation(
        "ends", "the last operation of a head is that of the change before it", "ends:_values_at",
        "(place - n + 1)", "(place - n)", _ENDS + "test_the_ends_of_a_document_are_those_that_its_changes_tell",
    ),
    Mutation(
        "anew", "a client with the history of before is told changes of the new one", "crdt.automerge.sync:answer",
        "if not history.older.keys().isdisjoint(asked.heads):", "if False:", _ANEW,
    ),
    Mutation(
        "anew", "a client is told changes before the relay has its own", "crdt.automerge.sync:_answer_both_ways",
        "[] if core.erasures and not asked.need else ", "", _ANEW,
    ),
    Mutation(
        "anew", "an app hears nothing of it", "AutomergeDoor._tell_to_load_anew",
        'self._message("ephemeral", document, **said), ', "",
        "tests/sync_server/doors/test_automerge_door.py::test_an_app_hears_that_its_document_is_to_be_loaded_anew",
    ),
    Mutation(
        "anew", "an app is told no second time", "AutomergeDoor._tell_to_load_anew",
        'session = self._asked.get(document, b"").hex()', 'session = ""',
        "tests/sync_server/doors/test_automerge_door.py::test_an_app_hears_that_its_document_is_to_be_loaded_anew",
    ),
    Mutation(
        "damage", "the entry index says what a change said that is set aside", "SqliteUpdates.set_aside",
        'db.execute(f"DELETE FROM tables WHERE document = ? AND {made_of_it}", [document, document, data])', "pass",
        "tests/repo/test_kinds.py::test_a_change_that_is_torn_or_damaged_in_the_file_is_set_aside_and_the_rest_is_read",
    ),
    Mutation(
        "damage", "a change that is here waits on under an older hash", "History._order",
        "free += held_back.pop(after_these.name, ())", "pass",
        "tests/crdt/automerge/test_erasures.py::test_a_change_that_is_here_waits_no_more_under_another_hash",
    ),
)  # fmt: skip
