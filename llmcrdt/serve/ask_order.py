"""AskOrder: whose ask is answered next. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class AskOrder:
    """The order in which asks are answered: those first whose conversation was served least, and in it those of the
    asker who was served least. Nobody vouches for the name of an asker, so it counts inside one conversation only: who
    may write that is known."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}

    def came(self, conversation: str, asker: str, waiting: Sequence[tuple[str, str]]) -> None:
        """An ask came. A new asker begins with the count of the least served of those ``waiting``: so nobody gains by
        having asked nothing, and an old asker is not put after new ones for ever."""
        others = [(self._conversation(each), self._asker(each, name)) for each, name in waiting]
        least = min((each for each, _ in others), default=0)
        beside = [name for (each, _), (_, name) in zip(waiting, others, strict=False) if each == conversation]
        self._raise(conversation, least)
        self._raise(f"{conversation} {asker}", min(beside, default=0))

    def served(self, conversation: str, asker: str) -> None:
        """Count an answer."""
        for name in (conversation, f"{conversation} {asker}"):
            self._served[name] = self._served.get(name, 0) + 1

    def of(self, conversation: str, asker: str) -> tuple[int, int]:
        """The rank of an asker: the smaller, the earlier."""
        return self._conversation(conversation), self._asker(conversation, asker)

    def _conversation(self, conversation: str) -> int:
        return self._served.get(conversation, 0)

    def _asker(self, conversation: str, asker: str) -> int:
        return self._served.get(f"{conversation} {asker}", 0)

    def _raise(self, name: str, least: int) -> None:
        self._served[name] = max(self._served.get(name, 0), least)
