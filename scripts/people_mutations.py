"""Ways to break what apps are told: observers, deletions, the state of links."""

from __future__ import annotations

from mutations import Mutation

_OBSERVERS = "tests/repo/test_observers.py::"
_TOKENS = "tests/repo/test_token_provider.py::"
_LOCAL = "tests/repo/test_local.py::"
_PLUGIN = "tests/test_llm_plugin.py::"
_LOOPS = "tests/test_observation.py::"

PEOPLE_MUTATIONS = (
    Mutation(
        "observers",
        "a loop reads the youngest first",
        "_Inbox.take",
        "self._items.popleft()",
        "self._items.pop()",
        _LOOPS + "test_a_thread_reads_until_it_ends",
    ),
    Mutation(
        "observers",
        "a loop that was left is told for ever",
        "Observation.__del__",
        "self._inbox.left = True",
        "pass",
        _LOOPS + "test_a_loop_that_is_left_is_forgotten",
    ),
    Mutation(
        "observers",
        "the list is compared inside of the write",
        "LibraryObservers.look",
        "self._resources.dispatcher.run(lambda: self._compare(only))",
        "self._compare(only)",
        _OBSERVERS + "test_each_change_has_its_name",
    ),
    Mutation(
        "observers",
        "other processes' changes to the list are not told",
        "RepoCore.look",
        "self.listing.observers.look()",
        "pass",
        _OBSERVERS + "test_changes_by_another_process_are_heard",
    ),
    Mutation(
        "observers",
        "a deletion is not told",
        "ConversationCore.delete",
        "self.observers.end(deleted=True)",
        "self.observers.end(deleted=False)",
        _OBSERVERS + "test_a_coroutine_hears_of_a_deletion_on_another_device",
    ),
    Mutation(
        "observers",
        "a link is in step while something waits",
        "Synchronizer.in_step",
        "not self._local.outbox_ends()",
        "True",
        "tests/sync/test_link.py::test_a_link_is_not_in_step_while_something_waits",
    ),
    Mutation(
        "tokens",
        "a provider that has nothing better is asked without end",
        "TokenSource.renew",
        "or not self._accepted",
        "",
        _TOKENS + "test_a_provider_that_has_nothing_better_ends_the_link",
    ),
    Mutation(
        "tokens",
        "a refused token is shown again",
        "TokenSource.renew",
        "self._known, self._accepted, self._refused = False, False, why",
        "self._accepted, self._refused = False, why",
        _TOKENS + "test_a_token_that_is_taken_back_is_replaced_and_nothing_else_is_asked_for",
    ),
    Mutation(
        "local",
        "the library lists local conversations",
        "Listing.put",
        "if not catalog.is_local(conversation):",
        "if True:",
        _LOCAL + "test_the_relay_has_no_word_of_a_local_conversation",
    ),
    Mutation(
        "local",
        "a card of another device has a local conversation synced",
        "Listing.following",
        "if not card.deleted and card.id not in local",
        "if not card.deleted",
        _LOCAL + "test_another_device_that_has_the_same_gets_nothing_of_it",
    ),
    Mutation(
        "local",
        "a relay is asked to delete what it must not know of",
        "SqliteDeletions.drop",
        "NOT EXISTS (SELECT 1 FROM settings WHERE name = ?)",
        "? != ''",
        _LOCAL + "test_the_relay_has_no_word_of_a_local_conversation",
    ),
    Mutation(
        "local",
        "an invite has the keys of local conversations",
        "_shared_keys",
        "if key[0] not in local",
        "",
        _LOCAL + "test_an_invite_has_no_keys_of_it",
    ),
    Mutation(
        "local",
        "other processes go on syncing",
        "RepoCore.look",
        "self.stop_syncing()",
        "pass",
        _LOCAL + "test_a_database_that_never_syncs",
    ),
    Mutation(
        "plugin",
        "each prompt of one talk begins another conversation",
        "RepoModel._conversation",
        "settings.put(place, new.id)",
        "pass",
        _PLUGIN + "test_a_model_answers_in_a_conversation_of_the_repo",
    ),
    Mutation(
        "plugin",
        "texts that lean on fragments are lost",
        "_Database._leaning",
        'found = self.by_id("fragments", id_).get("content")',
        "found = None",
        _PLUGIN + "test_a_conversation_goes_into_a_prompt_and_llms_logs_come_back",
    ),
    Mutation(
        "progress",
        "--quiet shows it all the same",
        "progress_shown",
        "not quiet and",
        "",
        "tests/cli/test_progress.py::test_a_terminal_sees_how_far_it_is_unless_told_otherwise",
    ),
    Mutation(
        "progress",
        "what it raises leaves a fork",
        "copy_conversation",
        "_write(target, fields, acts, origin, created_at, told)",
        "_write(target, fields, acts, origin, created_at, lambda done, of: None)",
        "tests/cli/test_progress.py::test_progress_is_told_in_order_and_what_it_raises_leaves_nothing",
    ),
)
