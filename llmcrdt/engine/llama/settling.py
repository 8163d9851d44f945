"""Work while nobody waits: sampled tokens are settled, and prompts to come are prefetched.

To *settle* tokens is to evaluate them again in canonical batches, so that their state may be stored and built upon.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .context import Aborted
from .opening import OpenModel


class Settling:
    """Background work of an open model, as iterators of steps; those run on the engine's thread, all else on any.

    Work for an owner ends when the owner is forgotten once more than when it was asked for.
    """

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self._unsettled: dict[str, tuple[int, ...]] = {}  # by owner: what is not settled of the last run
        self._prefetching: dict[str, tuple[int, ...]] = {}  # by owner: the newest ids to be prefetched
        self._forgotten: dict[str, int] = {}  # how often

    def note_sampled(self, ids: tuple[int, ...], owner: str) -> None:
        """The last of these were sampled, for ``owner``: they are unsettled until ``settle`` is through with them."""
        self._unsettled[owner] = ids

    def is_unsettled(self, ids: tuple[int, ...], length: int, owner: str) -> bool:
        """Whether the last run of ``owner`` began with the first ``length`` of these, and is not settled."""
        return ids[:length] == self._unsettled.get(owner, ())[:length]

    def forget(self, owner: str) -> None:
        """End what was begun for ``owner``."""
        self._forgotten[owner] = self._forgotten.get(owner, 0) + 1

    def settle(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...]) -> Iterator[None]:
        """Evaluate ``ids`` canonically where that was not done, a chunk per step."""
        return self._settle(ids, owner, marks, self._forgotten.get(owner, 0))

    def prefetch(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...]) -> Iterator[None]:
        """As ``settle``, until newer ids come for ``owner``. If nothing is kept, nobody's live state is given up."""
        self._prefetching[owner] = ids
        return self._prefetch(ids, owner, marks, self._forgotten.get(owner, 0))

    def _settle(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...], forgotten: int) -> Iterator[None]:
        state = self._model.state
        with contextlib.suppress(Aborted):
            while self._forgotten.get(owner, 0) == forgotten:
                self._model.refresh()
                if not state.settle_step(ids, owner, marks):
                    break
                yield
            state.thin(ids)
            if self._unsettled.get(owner) is ids:
                del self._unsettled[owner]

    def _prefetch(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...], forgotten: int) -> Iterator[None]:
        keeps = self._model.provenance.cache.capacity or self._model.mode == "fast"
        if keeps or owner == self._model.live_owner:
            for _ in self._settle(ids, owner, marks, forgotten):
                yield
                if self._prefetching.get(owner) is not ids:
                    return
        if self._prefetching.get(owner) is ids:
            del self._prefetching[owner]
