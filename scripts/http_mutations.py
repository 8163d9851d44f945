"""Ways to break what docs/serve.md promises in the code, and the test that must notice each."""

from __future__ import annotations

from mutations import Mutation

_HTTP = "llmcrdt.serve.http."
_FOUND = "tests/serve/apis/test_conversations_found.py::"
_ERRORS = "tests/serve/apis/test_errors.py::"
_SDKS = "tests/serve/apis/test_sdks.py::"
_PLACING = "tests/serve/apis/test_placing.py"

HTTP_MUTATIONS = (
    Mutation(
        "W", "a request that resends everything begins a conversation", _HTTP + "placing:Placer._find",
        "return _Found(conversation, place.ends, count)", "return None",
        _FOUND + "test_a_client_that_resends_everything_has_one_conversation_and_reuses_its_state",
    ),
    Mutation(
        "W", "a hash is believed, and no words are compared", _HTTP + "placing:Placer._find",
        "if not sealed or there != says[:count]", "if False", _PLACING,
    ),
    Mutation(
        "W", "a key's list is found in another's conversation", _HTTP + "placing:Placer._find",
        "caller.author if caller.only_own else None", "None", _PLACING,
    ),
    Mutation(
        "W", "an edit stands beside what it replaces", _HTTP + "placing:Placer._write",
        "instead_of=replaced if not number else None", "instead_of=None",
        _FOUND + "test_an_edit_is_a_branch_in_the_place_of_what_was_said_there",
    ),
    Mutation(
        "W", "an HTTP client's words hide a device's", _HTTP + "placing:_replaced",
        "shown.author == caller.author and", "", _FOUND + "test_the_answer_stands_on_exactly_the_list_that_was_sent",
    ),
    Mutation(
        "W", "an answer is computed on all that is shown", _HTTP + "turns:Turns._begin",
        "on=placed.branch", "on=None", _FOUND + "test_the_answer_stands_on_exactly_the_list_that_was_sent",
    ),
    Mutation(
        "W", "a new beginning is a retry for ever", _HTTP + "placing:Placer._find",
        "if begins and", "if False and",
        _FOUND + "test_a_repeated_request_is_not_said_twice_and_a_new_beginning_is_a_new_conversation",
    ),
    Mutation(
        "W", "results of calls made at once are said twice", _HTTP + "placing:Placer._write",
        "(*(each for each in ends if each not in follows), entry.id)", "(entry.id,)",
        _FOUND + "test_results_of_calls_made_at_once_are_found_again",
    ),
    Mutation(
        "W", "equal requests at once are placed at once", _HTTP + "placing:Placer.place",
        "with self._lock:", "if True:",
        _PLACING + "::test_equal_lists_at_once_are_said_once",
    ),
    Mutation(
        "W", "an answer goes on for nobody", _HTTP + "turns:Turn.leave",
        "self.cancel()", "pass", _FOUND + "test_a_client_that_vanishes_at_any_byte_leaves_a_sealed_answer",
    ),
    Mutation(
        "W", "an answer in the background ends with its reader", _HTTP + "turns:Turn.leave",
        "and not self.asked.background", "",
        _SDKS + "test_a_response_in_the_background_goes_on_when_its_reader_has_gone_and_is_cancelled",
    ),
    Mutation(
        "W", "a repeat with its key is answered anew", _HTTP + "turns:Turns._once",
        "if known is not None and", "if False and", _FOUND + "test_a_key_makes_a_repeat_the_same_answer",
    ),
    Mutation(
        "W", "a request that is not to be stored stays", _HTTP + "turns:Turns._ended",
        "if not turn.asked.store:", "if False:", _FOUND + "test_nothing_is_kept_of_a_request_that_says_so",
    ),
    Mutation(
        "W", "a key reads another's responses", _HTTP + "placing:Placer.conversation",
        "if caller.only_own and", "if False and", _ERRORS + "test_a_key_sees_no_response_of_another_one",
    ),
    Mutation(
        "W", "any key lets in", _HTTP + "keys:Keys.caller",
        "found[0] if found and key else None", "Caller()", _ERRORS + "test_only_a_key_lets_in",
    ),
    Mutation(
        "W", "a server without a key listens to strangers", _HTTP + "server:check_reach",
        "if not keys and not is_loopback(host):", "if False:",
        _ERRORS + "test_without_a_key_nothing_listens_beyond_this_machine",
    ),
    Mutation(
        "W", "a page reaches this machine by another name", _HTTP + "app:App._check_place",
        "if not self._keys:", "if False:",
        _ERRORS + "test_another_name_than_this_machines_is_refused_where_no_key_is_asked",
    ),
    Mutation(
        "W", "any page may ask", _HTTP + "app:App._check_place",
        "and origin not in self._origins", "and False", _ERRORS + "test_pages_in_a_browser_ask_only_where_they_may",
    ),
    Mutation(
        "W", "a body may be as large as it likes", _HTTP + "api:read",
        "if size > limits.body:", "if False:", _ERRORS + "test_a_body_that_is_too_large_is_refused",
    ),
    Mutation(
        "W", "a flood waits in memory", _HTTP + "turns:Turns._start",
        ">= self.limits.requests", ">= 1 << 20",
        _ERRORS + "test_a_flood_is_told_to_come_again_and_the_others_are_answered",
    ),
    Mutation(
        "W", "connections stay open for nothing", _HTTP + "idle:close_idle",
        "connection.transport.close()", "pass", _ERRORS + "test_a_connection_on_which_nothing_comes_is_closed",
    ),
    Mutation(
        "W", "members that nobody knows are passed over", _HTTP + "fields:Fields.end",
        "for name in self._left:", "for name in ():",
        _ERRORS + "test_bad_members_are_told_by_name_and_nothing_of_them_is_kept",
    ),
    Mutation(
        "W", "pictures are dropped in silence", _HTTP + "drafts:drafts_of",
        "if other is not None:", "if False:",
        _ERRORS + "test_bad_members_are_told_by_name_and_nothing_of_them_is_kept",
    ),
    Mutation(
        "W", "a stream taken up again begins anew", _HTTP + "responses:get",
        "first = max(0, int(after) + 1)", "first = 0",
        _SDKS + "test_a_response_in_the_background_is_followed_and_taken_up_again",
    ),
    Mutation(
        "W", "a provider is sent what a device said meanwhile", "ProviderAnswer.compute",
        "without=without, on=on)", "without=without)",
        "tests/providers/test_served_models.py::test_what_a_device_said_meanwhile_is_not_sent",
    ),
    Mutation(
        "W", "the answer of a provider's model is no reply to its ask", "ProviderAnswer._ask_stream",
        "ask=options.ask,", "ask=None,",
        "tests/providers/test_served_models.py::test_an_ask_is_answered_by_a_model_of_a_provider",
    ),
    Mutation(
        "W", "a branch holds what stands beside it", "branch_to",
        "rest -= {base, *before}", "rest = {*sound} - {base, *before}",
        "tests/document/test_branch.py",
    ),
)  # fmt: skip
