"""The history of a document that the core holds, noted only as far as somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .chunks import Change, Name, Whole
from .derive import is_root_actor
from .ends import read_ends
from .history import History


class LazyHistory:
    """Notes a document's changes in ``history``. ``tell``: has the core tell all of them, which takes as long as
    loading the document. If that was stored by this device, its bytes tell where it ends, and that is enough for
    what goes on from there."""

    def __init__(self, history: History, tell: Callable[[], Sequence[Any]]) -> None:
        self._history, self._tell = history, tell
        self._all = True
        self._ends = False
        self._trusted = False

    @property
    def noted(self) -> bool:
        """Whether all is noted."""
        return self._all

    def all(self) -> History:
        """The whole history. Raises MalformedUpdate."""
        if not self._all:
            self._history.note_all(self._tell(), self._trusted)
            self._all = True
        return self._history

    def ends(self) -> History:
        """The history, of which heads and counts are known, and perhaps no more. Raises MalformedUpdate."""
        return self._history if self._ends else self.all()

    def enough_for(self, chunks: Iterable[Change | Whole]) -> History:
        """The history, of which enough is known to take these in. Raises MalformedUpdate."""
        return self._history if self._ends and not self._all and self._goes_on(chunks) else self.all()

    def forget(self, *, trusted: bool | None = None) -> None:
        """The core holds something else now. ``trusted``: all of it was noted before, perhaps in another process."""
        self._all = self._ends = False
        if trusted is not None:
            self._trusted = trusted

    def begin(self, whole: bytes, roots: Iterable[bytes]) -> None:
        """The core holds this document now, which was noted before. ``roots``: the actors of root maps."""
        self.forget(trusted=True)
        ends = read_ends(whole)
        if ends is None or any(is_root_actor(head.name[0]) for head in ends.heads):
            return
        known = {*roots}
        counts = {actor: seq for actor, seq in ends.seqs.items() if is_root_actor(actor)}
        if all(seq == 1 and actor in known for actor, seq in counts.items()):
            others = {actor: seq for actor, seq in ends.seqs.items() if actor not in counts}
            self._history.begin_again(ends._replace(seqs=others))
            self._ends = True

    def _goes_on(self, chunks: Iterable[Change | Whole]) -> bool:
        """Whether each of these is a new change, and comes after changes that are noted, or that stand before it."""
        history, known = self._history, set[bytes | Name]()
        for change in chunks:
            if isinstance(change, Whole) or change.seq <= history.seqs.get(change.actor, 0):
                return False
            names = change.names or [None] * len(change.deps)
            for key in (name or dep for dep, name in zip(change.deps, names, strict=True)):
                if key not in known and key not in history:
                    return False
            if is_root_actor(change.actor):
                return False
            known |= {change.came, change.name}
        return True
