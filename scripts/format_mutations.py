"""Ways to break what docs/interop.md promises in the code, and the test that must notice each."""

from __future__ import annotations

from mutations import Mutation

_DOCUMENTS = "tests/interop/test_formats_in_documents.py::"
_RULES = "tests/interop/test_rules.py::"
_UI = "tests/interop/test_ai_sdk.py"
_STEPS = "tests/interop/test_gemini_interactions.py"
_REQUESTS = "tests/interop/test_requests.py::"
_CLAUDE = "tests/interop/test_anthropic.py"
_RESPONSES = "tests/interop/test_openai_responses.py"
_GEMINI = "tests/interop/test_gemini.py"
_THINKING = "tests/interop/test_reasoning_content.py"
_SOURCES = "tests/interop/test_sources.py::"
_PROGRAMS = "tests/interop/test_sources_in_documents.py::"

FORMAT_MUTATIONS = (
    Mutation(
        "F", "every hidden field goes out", "llmcrdt.interop.export:export",
        "replace(e, hidden=sent.get(e.id, {})) if e.hidden else e", "e", _CLAUDE,
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
        '{"frame": request.frame_hash} if name in draft.frame_bound else {}', "{}",
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
        "F", "thinking goes out unsigned", "llmcrdt.interop.anthropic:_valid_answer",
        'block if isinstance(block.get("signature"), str) and isinstance(block.get("thinking"), str) else None',
        "block", _CLAUDE,
    ),
    Mutation(
        "F", "half of a search goes out", "llmcrdt.interop.anthropic:_Writer._assistant_blocks",
        "block is None or (lacking and _of_pair(block) in lacking)", "block is None", _CLAUDE,
    ),
    Mutation(
        "F", "reasoning ends an answer", "llmcrdt.interop.openai_responses:_Writer._answer",
        'kept and type_of(kept[-1]) == "reasoning"', "False",
        _RULES + "test_reasoning_that_nothing_follows_is_left_out",
    ),
    Mutation(
        "F", "ids stay where their reasoning does not", "llmcrdt.interop.openai_responses:_Writer._answer",
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
        "put=(), moved=moved)", "put=(), moved=())",
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
