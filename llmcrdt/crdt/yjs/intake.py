"""The updates that a core gets, and those that wait.

The core gets no update before all that it depends on (nesting.py says why): yrs 0.28 would also show some of it, take
what comes after a hole in what a client wrote, and go wrong when one run of structs comes for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from ...exceptions import MalformedUpdate
from .nesting import Nesting, part_update
from .pairs import Clocks, Pairs
from .split import small_pieces
from .update import Id, UpdateRange, read_state_vector, read_update
from .waiting import Waiting

_TOGETHER = 64
"""Structs of one client that wait together."""
_SMALL = 2 << 10
"""Bytes of an update that waits as it is."""


Renew = Callable[[], Callable[[Clocks], Any] | None]


class Intake:
    """The knowledge of what one core has, and the updates that wait. Errors of the core go through.

    ``try_to_read`` has the core read an update, and raises ValueError where it can't: JSON in it is none, say. One that
    waits is read only when the document is encoded with it, and nobody could do that any more. ``renew()`` gives what
    has the document replaced by one in which some letters are U+FFFD (pairs.py), and gives that one."""

    def __init__(self, doc: Any, try_to_read: Callable[[bytes], object], renew: Renew) -> None:
        self._doc, self._try_to_read, self._renew = doc, try_to_read, renew
        self._pairs = Pairs()
        self._transaction: AbstractContextManager[Any] | None = None
        self.waiting = Waiting()
        # Updates that waited, and are to be looked at again.
        self._ready: dict[bytes, None] = {}
        # Of some clients a clock up to which nothing is missing; the state vector, where nothing came in beside it.
        self._known: dict[int, int] = {}
        self._exact = True
        self.sure = True
        """Whether the core is known to have all that it was given."""
        self._nesting = Nesting()

    def on_letters(self, version: bytes) -> bytes:
        """The state vector, at the beginning of a letter where it is in the middle of one: the core can't write the
        second half."""
        return self._pairs.on_letters(version, self._doc.get_update)

    def doubt(self) -> None:
        """Something came in that was not given here, or was given and did not come in."""
        self._exact = False
        self._nesting.doubt()
        self._pairs.doubt()

    def wrote(self, update: bytes) -> None:
        """The core took an edit of its own."""
        self._exact = False
        self._nesting.wrote(update)
        self._pairs.wrote(update)

    def took_all(self) -> bool:
        """Whether the core took all that it was given."""
        if self.sure:
            return True
        state = read_state_vector(self._doc.get_state())
        if any(end > state.get(client, 0) for client, end in self._known.items()):
            return False
        self._reach(state)
        self._exact = self.sure = True
        return True

    def let_nothing_wait(self) -> None:
        if self.waiting:
            raise MalformedUpdate("Updates wait for others.")

    def give_joined(self, whole: bytes, span: UpdateRange, updates: Sequence[bytes]) -> None:
        """Give the core several updates as ``whole``, where nothing of it would wait, else one after the other: such as
        wait for each other in a circle wait on, and nobody takes them as one."""
        if len(updates) == 1:
            self.give(whole, span)
            return
        if self._can_take(span):
            with suppress(MalformedUpdate):  # it was refused before the core saw any of it
                self.give(whole, span)
                return
        for update in updates:
            self.give(update, read_update(update))

    def _can_take(self, span: UpdateRange) -> bool:
        """Whether nothing of an update would wait."""
        if not self._exact:
            self._look()
        known, written, deleted = self._known, span.written, span.deleted.items()
        there = all(end <= max(known.get(client, 0), written.get(client, 0)) for client, end in deleted)
        return there and not span.odd and not span.lacks(known)

    def give(self, update: bytes, span: UpdateRange) -> bool:
        """Give the core what it can take of an update, and keep it where some of it waits; whether that is new. Raises
        MalformedUpdate for what the core must not take."""
        if span.follows and span.begun.items() <= self._known.items():
            # More letters after the last of a client: nearly all updates of a streamed answer.
            self._admit(update, span)
            return bool(self.waiting) and self.waiting.put(update, {})
        if not self._exact and (span.nested or span.odd or span.lacks(self._known)):
            self._look()
        missing = {} if span.odd else span.behind(self._known)
        if missing and len(missing) == len(span.begun):
            # Nothing of it can be taken. Of another one, what can be: something that it waits for may wait for that.
            self._try_to_read(update)
        elif span.odd or span.lacks(self._known):
            now, missing = part_update(update, self._known)
            if missing:
                self._try_to_read(update)
            self._put(now, read_update(now))
        else:
            self._put(update, span)
        missing = missing or (self._not_deleted(span) if span.deletes else {})
        if missing and (len(missing) > 1 or len(update) > _SMALL):
            pieces = small_pieces(update, span.deletes, _TOGETHER)
            if len(pieces) > 1:
                # Else all of it would be looked at again for each id that one of its parts waits for.
                self.waiting.put(update, {})
                with self.together():
                    new = [self.give(piece, read_update(piece)) for piece in pieces]
                return any(new)
        return bool(missing or self.waiting) and self.waiting.put(update, missing)

    def _put(self, update: bytes, span: UpdateRange) -> None:
        if span.written and not span.covered_by(self._known):
            self._admit(update, span)
        else:
            self._apply(update, span)

    def _admit(self, update: bytes, span: UpdateRange) -> None:
        self._nesting.admit(update, span, self._known, self._doc.get_update)
        self._apply(update, span)

    def _apply(self, update: bytes, span: UpdateRange) -> None:
        self.sure = False
        if not span.follows or not span.begun.items() <= self._known.items():
            update = self._mend(update, span)
        try:
            self._doc.apply_update(update)
        except BaseException:
            self._nesting.doubt()
            raise
        self._reach(span.written)

    def _mend(self, update: bytes, span: UpdateRange) -> bytes:
        """The update as the core can take it, where it splits letters."""
        if (span.pairs or span.cuts or span.deletes) and not self._exact:
            self._look()
        update, broken = self._pairs.split(update, span, self._known, self._doc.get_update)
        if broken:
            within, self._transaction = self._transaction, None
            if within is not None:
                within.__exit__(None, None, None)
            renew = self._renew()
            assert renew is not None, "whoever gives updates is there"
            self._doc = renew(broken)
            if within is not None:
                self._begin()
        return update

    def _reach(self, ends: Mapping[int, int]) -> None:
        for client, end in ends.items():
            if end > self._known.get(client, 0):
                self._known[client] = end
                if self.waiting:
                    self._ready.update(dict.fromkeys(self.waiting.reached(client, end)))

    def _not_deleted(self, span: UpdateRange) -> dict[int, Id]:
        """The items that an update deletes and that aren't there yet, under numbers that no client has."""
        if not self._exact and any(end > self._known.get(client, 0) for client, end in span.deleted.items()):
            self._look()
        ends = span.deleted.items()
        return {~client: (client, end - 1) for client, end in ends if end > self._known.get(client, 0)}

    def retry(self) -> None:
        """Look again at what need not wait any more, until nothing moves."""
        with self.together() if self._ready else nullcontext():
            while self._ready:
                update = next(iter(self._ready))
                del self._ready[update]
                try:
                    self.give(update, read_update(update))
                except (MalformedUpdate, ValueError):  # it nests too deep, as shows only now: nobody takes it
                    self.waiting.put(update, {})

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for many updates, if none is open: to end one takes the core longer the more clients the
        document has. It may become several."""
        if self._transaction is not None:
            yield
            return
        self._begin()
        try:
            yield
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    def _begin(self) -> None:
        self._transaction = self._doc.transaction()
        self._transaction.__enter__()

    def _end(self, error: BaseException | None) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _look(self) -> None:
        state = read_state_vector(self._doc.get_state())
        self._exact = True
        self._reach(state)
