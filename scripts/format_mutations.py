"""Ways to break what docs/interop.md promises in the code, and the test that must notice each."""

from __future__ import annotations

from mutations import Mutation

_DOCUMENTS = "tests/interop/test_formats_in_documents.py::"
_RULES = "tests/interop/test_rules.py::"
_UI = "tests/interop/test_ai_sdk.py"
_STEPS = "tests/interop/test_gemini_interactions.py"
_REQUESTS = "tests/interop/test_requests.py::"
_NAMES = "tests/interop/test_tool_names.py::"
_DELTAS = "tests/interop/test_deltas.py::"
_FAILURES = "tests/interop/test_failures.py::"
_CLAUDE = "tests/interop/test_anthropic.py"
_RESPONSES = "tests/interop/test_openai_responses.py"
_GEMINI = "tests/interop/test_gemini.py"
_THINKING = "tests/interop/test_reasoning_content.py"
_SOURCES = "tests/interop/test_sources.py::"
_PROGRAMS = "tests/interop/test_sources_in_documents.py::"

_MCP = "tests/interop/test_mcp.py::"
_HALF = "tests/interop/test_stream_response.py::test_half_of_a_call_is_none_where_the_tokens_ran_out"
_REFUSED = "tests/providers/test_providers.py::test_a_provider_that_cant_read_its_own_fields_any_more_gets_the_rest"
_COSTS = "tests/providers/test_compatible.py::"

FORMAT_MUTATIONS = (
    Mutation(
        "F", "a field that was refused is sent again", "llmcrdt.generation.provider_answer:ProviderAnswer.compute",
        "known = refused_before(conversation, self._provider)", "known = set()", _REFUSED,
    ),
    Mutation(
        "F", "a field that one account refused is refused by all", "llmcrdt.generation.provider_plan:refused_before",
        'noted.get("account") in (account, provider.account)', "True", _REFUSED,
    ),
    Mutation(
        "F", "half of a call is one where the tokens ran out", "llmcrdt.interop.openai_chat.format:ChatFormat.answer",
        "if finish in _CUT_SHORT:", "if False:", _HALF,
    ),
    Mutation(
        "F", "half of a call of the Responses is one", "llmcrdt.interop.openai_responses.format:OpenAIResponses.answer",
        "and _is_half_call(items[-1][1])", "and False", _HALF,
    ),
    Mutation(
        "F", "an answer that was cut short leaves a handle",
        "llmcrdt.interop.openai_responses.format:OpenAIResponses.kept", "if _is_cut_short(response):", "if False:",
        _HALF,
    ),
    Mutation(
        "F", "text that was made is a block of MCP's", "llmcrdt.interop.mcp:_blocks",
        "if rest.get(_MADE) is not True:", "if True:",
        _MCP + "test_a_result_comes_back_as_it_was_through_a_document",
    ),
    Mutation(
        "F", "half of a block of MCP's is written", "llmcrdt.interop.mcp:_blocks",
        "isinstance(own, dict) and _is_whole(own)", "isinstance(own, dict)",
        _MCP + "test_what_a_stranger_wrote_is_written_as_whole_content",
    ),
    Mutation(
        "F", "a picture that an answer shows is lost on the way to another API", "llmcrdt.interop.export:_is_foreign",
        "return native and picture_of(part, lambda blob: None) is not None", "return False",
        _RULES + "test_what_an_answer_shows_is_told_to_those_who_cant_be_shown_it",
    ),
    Mutation(
        "F", "pictures of results part the results", "llmcrdt.interop.openai_chat.format:ChatFormat.messages",
        "if shown and not isinstance(item, Result):", "if shown:",
        _RULES + "test_pictures_of_results_stand_behind_the_results_where_only_users_show_them",
    ),
    Mutation(
        "F", "a UIMessage's picture parts calls from results that are to come",
        "llmcrdt.interop.ai_sdk:_Writer.finished",
        "if not (waiting and self._waits()):", "if True:",
        _RULES + "test_pictures_of_results_stand_behind_the_results_where_only_users_show_them",
    ),
    Mutation(
        "F", "models that take no pictures in responses are sent some", "llmcrdt.interop.gemini:_Writer._attached",
        "elif self._shows_within or _NATIVE.block_of(part) is not None:", "elif True:",
        _RULES + "test_pictures_of_results_stand_in_googles_responses_where_the_model_takes_them_there",
    ),
    Mutation(
        "F", "what a result of Google's shows is for Google alone", "llmcrdt.interop.gemini:_Reader._response",
        'if isinstance(rest.get("parts"), list)', 'if False and isinstance(rest.get("parts"), list)',
        _RULES + "test_pictures_in_googles_responses_are_pictures_to_others",
    ),
    Mutation(
        "F", "attachments of a late result are lost", "llmcrdt.interop.openai_chat.format:ChatFormat.messages",
        '{**write_message(entry, [], read_blob), "role": "user"}', "write_message(entry, [], read_blob)",
        _MCP + "test_what_a_result_has_and_an_api_does_not_take_is_told",
    ),
    Mutation(
        "F", "a note about a result's sound is lost", "llmcrdt.interop.gemini_interactions:_Writer._result",
        '"".join(one["text"] for one in contents) if plain', "answer.text if plain",
        _MCP + "test_what_a_result_has_and_an_api_does_not_take_is_told",
    ),
    Mutation(
        "F", "a picture of MCP's is another one's note", "llmcrdt.interop.pictures:picture_of",
        'if block.get("type") == "resource" and', "if False and",
        _MCP + "test_a_picture_of_a_result_is_a_picture_there",
    ),
    Mutation(
        "F", "a state that nobody knows is gone on from", "llmcrdt.interop.handles:find_handle",
        "else EntryId(text)", "else entry.id",
        "tests/cli/test_cli.py::test_only_what_is_new_since_a_handle_is_exported",
    ),
    Mutation(
        "F", "the user's prices count more than the provider's word", "llmcrdt.providers.base:Provider.cost",
        "self.told_cost(usage) or", "", _COSTS + "test_a_price_that_the_provider_says_is_kept",
    ),
    Mutation(
        "F", "cached tokens are paid for twice", "llmcrdt.providers.costs:Prices.cost",
        "tokens.prompt - cached - written", "tokens.prompt", _COSTS + "test_tokens_cost_what_their_prices_say",
    ),
    Mutation(
        "F", "another provider's key is sent", "llmcrdt.providers.compatible:Compatible._client",
        "if not key:", "if False:", _COSTS + "test_the_key_of_another_provider_is_never_sent",
    ),
    Mutation(
        "F", "Google's SDK sends a request again", "llmcrdt.providers.gemini:_Client.__init__",
        "raise _Sent", "return client._outcome",
        "tests/providers/test_providers.py::test_what_may_have_been_computed_is_not_asked_again_unasked",
    ),
    Mutation(
        "F", "every hidden field goes out", "llmcrdt.interop.export:export",
        "replace(e, hidden=found.get(e.id, {})) if e.hidden else e", "e", _CLAUDE,
    ),
    Mutation(
        "F", "what a summary covers goes out", "llmcrdt.interop.export:export",
        "with_summaries(entries)", "entries", _RULES + "test_a_summary_stands_for_what_it_covers",
    ),
    Mutation(
        "F", "what stands in a hidden place of a part goes out", "llmcrdt.interop.hiding:restore",
        "[replace(place, accepts=lambda value: True) for place in places]", "[]",
        _DOCUMENTS + "test_a_value_in_a_hidden_place_of_a_part_does_not_go_out",
    ),
    Mutation(
        "F", "a field puts any value back", "llmcrdt.interop.hiding:restore",
        "and place.accepts(value)", "and True", _CLAUDE,
    ),
    Mutation(
        "F", "an imported answer takes any field", "ImportChain._entry",
        "digests if digests or head.frame else None", "digests if digests else None",
        _DOCUMENTS + "test_nobody_adds_a_field_to_an_imported_answer",
    ),
    Mutation(
        "F", "a response's signature holds on every list", "llmcrdt.interop.requests:ProviderFormats.response",
        "whole if name in draft.frame_bound else {}", "{}",
        _REQUESTS + "test_a_signature_of_the_whole_list_is_bound_to_the_frame",
    ),
    Mutation(
        "F", "a model goes by one name", "llmcrdt.interop.requests:_bound",
        "len(names) > 1", "False", _REQUESTS + "test_hidden_fields_go_back_to_where_they_came_from_alone",
    ),
    Mutation(
        "F", "a response's fields are for any account", "llmcrdt.interop.requests:_bound",
        "target.account is not None", "False", _REQUESTS + "test_hidden_fields_go_back_to_where_they_came_from_alone",
    ),
    Mutation(
        "F", "null members go back", "llmcrdt.interop.requests:_without_nulls",
        "for key, value in block.items() if value is not None", "for key, value in block.items()",
        _REQUESTS + "test_an_answer_goes_back_as_it_came_with_its_hidden_fields",
    ),
    Mutation(
        "F", "a call of UIMessages is sent without its result", "llmcrdt.interop.ai_sdk:AISDK.write",
        "writer.finished(waiting=False)", "writer.finished(waiting=True)", _UI,
    ),
    Mutation(
        "F", "a signature in UIMessages holds on every list", "llmcrdt.interop.ai_sdk:_Reader._parts",
        "frozenset(found if signed else ())", "frozenset()", _UI,
    ),
    Mutation(
        "F", "a thought goes out unsigned", "llmcrdt.interop.gemini_interactions:_whole",
        'step is None or (kind == "thought" and not _is_signed(step))', "step is None", _STEPS,
    ),
    Mutation(
        "F", "half of a step of the server's goes out", "llmcrdt.interop.gemini_interactions:_whole",
        "pair is None or pair in lacking or", "pair is None or", _STEPS,
    ),
    Mutation(
        "F", "a response echoes its request", "llmcrdt.interop.gemini_interactions:GeminiInteractions.answer",
        "items[asked + 1 :]", "items", _STEPS,
    ),
    Mutation(
        "F", "a signature holds on every list", "ImportChain._to_frame",
        'replace(field, binding={**field.binding, "frame": self._hash})', "field",
        _RULES + "test_a_signature_holds_on_its_list_only",
    ),
    Mutation(
        "F", "calls share an id", "CallIds.give",
        "not self._form.fullmatch(made) or made in self._taken", "not self._form.fullmatch(made)", _CLAUDE,
    ),
    Mutation(
        "F", "thinking goes out unsigned", "anthropic.valid_blocks:valid_answer",
        'block if isinstance(block.get("signature"), str) and isinstance(block.get("thinking"), str) else None',
        "block", _CLAUDE,
    ),
    Mutation(
        "F", "half of a search goes out", "MessageWriter._assistant_blocks",
        "block is None or (lacking and pair_id(block) in lacking)", "block is None", _CLAUDE,
    ),
    Mutation(
        "F", "reasoning ends an answer", "ItemWriter._answer",
        'kept and type_of(kept[-1]) == "reasoning"', "False",
        _RULES + "test_reasoning_that_nothing_follows_is_left_out",
    ),
    Mutation(
        "F", "ids stay where their reasoning does not", "ItemWriter._answer",
        "elif stripped or self._lacks_reasoning:", "elif False:",
        _DOCUMENTS + "test_reasoning_that_stays_takes_the_ids_after_it_along",
    ),
    Mutation(
        "F", "a call goes out unsigned", "llmcrdt.interop.gemini:_Writer._sign",
        "self._signs or signed is not False", "False", _GEMINI,
    ),
    Mutation(
        "F", "a call follows a turn of the model's", "llmcrdt.interop.gemini:_Writer._answer",
        "(generated or calls)", "generated", _GEMINI,
    ),
    Mutation(
        "F", "a call comes back without its reasoning", "ReasoningContent.finish",
        "not isinstance(made.get(_KEY), str)", "False", _THINKING,
    ),
    Mutation(
        "N", "two names become one", "NameForm.of",
        "sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH]", "0",
        _NAMES + "test_a_name_gets_the_form_once_and_for_all",
    ),
    Mutation(
        "N", "two tools of one name are declared", "ToolNames._give",
        "not sent or sent in self._taken", "not sent", _NAMES + "test_tools_with_odd_names_are_sent_and_called",
    ),
    Mutation(
        "N", "a call keeps the name that was sent", "with_true_names",
        "isinstance(part, ToolCall) and part.name in true", "False",
        _NAMES + "test_tools_with_odd_names_are_sent_and_called",
    ),
    Mutation(
        "N", "a tool is chosen by a name that is not declared", "ToolNames._at",
        "self._form.of(inner)", "inner", _NAMES + "test_tools_of_a_file_of_the_api_s_own_get_names_that_it_takes",
    ),
    Mutation(
        "N", "items keep ids although their reasoning has none", "ItemWriter._answer",
        'item is None or not isinstance(item.get("id"), str)', "item is None",
        _RULES + "test_items_after_reasoning_without_an_id_have_none",
    ),
    Mutation(
        "N", "reasoning comes twice under one id", "ItemWriter._once",
        "not isinstance(id_, str) or id_ not in self._reasoned | self._taken", "True",
        _RULES + "test_of_reasoning_with_one_id_the_second_goes_without_and_so_do_its_items",
    ),
    Mutation(
        "N", "a request says nothing", "check_says_something",
        "not body[form.member] or not any(is_shown(entry) for entry in entries)", "False",
        _REQUESTS + "test_a_conversation_that_says_nothing_is_no_request",
    ),
    Mutation(
        "N", "instructions that a stranger wrote go out", "OpenAIResponses.write",
        'body.get("instructions") is not None', "False",
        _REQUESTS + "test_instructions_of_a_response_are_a_text_in_a_request",
    ),
    Mutation(
        "N", "a signature holds on any tools", "llmcrdt.interop.requests:ProviderFormats.response",
        '{"frame": request.frame_hash, **target.more}', '{"frame": request.frame_hash}',
        _REQUESTS + "test_a_signature_of_the_whole_list_holds_on_its_tools_alone",
    ),
    Mutation(
        "D", "a delta goes out after whatever the provider holds", "llmcrdt.interop.export:_continued",
        "NOTHING.and_then(format.bare(sent[:count])) != handle.held", "False",
        _DELTAS + "test_a_delta_says_what_the_whole_log_says_over_merged_histories",
    ),
    Mutation(
        "D", "a delta leaves out one item more", "llmcrdt.interop.export:_continued",
        "handle.id, sent[count:])", "handle.id, sent[count + 1 :])",
        _DELTAS + "test_a_delta_says_what_the_whole_log_says_over_merged_histories",
    ),
    Mutation(
        "D", "a second delta forgets what the first one went on from", "llmcrdt.interop.requests:_handle",
        "if request.since else NOTHING", "if False else NOTHING", _DELTAS + "test_each_turn_sends_what_is_new_alone",
    ),
    Mutation(
        "D", "a handle never expires", "llmcrdt.interop.requests:_handle",
        ', "expires": now + kept.seconds', "",
        _DELTAS + "test_a_handle_holds_where_and_as_long_as_its_provider_keeps_what_it_stands_for",
    ),
    Mutation(
        "D", "a handle is for any account and any list", "llmcrdt.interop.requests:ProviderFormats.response",
        "_bound(kept, target, None, whole)", "kept",
        _DELTAS + "test_a_handle_holds_where_and_as_long_as_its_provider_keeps_what_it_stands_for",
    ),
    Mutation(
        "D", "a provider that keeps nothing is believed to", "OpenAIResponses.kept",
        'sent.get("store") is False or ', "",
        _DELTAS + "test_a_provider_that_is_asked_to_keep_nothing_leaves_no_handle",
    ),
    Mutation(
        "D", "a conversation of the server's is gone on from", "OpenAIResponses.kept",
        ' or sent.get("conversation") is not None', "",
        _DELTAS + "test_a_provider_that_is_asked_to_keep_nothing_leaves_no_handle",
    ),
    Mutation(
        "D", "a thread that is lost is not begun anew", "llmcrdt.interop.export:_whole",
        "format.anew(made.body)", "made.body",
        _DELTAS + "test_nothing_goes_on_from_what_would_be_sent_otherwise_now",
    ),
    Mutation(
        "D", "what was refused goes out again", "document.binding:report",
        "line.sent and (entry.id, name) in refused", "False",
        _FAILURES + "test_a_field_that_was_refused_is_left_out_and_told",
    ),
    Mutation(
        "D", "what was refused before is forgotten", "next_step",
        'line.reason == "refused"', "False", _FAILURES + "test_a_field_that_was_refused_is_left_out_and_told",
    ),
    Mutation(
        "D", "a request without a response is sent again", "next_step",
        '"ask", why, since=request.since', '"send", why, since=request.since',
        _FAILURES + "test_nothing_is_sent_twice_that_may_have_gone_through",
    ),
    Mutation(
        "D", "a request that failed over there is sent again", "_by_status",
        'NextStep("ask", why', 'NextStep("send", why',
        _FAILURES + "test_nothing_is_sent_twice_that_may_have_gone_through",
    ),
    Mutation(
        "D", "what is being computed is asked for again", "_busy",
        'NextStep("wait"', 'NextStep("send"', _FAILURES + "test_nothing_is_sent_twice_that_may_have_gone_through",
    ),
    Mutation(
        "D", "state that is gone is gone on from", "_state",
        'NextStep("send", why, without', 'NextStep("send", why, since=case.request.since, without',
        _FAILURES + "test_where_the_state_is_gone_or_another_one_everything_is_said_again",
    ),
    Mutation(
        "D", "a compaction is dropped without a word", "llmcrdt.interop.failures:_fields",
        "names == _COMPACTED and dropped", "False",
        _FAILURES + "test_what_a_compaction_stands_for_is_not_dropped_without_a_word",
    ),
    Mutation(
        "S", "a branch goes on after the last step", "History.entries",
        "self.chain = self._forks[step.after].copy()", "pass",
        _PROGRAMS + "test_what_a_file_shows_is_shown_and_other_branches_are_alternatives",
    ),
    Mutation(
        "S", "the branch that is written last is shown", "_fill",
        "history.shown or history.chain.tip", "history.chain.tip",
        _PROGRAMS + "test_what_a_file_shows_is_shown_and_other_branches_are_alternatives",
    ),
    Mutation(
        "S", "the branch that is written last is shown where more came of a history", "_extend",
        "history.shown or history.chain.tip", "history.chain.tip",
        "tests/repo/test_import.py::test_a_tree_is_the_same_whether_it_is_imported_at_once_or_grew",
    ),
    Mutation(
        "S", "the rows of branches have no place", "_fill",
        "shown=ids[steady:])", "shown=())",
        "tests/repo/test_import.py::test_a_tree_is_the_same_whether_it_is_imported_at_once_or_grew",
    ),
    Mutation(
        "S", "what is kept depends on how long the history is", "ImportChain.make_beside",
        "1 if hidden else self._lamport + 1", "self._lamport + 1",
        _PROGRAMS + "test_a_session_that_grows_extends_its_conversation",
    ),
    Mutation(
        "S", "branches share what their reader knows", "llmcrdt.interop.format:Reader.fork",
        "return deepcopy(self, {id(self.outline): self.outline})", "return self",
        _SOURCES + "TestClaudeCode",
    ),
    Mutation(
        "S", "results of parallel calls are branches", "llmcrdt.interop.claude_code:_joined",
        "other.results and not other.followed_by and not other.results & set(event.results)", "False",
        _PROGRAMS + "test_a_session_that_grows_extends_its_conversation",
    ),
    Mutation(
        "S", "a zip holds any number of bytes", "llmcrdt.interop.account_export:_Pieces.read",
        "if self._is_zip and self.count > max(FREE, MAX_RATIO * self._size):", "if False:",
        _PROGRAMS + "test_a_zip_that_holds_far_more_than_its_size_is_refused",
    ),
    Mutation(
        "S", "what is not shown is dropped", "llmcrdt.interop.claude_code:_Session._kept",
        "yield kind, row", "pass",
        _PROGRAMS + "test_what_is_not_shown_is_counted_and_kept_as_it_was",
    ),
    Mutation(
        "S", "a message that can not be read takes the rest along", "llmcrdt.interop.claude_code:_Session._read",
        "except FormatError as error:", "except KeyError as error:",
        _PROGRAMS + "test_a_damaged_line_is_named_and_the_rest_comes",
    ),
)  # fmt: skip
