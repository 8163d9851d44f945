"""The cost of the next generation, and the entries it is computed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import overload

from ..document.conversation import Conversation
from ..document.entry import Entry
from ..document.frame import Frame
from ..document.transcript import Transcript
from ..engine.base import Engine, Mode
from ..exceptions import LLMCRDTError
from ..ids import EntryId
from ..prompt.token_log import prompt_ids
from ..providers.base import Provider
from .cache_miss import CacheMiss, explain
from .provider_plan import ProviderPlan, plan_request


@dataclass(frozen=True)
class Plan:
    """The cost of the next generation, in tokens: ``total`` = ``reused`` + ``evaluate``. ``why``: what of the last
    generation's prompt could not be reused, and through whom. ``live``, ``memory``, ``disk``, ``peer``: where the
    reused are; of a peer, those that are fetched in less time than it takes to evaluate them.
    ``seconds``: about how long until the first token, by what the engine has measured; None while it has measured
    nothing. ``mode``: the engine's."""

    total: int
    reused: int
    evaluate: int
    why: CacheMiss
    live: int = 0
    memory: int = 0
    disk: int = 0
    mode: Mode = "exact"
    seconds: float | None = None
    peer: int = 0


@overload
def plan(
    conversation: Conversation,
    engine: Engine,
    *,
    instead_of: Entry | EntryId | None = None,
    token_log: bool = True,
) -> Plan: ...


@overload
def plan(
    conversation: Conversation,
    engine: Provider,
    *,
    instead_of: Entry | EntryId | None = None,
    token_log: bool = True,
) -> ProviderPlan: ...


def plan(
    conversation: Conversation,
    engine: Engine | Provider,
    *,
    instead_of: Entry | EntryId | None = None,
    token_log: bool = True,
) -> Plan | ProviderPlan:
    """Predict what ``generate`` would evaluate, from token ids and chunk headers; of a provider (``llmcrdt.providers``)
    what it would be sent, and what is left out. Nothing is computed, sent or written."""
    if isinstance(engine, Provider):
        return plan_request(conversation, engine, instead_of)
    _, entries, _ = basis(conversation, instead_of)
    prompt = prompt_ids(entries, engine.tokenizer, created_at=conversation.created_at, use_log=token_log)
    reuse = engine.plan(prompt.ids)
    why = explain(
        conversation,
        engine.tokenizer,
        entries,
        prompt,
        reused=reuse.reused,
        chunk=engine.chunk,
        missing=lambda: engine.missing(prompt.ids, conversation.id),
    )
    return Plan(why=why, **asdict(reuse))


def basis(
    conversation: Conversation,
    instead_of: Entry | EntryId | None,
    *,
    beside_unfinished: bool = False,
    on: Transcript | None = None,
) -> tuple[Transcript | None, Sequence[Entry], Frame]:
    """The basis of a generation: the transcript now (or ``on``), or the frame of the answer it stands for (then no
    transcript is needed to place it)."""
    if instead_of is not None:
        old = conversation.entry(instead_of)
        if old.frame is None:
            raise LLMCRDTError(
                f"Entry {old.id} was not generated, so it can't be generated again.",
                hint="Use generate without instead_of.",
            )
        return None, conversation.frame_entries(old), old.frame
    transcript = conversation.transcript() if on is None else on
    frame = transcript.frame(beside_unfinished=beside_unfinished)
    return transcript, [entry for entry in transcript if entry.sealed], frame
