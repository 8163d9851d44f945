"""``generate``: let a model answer in a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ..document.ask import Ask
from ..document.canonical import JSON
from ..document.conversation import Conversation
from ..document.entry import Entry
from ..document.transcript import Transcript
from ..engine.base import Engine
from ..exceptions import InvalidContent
from ..ids import EntryId
from ..prompt.tool_calls import ToolFormat
from ..providers.base import Provider
from .engine_answer import EngineAnswer
from .generation import Generation
from .options import UNSET, Busy, GenerationOptions
from .provider_answer import ProviderAnswer


def generate(
    conversation: Conversation,
    engine: Engine | Provider,
    *,
    options: GenerationOptions | None = None,
    max_tokens: int = UNSET,
    temperature: float = UNSET,
    top_k: int = UNSET,
    top_p: float = UNSET,
    min_p: float = UNSET,
    repeat_penalty: float = UNSET,
    repeat_last_n: int = UNSET,
    presence_penalty: float = UNSET,
    frequency_penalty: float = UNSET,
    logit_bias: Mapping[int, float] | None = UNSET,
    grammar: str = UNSET,
    json_schema: Mapping[str, JSON] | str = UNSET,
    top_logprobs: int = UNSET,
    tools: ToolFormat | Literal["auto", "off"] = UNSET,
    seed: int | None = UNSET,
    stop: Sequence[str] = UNSET,
    instead_of: Entry | EntryId | None = UNSET,
    author: str | None = UNSET,
    interval: float | None = UNSET,
    busy: Busy = UNSET,
    warm: bool = UNSET,
    token_log: bool = UNSET,
    ask: Ask | None = UNSET,
    on: Transcript | None = UNSET,
) -> Generation:
    """Let a model answer; others see the answer grow. Returns at once, started.

    ``engine``: a model that runs here, or one of ``llmcrdt.providers``, which takes the settings that its API has.
    ``options``: all settings as one value; keywords win over it. ``GenerationOptions`` says what is usual.

    ``busy``: what to do while this process generates in this conversation already. "enqueue": wait, then answer on the
    transcript as it is by then. "restart": stop the other one, keep what it said, then answer. "branch": answer at
    once, on what is sealed, beside the other one. ``instead_of``:
    answer again on the frame of that answer. ``seed``: None draws one; it is recorded. ``stop``: texts that end the
    answer, and are left out of it. ``grammar`` (GBNF) or ``json_schema``: what the answer must look like.
    ``logit_bias``: token id -> what to add to its logit. ``top_logprobs``: how likely each token was, and so many
    others, is put in ``gen.stats["logprobs"]``. ``tools``: how tool calls are told from text; "auto" goes by the
    model's template, where the conversation offers tools; a template that prints no tools is then refused, while "off"
    answers without them, and a named format leaves it to the prompt to tell of them. ``interval``: seconds between two
    writes to the document, as in ``Conversation.stream``.
    ``warm``: from now on, as long as both are open, what other devices write in this conversation is evaluated when it
    arrives (``llmcrdt.prefetch``). ``token_log``: whether what a model has seen stays as it saw it; otherwise all is
    rendered and tokenized anew, and a template may strip reasoning. ``ask``: the ask that is answered
    (``Conversation.asks``). ``on``: answer on this list of the conversation's entries, as it stood when it was read, in
    place of all that stands there by then; with an engine.
    ``result()`` and iterating raise what goes wrong; arguments that mean nothing raise InvalidContent at once.
    """
    if not isinstance(conversation, Conversation):
        raise InvalidContent(f"generate needs a conversation; this is {_kind(conversation)}.", hint="Use repo.get(id).")
    if options is not None and not isinstance(options, GenerationOptions):
        raise InvalidContent(f"options is {_kind(options)}.", hint="Pass llmcrdt.GenerationOptions(...).")
    chosen = (options or GenerationOptions()).with_changes(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        repeat_last_n=repeat_last_n,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=logit_bias,
        grammar=grammar,
        json_schema=json_schema,
        top_logprobs=top_logprobs,
        tools=tools,
        seed=seed,
        stop=stop,
        instead_of=instead_of,
        author=author,
        interval=interval,
        busy=busy,
        warm=warm,
        token_log=token_log,
        ask=ask,
        on=on,
    )
    if isinstance(engine, Provider):
        return Generation(conversation, ProviderAnswer(conversation, engine, chosen), chosen.busy)
    if not callable(getattr(engine, "start", None)) or not hasattr(engine, "tokenizer"):
        raise InvalidContent(
            f"generate needs an engine or a provider; this is {_kind(engine)}.",
            hint='Use llmcrdt.LlamaEngine("model.gguf"), or one of llmcrdt.providers.',
        )
    return Generation(conversation, EngineAnswer(conversation, engine, chosen), chosen.busy)


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
