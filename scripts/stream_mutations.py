"""Ways to break what docs/interop.md, *Streams*, promises in the code, and the test that must notice each."""

from __future__ import annotations

from mutations import Mutation

_STREAMS = "llmcrdt.interop.streams."
_CLAUDE = "tests/interop/test_stream_anthropic.py"
_CHAT = "tests/interop/test_stream_chat.py"
_RESPONSES = "tests/interop/test_stream_responses.py"
_GEMINI = "tests/interop/test_stream_gemini.py"
_STEPS = "tests/interop/test_stream_interactions.py"
_UI = "tests/interop/test_stream_ai_sdk.py"
_EVENTS = "tests/interop/test_stream_events.py"
_DOCUMENTS = "tests/interop/test_stream_response.py::"

STREAM_MUTATIONS = (
    Mutation(
        "T", "an answer that broke off leaves a handle", "llmcrdt.interop.requests:_RequestStream.response",
        "self._now if self._stream.ended else None", "self._now",
        _DOCUMENTS + "test_an_answer_that_broke_off_leaves_no_handle",
    ),
    Mutation(
        "T", "a signature of unfinished thinking stays", _STREAMS + "anthropic:_Block.value",
        'block.pop("signature", None)', "pass", _CLAUDE,
    ),
    Mutation(
        "T", "half of a call's input becomes a call", _STREAMS + "anthropic:_Block.close",
        "if made is None:", "if False:", _CLAUDE,
    ),
    Mutation(
        "T", "half of a call's arguments becomes a call", _STREAMS + "chat:ChatStream.response",
        "self.ended or call.is_whole()", "True", _CHAT,
    ),
    Mutation(
        "T", "a detail that may go on stays", _STREAMS + "chat:ChatStream.response",
        "self.ended or key not in self._last", "True", _CHAT,
    ),
    Mutation(
        "T", "reasoning that is not done goes back", _STREAMS + "responses:_Item.value",
        '{"type": kind, "summary": [], **lists}', "{**self.start, **lists}", _RESPONSES,
    ),
    Mutation(
        "T", "a call whose arguments go on is whole", _STREAMS + "gemini:GeminiStream.response",
        "if part is not self._growing", "if True", _GEMINI,
    ),
    Mutation(
        "T", "a call that ran out of tokens is whole", _STREAMS + "gemini:GeminiStream._grow",
        "if not self._in_pieces:", "if True:", _GEMINI,
    ),
    Mutation(
        "T", "a signature of an unfinished step stays", _STREAMS + "interactions:_Step.value",
        'if key != "signature"', "if True", _STEPS,
    ),
    Mutation(
        "T", "metadata of an unfinished text stays", _STREAMS + "ai_sdk:_part",
        'if key != "providerMetadata"', "if True", _UI,
    ),
    Mutation(
        "T", "a line end that is cut in two is two", _STREAMS + "events:Parser.feed",
        'text.removeprefix("\\n")', "text", _EVENTS,
    ),
    Mutation(
        "T", "texts grow in quadratic time", _STREAMS + "growing:Growing.add",
        "self._pieces.append(text)", "self._pieces = [*self._pieces, text]", _CLAUDE,
    ),
    Mutation(
        "T", "what comes after an error counts", _STREAMS + "stream:ResponseStream.fail",
        "self._over = True", "self._over = False", "tests/interop/test_stream_ollama.py",
    ),
    Mutation(
        "T", "an answer that is cut is complete", "StreamedResponse._seal",
        '"complete" if whole else "stopped"', '"complete"',
        _DOCUMENTS + "test_a_stream_that_ends_early_is_kept_as_stopped_with_what_was_complete",
    ),
    Mutation(
        "T", "nobody is told that the provider gave up", "StreamedResponse._finish",
        "raise ResponseFailed(error.message, error.error)", "return",
        _DOCUMENTS + "test_an_error_of_the_provider_is_told_and_what_came_before_it_is_kept",
    ),
    Mutation(
        "T", "what the source raises loses what came", "StreamedResponse._give_up",
        "self._seal()", "pass", _DOCUMENTS + "test_what_the_source_raises_is_raised_and_what_came_is_kept",
    ),
    Mutation(
        "T", "nobody can stop it", "StreamedResponse._is_over",
        "self._closed or stopped or", "self._closed or", _DOCUMENTS + "test_somebody_who_asks_for_it_to_stop_is_heard",
    ),
    Mutation(
        "T", "nothing that came is an entry", "StreamedResponse._seal",
        "not _says_something(said)", "False",
        _DOCUMENTS + "test_where_nothing_came_nothing_is_appended_and_that_is_told",
    ),
)  # fmt: skip
