"""KV state in fast mode: what was computed stays as it is, and nothing of it is stored.

The state of sampled tokens is kept after the turn, so that the next one begins right after them; it has other bits
than the same tokens evaluated together (up to 1e-1 in a logit). The context holds more than one sequence: before the
live one is cut or left, it is parked, which copies nothing (``seq_cp``). Everything ends with the context.

``plan`` may be asked from any thread; all else belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from ..base import Reuse
from .context import BATCH, Aborted, Context, Purpose, finished

_WORTH = 16  # tokens: less is evaluated again sooner than a slot is given up for it

_FEW = 1024  # cells of other sequences that cost little


@dataclass(frozen=True)
class _Best:
    """The longest usable beginning: of the live sequence (``slot`` None) or a parked one, ``length`` tokens of it."""

    length: int = 0
    slot: int | None = None


class FastState:
    """The live sequence of ``context`` and those parked beside it, in its sequences ``slots``."""

    def __init__(self, context: Context, slots: Sequence[int]) -> None:
        self._context, self._can_cut = context, context.shape.can_cut
        self._live: list[int] = []
        self._free = list(slots)
        self._parked: dict[int, tuple[int, ...]] = {}  # the one used longest ago comes first
        self._lossy: set[int | None] = set()  # sequences (None: the live one) with cells lost beyond the window
        self._made = context.pointer
        self.counters = dict.fromkeys(("parked", "resumed", "given_up"), 0)

    def plan(self, ids: Sequence[int]) -> Reuse:
        """Predict what ``materialize`` would do with these ids now. Changes nothing."""
        return self._reuse(ids, self._best(ids).length)

    def forget(self) -> None:
        """Empty the context, its buffers included."""
        self._context.clear(data=True)
        self._emptied()

    def materialize(
        self,
        ids: Sequence[int],
        owner: str = "",
        progress: Callable[[int, int], None] | None = None,
        marks: Iterable[int] = (),
    ) -> Reuse:
        """Make the state of ``ids``; the context then has the logits of the last. Returns what was really reused.

        ``progress``, between batches: how many tokens are evaluated, of how many. Nothing is stored, so ``owner`` and
        ``marks`` say nothing here. Raises Aborted or DecodeFailed; the live state is valid then, or empty.
        """
        return finished(self.materializing(ids, owner, progress, marks))

    def materializing(
        self,
        ids: Sequence[int],
        owner: str = "",
        progress: Callable[[int, int], None] | None = None,
        marks: Iterable[int] = (),
        widest: Callable[[], int] = lambda: BATCH,
    ) -> Generator[None, None, Reuse]:
        """As ``materialize``, a batch per step. Nothing else may be made between two steps: nothing is stored."""
        before = self._context.counters["prompt_tokens"]
        start = self._stand(ids)
        for at in range(start, len(ids), BATCH):
            if at > start:
                yield
                if progress is not None and len(ids) - start > BATCH:
                    progress(at - start, len(ids) - start)
            self._evaluate(ids[at : at + BATCH], "prompt", logits=at + BATCH >= len(ids))
        done = self._context.counters["prompt_tokens"] - before
        return Reuse(len(ids), start, done, live=start, mode="fast")

    def append(self, token: int) -> None:
        """Evaluate one sampled token. Its state stays."""
        self._evaluate([token], "sampled", logits=True)

    def settle_step(self, ids: Sequence[int], owner: str = "", marks: Iterable[int] = ()) -> bool:
        """Evaluate one more batch of ``ids``, all but their last token. False once there is none."""
        whole = len(ids) - 1
        if whole <= self._best(ids).length:
            return False
        start = self._stand(ids)
        self._evaluate(ids[start : min(whole, start + 64)], "settled", logits=False)
        return True

    def thin(self, ids: Sequence[int]) -> None:
        """Nothing is stored, so nothing is to be thinned."""

    def _best(self, ids: Sequence[int]) -> _Best:
        best = _Best(self._usable(None, tuple(self._live), ids))
        for slot, parked in tuple(self._parked.items()):
            length = self._usable(slot, parked, ids)
            if length > best.length:
                best = _Best(length, slot)
        return best

    def _usable(self, slot: int | None, there: Sequence[int], ids: Sequence[int]) -> int:
        """How many tokens of a sequence can begin ``ids``, whose last token is always evaluated: for its logits.

        A model with recurrent layers has the state of its whole sequence, whatever range is asked for. With a sliding
        window, llama.cpp takes cells that a sequence can't see from its end any more for others: then it can't be cut.
        """
        same, top = 0, min(len(there), len(ids) - 1)
        while same < top and there[same] == ids[same]:
            same += 1
        return same if same == len(there) or (self._can_cut and slot not in self._lossy) else 0

    def _stand(self, ids: Sequence[int]) -> int:
        """Bring the live sequence to the longest beginning of ``ids`` at hand. How many tokens that is."""
        best = self._best(ids)
        if best.slot is not None:
            self._leave(keep=best.slot)
            self._context.resume(best.slot)
            self._live = list(self._parked[best.slot])
            self._inherit(None, best.slot)
            self._parked[best.slot] = self._parked.pop(best.slot)  # used last
            self.counters["resumed"] += 1
        elif len(self._live) - best.length >= _WORTH:
            self._leave()
        if best.length < len(self._live) or not best.length:
            if not self._context.cut_live(best.length):
                self.forget()
                return 0
            del self._live[best.length :]
            if not best.length:
                self._lossy.discard(None)
        return best.length

    def _leave(self, keep: int | None = None) -> None:
        """Park the live sequence, unless it is short or parked already. ``keep`` is not given up for it."""
        live = tuple(self._live)
        if len(live) < _WORTH or any(parked[: len(live)] == live for parked in self._parked.values() if self._can_cut):
            return
        if live in self._parked.values():
            return
        if not self._free and not self._give_up(keep):
            return
        slot = self._free.pop()
        self._context.park(slot)
        self._parked[slot] = live
        self._inherit(slot, None)
        self.counters["parked"] += 1

    def _inherit(self, to: int | None, of: int | None) -> None:
        """A sequence is now what another one is."""
        (self._lossy.add if of in self._lossy else self._lossy.discard)(to)

    def _give_up(self, keep: int | None = None) -> bool:
        """Drop the parked sequence that was used longest ago."""
        slot = next((slot for slot in self._parked if slot != keep), None)
        if slot is None:
            return False
        del self._parked[slot]
        self._context.drop(slot)
        self._free.append(slot)
        self.counters["given_up"] += 1
        return True

    def _evaluate(self, tokens: Sequence[int], purpose: Purpose, *, logits: bool) -> None:
        start = len(self._live)
        self._make_room(start + len(tokens))
        try:
            self._context.evaluate(tokens, logits=logits, purpose=purpose)
        except BaseException as error:
            if not (isinstance(error, Aborted) and self._can_cut and self._context.cut_live(start, stopped=True)):
                self.forget()
            raise
        if self._context.pointer != self._made:  # it grew: only the live sequence came along
            self._emptied()
        self._live += tokens
        if self._context.shape.window:
            self._lossy.update(slot for slot in self._parked if not self._context.whole(slot))
            self._lossy.update([] if self._context.whole() else [None])

    def _make_room(self, tokens: int) -> None:
        """Give up parked sequences until ``tokens`` of the live one fit beside the cells that only those hold, and
        those are not many more: every token attends over all cells, and skips what isn't its own."""
        while self._parked:
            others = sum(map(self._alone, self._parked.values()))
            if tokens + others <= self._context.size and others <= max(tokens, _FEW):
                return
            self._give_up()

    def _alone(self, parked: Sequence[int]) -> int:
        """How many cells at most a parked sequence holds that the live one doesn't."""
        same = 0
        while same < min(len(parked), len(self._live)) and parked[same] == self._live[same]:
            same += 1
        return len(parked) - same

    def _emptied(self) -> None:
        self._free += self._parked
        self._parked, self._made = {}, self._context.pointer
        self._lossy -= {slot for slot in self._lossy if slot is not None}
        if not self._context.length:
            self._live = []
            self._lossy.clear()

    @staticmethod
    def _reuse(ids: Sequence[int], reused: int) -> Reuse:
        return Reuse(len(ids), reused, len(ids) - reused, live=reused, mode="fast")
