"""The token that a link shows to its relay: one that never changes, or those of a provider."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from ..exceptions import RelayRefused, TokenUnavailable

TokenProvider: TypeAlias = Callable[[RelayRefused | None], "str | Awaitable[str | None] | None"]
"""Gives a token, at once or when it is awaited; None is none. Its argument: why the relay refused the one before, which
has expired perhaps; None at first."""

PATIENCE = 60.0
"""Seconds that a provider may take."""


class TokenSource:
    """The token in use. On one event loop. A provider is asked when there is none, and when the relay refused the one
    in use; a plain function runs on a thread of its own, a coroutine on the loop."""

    def __init__(self, token: str | TokenProvider | None) -> None:
        self._provider = None if token is None or isinstance(token, str) else token
        self._token = token.encode() if isinstance(token, str) else b""
        self._known = self._provider is None
        self._refused: RelayRefused | None = None
        self._accepted = True

    @property
    def shown(self) -> str | None:
        """The one that connections show just now. Raises TokenUnavailable where the provider was not asked yet."""
        if not self._known:
            raise TokenUnavailable("The link has no token yet.", hint="Wait until it has connected.")
        return self._token.decode() or None

    async def current(self) -> bytes:
        """The token to connect with. Raises TokenUnavailable, where the provider fails, or has nothing new for the
        relay that refused the last one."""
        if self._known or self._provider is None:
            return self._token
        try:
            async with asyncio.timeout(PATIENCE):
                found = await _ask(self._provider, self._refused)
        except TokenUnavailable:
            raise
        except TimeoutError:
            raise TokenUnavailable(f"The token provider gave none within {PATIENCE:g} s.") from None
        except Exception as error:
            why = ": ".join(filter(None, (type(error).__name__, str(error))))
            raise TokenUnavailable(f"The token provider failed: {why}") from error
        if found is not None and not isinstance(found, str):
            raise TokenUnavailable(f"The token provider gave {type(found).__name__}, not a text.")
        self._token, self._known = (found or "").encode(), True
        return self._token

    def accepted(self) -> None:
        """The relay let this device in with the token in use."""
        self._accepted, self._refused = True, None

    def renew(self, why: RelayRefused) -> bool:
        """The relay refused the token in use. Whether it is worth while to ask for another one: not where it comes from
        no provider, or was new itself."""
        if self._provider is None or not self._accepted:
            return False
        self._known, self._accepted, self._refused = False, False, why
        return True


async def _ask(provider: TokenProvider, refused: RelayRefused | None) -> Any:
    if inspect.iscoroutinefunction(provider):
        return await provider(refused)
    found = await _on_a_thread(lambda: provider(refused))
    return await found if inspect.isawaitable(found) else found


async def _on_a_thread(call: Callable[[], Any]) -> Any:
    """Not one of the loop's own threads: for those it waits when it ends."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return  # nobody waits any more
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def run() -> None:
        result, failed = None, None
        try:
            result = call()
        except BaseException as error:
            failed = RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=run, name="llmcrdt-token", daemon=True).start()
    return await answer
