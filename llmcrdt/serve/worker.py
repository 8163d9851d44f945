"""Worker: a process with models follows a library, and answers what is asked there.

=========  ============================================================================
an ask     the worker
=========  ============================================================================
waiting    waits as long as the prefill would take, then claims it, if an engine is free
taken,     remembers when it last saw a sign of life of whoever holds it; after ``patience``
streaming  seconds without one it takes over, and after twenty times that without a change
others     forgets it; one that is outdated may come back
=========  ============================================================================

An entry that nobody has ended would keep all others of its conversation waiting. If it does not grow for ``patience``
seconds, and nobody says that they write it, the worker seals it as stopped: its writer died, or it ends it all the same
when it is back.

Those are served first whose conversation was answered least, then those whose asker was; one at a time of each
conversation. A newcomer begins with the count of the least served one that waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from ..at_exit import end_at_exit
from ..document.ask import Ask
from ..document.asks import ENDED, AskStatus, fits
from ..document.canonical import JSON
from ..document.conversation import Conversation, core_of
from ..engine.base import Engine
from ..exceptions import InvalidContent, LLMCRDTError, NotSealed
from ..generation.plan import plan
from ..ids import DocumentId, EntryId, SessionId
from ..providers.base import Provider
from ..repo.repo import Repo, repo_core
from .ask_feed import AskFeed
from .ask_order import AskOrder
from .job import Job
from .leftovers import UNCHANGED, Leftovers

logger = logging.getLogger("llmcrdt.serve")

PATIENCE = 30.0
"""Seconds without a sign of life after which a worker is considered dead. Two answers are the worst that a wrong guess
brings."""
MOST_TOKENS = 4096
_POLL = 0.1  # seconds between two looks for what came
_LONGEST_WAIT = 10.0  # seconds that a slow prefill may put off a claim
_TRACKED = 64  # asks of one conversation that are looked after at once; twice as many where each asker has one
_OF_ONE = 16  # of those that one asker may have
_OUTDATED = 16  # of those that are outdated
_OVER = ENDED - {"outdated"}
_NAME, _NAMED = 60, 16  # characters of a model's name, and names, that a presence tells
_TELL = 1.0  # seconds between two times that presences are renewed


@dataclass
class _Tracked:
    """An ask that is not over. ``seen``: the status that was seen last, and when something had changed in it."""

    conversation: Conversation
    ask: Ask
    engine: Engine | Provider
    unobserve: Callable[[], None]
    claim_at: float | None = None
    seen: AskStatus | None = None
    alive_at: float = 0.0
    changed_at: float = 0.0


_Untracked = tuple[Ask, Engine | Provider]


def _prefill(tracked: _Tracked) -> float:
    """Seconds until the first token. Raises NotSealed where an answer is being written."""
    if isinstance(tracked.engine, Provider):  # nobody knows; but whether one can be asked now
        tracked.conversation.transcript().frame()
        return 0.0
    return plan(tracked.conversation, tracked.engine, instead_of=tracked.ask.instead_of).seconds or 0.0


class Worker:
    """Answers the asks of a repo with ``models`` (engines, or models of providers), by the names that asks use; a
    context manager. Any method from any
    thread; it works on threads of its own, from ``start`` on.

    ``slots``: how many answers one model gives at once. ``most_tokens``: the longest answer. ``patience``: seconds of
    silence after which another worker counts as dead. It answers what the repo has: connect that to a relay.
    """

    def __init__(
        self,
        repo: Repo,
        models: Mapping[str, Engine | Provider],
        *,
        slots: int = 1,
        most_tokens: int = MOST_TOKENS,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not models or not all(isinstance(name, str) and name for name in models):
            raise InvalidContent("A worker has a model at least, by name.", hint='Give models={"smol": engine}.')
        self._repo, self._core = repo, repo_core(repo)
        self._models = dict(models)
        self._slots, self._most_tokens, self._patience, self._clock = slots, most_tokens, patience, clock
        self._lock = threading.RLock()
        self._tracked: dict[tuple[DocumentId, EntryId], _Tracked] = {}
        self._jobs: dict[tuple[DocumentId, EntryId], Job] = {}
        self._order = AskOrder()
        self._told: dict[DocumentId, Mapping[str, JSON]] = {}  # what presences say
        self._tell_at = 0.0
        self._leftovers = Leftovers(patience, clock)
        self._unread: set[DocumentId] = set()  # conversations with more asks than are looked after at once
        self._changed, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="llmcrdt-worker", daemon=True)

    @property
    def busy(self) -> int:
        """How many asks are being answered now."""
        with self._lock:
            return len(self._jobs)

    @property
    def waiting(self) -> int:
        """How many asks are known that are not over, and not being answered here."""
        with self._lock:
            return len(self._tracked) - len(self._jobs)

    def start(self) -> Worker:
        """Begin to answer."""
        end_at_exit(
            self, stop=lambda worker: worker._stopping.set(), finish=lambda worker, seconds: worker.stop(seconds)
        )
        self._thread.start()
        return self

    def stop(self, drain: float = 0.0) -> None:
        """Take nothing more. Asks that are being answered have ``drain`` seconds to end; then they are handed over to
        other workers, and the words so far stay. Twice is harmless."""
        self._stopping.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(5)
        deadline = self._clock() + drain
        for job in self._running():
            job.join(max(0.0, deadline - self._clock()))
        for job in self._running():
            job.stop()
        for job in self._running():
            job.join(10)
        with self._lock:
            tracked, told = list(self._tracked.values()), list(self._told)
            self._tracked.clear()
            self._told.clear()
        for each in tracked:
            each.unobserve()
        for document in told:
            with suppress(LLMCRDTError):
                self._repo.get(document).present(None)

    def _running(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # the worker's own thread

    def _work(self) -> None:
        feed = AskFeed(self._core)
        while not self._stopping.is_set():
            self._changed.clear()
            try:
                more = [document for document in self._unread if self._tracked_in(document) <= _TRACKED // 2]
                for document in dict.fromkeys([*feed.changed(), *more]):
                    self._look_into(document)
                for key, tracked in self._in_turn():
                    self._consider(key, tracked)
                if self._clock() >= self._tell_at:
                    self._tell_at = self._clock() + _TELL
                    self._tell()
                    self._leftovers.end(self._here().values())
            except LLMCRDTError as error:  # the disk, for a moment
                logger.warning("%s", error)
            self._changed.wait(_POLL)

    def _look_into(self, document: DocumentId) -> None:
        """Look after the asks of a conversation that name a model that is here, so many at once."""
        self._unread.discard(document)
        try:
            conversation = self._repo.get(document)
            waiting, outdated, more = self._untracked(document, conversation)
        except LLMCRDTError as error:  # deleted meanwhile, or of a newer version
            logger.info("%s: %s", document, error)
            return
        self._leftovers.note(conversation)
        if more:
            self._unread.add(document)
        room = self._tracked_in(document) < _TRACKED + _OUTDATED
        for ask, engine in [*waiting, *(outdated[-_OUTDATED:] if room else ())]:
            unobserve = ask.observe(lambda status: self._changed.set())
            now = self._clock()
            with self._lock:
                self._order.came(
                    document, ask.author, [(key[0], each.ask.author) for key, each in self._tracked.items()]
                )
                self._tracked[document, ask.id] = _Tracked(
                    conversation, ask, engine, unobserve, alive_at=now, changed_at=now
                )

    def _untracked(
        self, document: DocumentId, conversation: Conversation
    ) -> tuple[list[_Untracked], list[_Untracked], bool]:
        """The asks that wait and are to be looked after from now on; those that are outdated, and may come back; and
        whether there are more. An asker has so many places, and one at least where others have taken them all."""
        waiting: list[_Untracked] = []
        outdated: list[_Untracked] = []
        more = False
        with self._lock:
            here = Counter(each.ask.author for key, each in self._tracked.items() if key[0] == document)
        for ask in conversation.asks():
            engine = self._engine_for(ask)
            if engine is None or (document, ask.id) in self._tracked:
                continue
            own, all_ = here[ask.author], here.total()
            if (own >= _OF_ONE or all_ >= _TRACKED) and (own or all_ >= 2 * _TRACKED):
                more = True
            elif (state := ask.state) == "outdated":
                outdated.append((ask, engine))
            elif state not in _OVER:
                here[ask.author] += 1
                waiting.append((ask, engine))
        return waiting, outdated, more

    def _tracked_in(self, document: DocumentId) -> int:
        with self._lock:
            return sum(key[0] == document for key in self._tracked)

    def _engine_for(self, ask: Ask) -> Engine | Provider | None:
        """The engine, or provider, of the first model whose name fits; of those, one with a free slot first."""
        names = [name for name in self._models if fits(name, ask.model)]
        names.sort(key=lambda name: not self._is_free(self._models[name]))
        return self._models[names[0]] if names else None

    def _is_free(self, engine: Engine | Provider) -> bool:
        with self._lock:
            return sum(job.engine is engine for job in self._jobs.values()) < self._slots

    def _in_turn(self) -> list[tuple[tuple[DocumentId, EntryId], _Tracked]]:
        """The asks that are not over, those first whose turn it is."""
        with self._lock:
            return sorted(
                self._tracked.items(),
                key=lambda item: (self._order.of(item[0][0], item[1].ask.author), item[1].ask.asked_at),
            )

    def _consider(self, key: tuple[DocumentId, EntryId], tracked: _Tracked) -> None:
        with self._lock:
            if any(document == key[0] for document, _ in self._jobs):  # one at a time of each conversation
                return
        try:
            status = tracked.ask.status()
        except LLMCRDTError:  # its conversation was deleted or closed
            self._forget(key)
            return
        now = self._clock()
        if status != tracked.seen:
            tracked.seen, tracked.alive_at, tracked.changed_at = status, now, now
        if status.state in _OVER:
            self._forget(key)
        elif status.state == "waiting":
            if self._is_free(tracked.engine) and self._is_time(tracked, now):
                self._begin(key, tracked, frozenset())
        elif status.state in ("taken", "streaming"):
            holders = self._holders(status)
            if self._any_alive(tracked, holders) and now - tracked.changed_at <= UNCHANGED * self._patience:
                tracked.alive_at = now
            elif now - tracked.alive_at > self._patience and self._is_free(tracked.engine):
                self._begin(key, tracked, holders)

    def _is_time(self, tracked: _Tracked, now: float) -> bool:
        """Whether the time is up that the prefill would take here: who needs less of it claims first."""
        if tracked.claim_at is None:
            try:
                seconds = _prefill(tracked)
            except NotSealed:  # an answer is being written: this one comes after it
                return False
            except LLMCRDTError:  # the job finds out, and says so
                seconds = 0.0
            alone = not core_of(tracked.conversation).host.linked()
            tracked.claim_at = now + (0.0 if alone else min(seconds, _LONGEST_WAIT))
        return now >= tracked.claim_at

    def _holders(self, status: AskStatus) -> frozenset[SessionId]:
        answering = [status.answer.session] if status.answer and status.answer.status == "streaming" else []
        return frozenset([*status.workers, *answering])

    def _any_alive(self, tracked: _Tracked, holders: frozenset[SessionId]) -> bool:
        """Whether the answer is being written in this process, or somebody says in a presence to be one of these
        sessions."""
        answer = tracked.seen.answer if tracked.seen is not None else None
        if answer is not None and answer.id in core_of(tracked.conversation).streams:
            return True
        return any(present.state.get("worker") in holders for present in tracked.conversation.presence())

    def _begin(self, key: tuple[DocumentId, EntryId], tracked: _Tracked, dead: frozenset[SessionId]) -> None:
        document, _ = key
        job = Job(
            tracked.conversation,
            tracked.ask,
            tracked.engine,
            dead,
            most_tokens=self._most_tokens,
            ended=lambda job: self._ended(key),
        )
        with self._lock:
            if self._stopping.is_set():
                return
            self._jobs[key] = job
            self._order.served(document, tracked.ask.author)
        self._present(tracked.conversation)
        job.start()

    def _tell(self) -> None:
        """Say in the presence of each conversation that waits who is here, with which models, and how busy."""
        here = self._here()
        for conversation in here.values():
            with suppress(LLMCRDTError):  # closed or deleted meanwhile
                self._present(conversation)
        for document in self._told.keys() - here.keys():
            del self._told[document]
            with suppress(LLMCRDTError):
                self._repo.get(document).present(None)

    def _here(self) -> dict[DocumentId, Conversation]:
        """The conversations with asks that are looked after."""
        with self._lock:
            return {document: tracked.conversation for (document, _), tracked in self._tracked.items()}

    def _present(self, conversation: Conversation) -> None:
        state: dict[str, JSON] = {
            "worker": core_of(conversation).document.session,
            "models": [name[:_NAME] for name in self._models][:_NAMED],
            "slots": self._slots * len(self._models),
            "busy": self.busy,
            "waiting": self.waiting,
        }
        if self._told.get(conversation.id) != state:
            self._told[conversation.id] = state
            conversation.present(state)

    def _ended(self, key: tuple[DocumentId, EntryId]) -> None:
        with self._lock:
            self._jobs.pop(key, None)
            tracked = self._tracked.get(key)
            if tracked is not None:
                tracked.claim_at, tracked.alive_at = None, self._clock()
        self._changed.set()

    def _forget(self, key: tuple[DocumentId, EntryId]) -> None:
        with self._lock:
            tracked = self._tracked.pop(key, None)
        if tracked is not None:
            tracked.unobserve()
