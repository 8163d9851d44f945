"""Ways to break the rules by which one engine serves several runs at once (docs/kv.md)."""

from __future__ import annotations

from mutations import Mutation

_SLOTS = "tests/engine/llama/test_slots.py::"

ENGINE_MUTATIONS = (
    Mutation(
        "slots",
        "more go on together than change no bit",
        "Serving._go_on",
        "self._model.widths.value",
        "{len(streams) or 1, 1}",
        _SLOTS + "test_in_company_each_gets_what_it_gets_alone_and_the_same_is_stored",
    ),
    Mutation(
        "slots",
        "a long prompt goes before a short one that is due",
        "Serving._due",
        "key=lambda turn: turn.due",
        "key=lambda turn: turn.began",
        _SLOTS + "test_a_short_prompt_goes_before_a_long_one_and_words_go_on_meanwhile",
    ),
    Mutation(
        "slots",
        "a long prompt waits for short ones for ever",
        "Serving._admit",
        'turn.due = model.context.counters["prompt_tokens"] + model',
        "turn.due = model",
        _SLOTS + "test_none_waits_for_ever_behind_short_ones",
    ),
    Mutation(
        "slots",
        "words wait until a long prompt is evaluated",
        "Serving._admit",
        "lambda: _NARROW if any(turn.sampler for turn in self._turns) else BATCH,",
        "lambda: BATCH,",
        _SLOTS + "test_a_short_prompt_goes_before_a_long_one_and_words_go_on_meanwhile",
    ),
    Mutation(
        "slots",
        "a prompt that is left goes on as if it were still there",
        "KVState.materializing",
        "if self._turn != turn:",
        "if False:",
        _SLOTS + "test_in_company_each_gets_what_it_gets_alone_and_the_same_is_stored",
    ),
)
