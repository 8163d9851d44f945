"""Job: one ask, from the claim to the reply."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Set
from contextlib import suppress

from ..document.act_writer import ActWriter
from ..document.acts import Claim
from ..document.ask import Ask
from ..document.asks import HANDED_OVER
from ..document.conversation import Conversation, core_of
from ..document.entry import Entry
from ..engine.base import Engine
from ..exceptions import (
    ContextOverflow,
    ConversationDeleted,
    DocumentError,
    EngineError,
    InvalidContent,
    LLMCRDTError,
    PromptError,
    ProviderError,
    RepoClosed,
    ResponseFailed,
)
from ..generation.generate import generate
from ..generation.generation import Generation
from ..ids import SessionId
from ..providers.base import Provider
from .settings import options_of

logger = logging.getLogger("llmcrdt.serve")

_LOOK = 0.2  # seconds between two looks at whether to go on
_GRANT = 5.0  # seconds to wait for the relay


class Job:
    """Runs on a thread of its own, from ``start`` on. ``dead``: sessions whose claims are taken over. ``ended`` is
    called at the end. ``stop`` gives the ask back."""

    def __init__(
        self,
        conversation: Conversation,
        ask: Ask,
        engine: Engine | Provider,
        dead: Set[SessionId],
        *,
        most_tokens: int,
        ended: Callable[[Job], None],
    ) -> None:
        self.conversation, self.ask, self.engine = conversation, ask, engine
        self._dead, self._most_tokens, self._ended = dead, most_tokens, ended
        self._acts = ActWriter(core_of(conversation))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmcrdt-ask", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give the ask back: what was said is sealed as stopped, and another worker answers."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    # inside

    def _run(self) -> None:
        try:
            self._answer()
        except (ConversationDeleted, RepoClosed):
            logger.info("Ask %s: its conversation is not here any more", self.ask.id)
        except LLMCRDTError as error:
            self._reply(_code(error), str(error))
        except Exception as error:
            logger.exception("Ask %s failed", self.ask.id)
            self._reply("internal", f"{type(error).__name__}")
        finally:
            self._ended(self)

    def _answer(self) -> None:
        options = options_of(self.ask.settings, most_tokens=self._most_tokens)
        claim = self._acts.claim_ask(self.ask.id, self._idle)
        if not claim.granted(_GRANT, offline=True):
            self._reply(HANDED_OVER)  # somebody was faster: this claim must not look like work
            return
        left = self._left_over()
        if self.ask.state != "taken" or claim.taken_over:  # taken back meanwhile, or by another worker, or answered
            self._reply(HANDED_OVER)
            return
        instead_of = self.ask.instead_of or (left.id if left is not None and left.frame is not None else None)
        generation = generate(self.conversation, self.engine, ask=self.ask, instead_of=instead_of, **options)
        while not self._is_over(generation):
            if self._stopping.is_set() or claim.taken_over or self.conversation.stop_asked(self.ask.id):
                generation.cancel()
                if generation.result().status == "stopped" and self._stopping.is_set():
                    self._reply(HANDED_OVER)
                return
        generation.result()

    def _is_over(self, generation: Generation) -> bool:
        with suppress(TimeoutError):
            generation.result(_LOOK)
            return True
        return generation.done()

    def _idle(self, claim: Claim) -> bool:
        """Whether nobody is at work under a claim: its session has replied since, or is dead."""
        reply = core_of(self.conversation).view.acts.replies.get(self.ask.id, {}).get(claim.session)
        return claim.session in self._dead or (reply is not None and reply.lamport > claim.lamport)

    def _left_over(self) -> Entry | None:
        """The words of somebody who died or gave up, sealed."""
        answer = self.ask.answer
        if answer is not None and answer.status == "streaming" and answer.session in self._dead:
            return self.conversation.seal(answer)
        return answer

    def _reply(self, code: str, text: str = "") -> None:
        """Say why there is no answer; beside the entry that this session began, if it did."""
        with suppress(LLMCRDTError):  # the disk is full, or the conversation was deleted: there is nobody to tell
            core = core_of(self.conversation)
            with core.reading():
                mine = core.view.acts.replies.get(self.ask.id, {}).get(core.document.session)
            self._acts.reply(self.ask.id, mine.entry if mine is not None else None, code=code, text=text)


def _code(error: LLMCRDTError) -> str:
    match error:
        case ContextOverflow():
            return "context_overflow"
        case InvalidContent():
            return "invalid_settings"
        case PromptError():
            return "template"
        case ProviderError() | ResponseFailed():
            return "provider"
        case EngineError():
            return "engine"
        case DocumentError():
            return "document"
    return "internal"
