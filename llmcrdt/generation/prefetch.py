"""Entries that arrive from another device are evaluated before anybody asks for an answer to them.

In the background, a chunk at a time, after whatever the engine is asked meanwhile. Only what a next prompt begins with
is evaluated, whoever writes next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from weakref import ref

from ..at_exit import end_at_exit
from ..document.conversation import Conversation, core_of
from ..document.observers import Change
from ..engine.base import Engine
from ..exceptions import ConversationDeleted, LLMCRDTError, RepoClosed
from ..prompt.stable import stable_prefix
from ..repo.kv_caches import forget_erased

QUIET = 0.25
"""Seconds without a change before anything is evaluated."""
_LONGEST = 2.0  # seconds that changes without a pause may put it off

_LOG = logging.getLogger("llmcrdt.generation.prefetch")


def prefetch(conversation: Conversation, engine: Engine, *, quiet: float = QUIET, token_log: bool = True) -> Prefetch:
    """Keep ``engine`` ready for the next turn of ``conversation``: what is there is evaluated now, what other devices
    write when it arrives. Returns at once; the same object for the same two, until it is stopped.

    ``quiet``: seconds without a change before anything is done. ``token_log``: as ``generate`` will be asked; what was
    said last counts. It ends with ``stop``, and when the conversation or the
    engine is closed or nobody uses it any more. ``generate`` does this by itself unless told otherwise.
    """
    attached = attach(conversation, engine, quiet, token_log=token_log)
    attached.refresh()
    return attached


def attach(conversation: Conversation, engine: Engine, quiet: float = QUIET, *, token_log: bool = True) -> Prefetch:
    """As ``prefetch``, of what arrives from now on."""
    attached, new = core_of(conversation).turn.prefetcher(
        lambda each: each.engine() is not None,
        lambda each: each.engine() is engine,
        lambda: Prefetch(conversation, engine, quiet, token_log),
    )
    if new:
        attached.start()
    attached.token_log = token_log
    return attached


class Prefetch:
    """Watches one conversation for one engine. Keeps neither of them alive. A context manager that stops."""

    def __init__(self, conversation: Conversation, engine: Engine, quiet: float, token_log: bool) -> None:
        self.token_log = token_log
        self._conversation, self._engine, self._quiet = ref(conversation), ref(engine), quiet
        self._changed = threading.Condition()
        self._news = self._working = self._stopped = False
        self._seen: tuple[object, ...] = ()
        self._unobserve: Callable[[], None] = lambda: None
        end_at_exit(self, stop=Prefetch.stop, finish=Prefetch.wait)

    def start(self) -> None:
        """Listen to the conversation."""
        conversation = self._conversation()
        if conversation is not None:
            self._unobserve = conversation.observe(self._on_change)

    def engine(self) -> Engine | None:
        """The engine, while this goes on."""
        return None if self._stopped else self._engine()

    def refresh(self) -> None:
        """Evaluate what is there, once it is quiet."""
        with self._changed:
            if self._stopped:
                return
            self._news = True
            self._changed.notify_all()
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="llmcrdt-prefetch", daemon=True).start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the engine was told of everything that came. It may still be evaluating: ``engine.settled()``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._working, timeout)

    def stop(self) -> None:
        """End it. Stored state stays."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._unobserve()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _on_change(self, change: Change) -> None:
        if not change.local:
            self.refresh()

    def _work(self) -> None:
        """A thread that lives as long as there is news."""
        while True:
            end = time.monotonic() + _LONGEST
            with self._changed:
                while self._news and not self._stopped:
                    self._news = False
                    self._changed.wait_for(
                        lambda: self._news or self._stopped, min(self._quiet, max(0.0, end - time.monotonic()))
                    )
                    if time.monotonic() >= end:
                        break
            try:
                self._ask_engine()
            except (ConversationDeleted, RepoClosed):
                self.stop()
            except LLMCRDTError as error:  # a template that fails, a prompt too long, an engine that is closed
                _LOG.debug("not prefetched: %s", error)  # the next turn will say so
            except Exception:
                _LOG.exception("prefetching failed")
            with self._changed:
                if not self._news or self._stopped:
                    self._working = False
                    self._changed.notify_all()
                    return

    def _ask_engine(self) -> None:
        """Have the engine evaluate what the next prompt begins with."""
        conversation, engine = self._conversation(), self._engine()
        if self._stopped or conversation is None or engine is None:
            return
        entries = [entry for entry in conversation.transcript() if entry.sealed]
        now = (self.token_log, *((entry.id, entry.hash, entry.status == "erased") for entry in entries))
        if now == self._seen:
            return
        ids, marks = stable_prefix(
            entries, engine.tokenizer, created_at=conversation.created_at, use_log=self.token_log
        )
        core_of(conversation).host.note_engine(engine)
        try:
            engine.prefetch(ids, owner=conversation.id, marks=marks)
        finally:
            forget_erased(conversation, engine, entries)
        self._seen = now
