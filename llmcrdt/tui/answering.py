"""Answering: the one answer that is being written here, and what it costs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..document.conversation import Conversation
from ..document.entry import Entry
from ..engine.base import Engine
from ..exceptions import LLMCRDTError
from ..generation.generation import Generation
from ..generation.plan import Plan, plan
from ..providers.base import Provider


class Answering:
    """``answer(conversation, engine, ...)`` begins an answer. ``over`` is called on a thread of its own when one has
    ended, with what went wrong, or None."""

    def __init__(
        self,
        engine: Engine | Provider,
        answer: Callable[..., Generation],
        over: Callable[[LLMCRDTError | None], None],
    ) -> None:
        self._engine, self._answer, self._over = engine, answer, over
        self._generation: Generation | None = None
        self.note = ""
        """The cost of the last answer, in words."""

    @property
    def busy(self) -> bool:
        """Whether an answer is being written here."""
        return self._generation is not None

    def begin(self, conversation: Conversation, instead_of: Entry | None) -> None:
        """Begin an answer. Raises what ``plan`` and ``generate`` raise."""
        planned = plan(conversation, self._engine, instead_of=instead_of)
        self.note = (
            f"{planned.reused} tokens reused, {planned.evaluate} to evaluate"
            if isinstance(planned, Plan)
            else f"{len(planned.left_out)} hidden fields stay here"
        )
        self._generation = self._answer(conversation, self._engine, instead_of=instead_of)
        threading.Thread(target=self._wait, args=[self._generation], name="llmcrdt-tui", daemon=True).start()

    def stop(self) -> bool:
        """Stop it; whether there was one. The words so far stay."""
        generation = self._generation
        if generation is not None:
            generation.cancel()
        return generation is not None

    def _wait(self, generation: Generation) -> None:
        failed: LLMCRDTError | None = None
        try:
            generation.result()
        except LLMCRDTError as error:
            failed = error
        stats = generation.stats
        if "total" in stats:
            self.note = f"{stats.get('reused', 0)} tokens reused, {stats.get('evaluated', 0)} evaluated"
        self._generation = None
        self._over(failed)
