"""The workers of a relay: one that validates what is to be appended, one that compacts logs, and one that prepares
catch-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from ..core.events import CatchUpRequest, CatchUpResult, CompactRequest, CompactResult
from ..core.limits import Limits
from ..core.validation import Flush, ValidateResult
from ..log.admin import Storage
from ..log.quarantine import Quarantine
from .compactor import Compactor
from .validator import Validator

Result: TypeAlias = CompactResult | CatchUpResult


class Workers:
    """``put`` gets the validator's answers, on the loop, and ``put_from_thread`` those of the others, on threads of
    theirs; ``failed`` is called where the validator can't go on. ``check``: records are validated from the start.
    Documents in ``quarantine`` are loaded by none of them."""

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        check: bool,
        put: Callable[[ValidateResult | Flush], None],
        put_from_thread: Callable[[Result], None],
        failed: Callable[[], None],
        quarantine: Quarantine,
    ) -> None:
        self._storage, self._limits, self._put_from_thread = storage, limits, put_from_thread
        self._quarantine = quarantine
        self.validator = Validator(storage.snapshots, limits, put, failed, early=check, quarantine=quarantine)

    def start(self) -> None:
        """On the loop."""
        # Somebody waits for a catch-up, so its worker is there before it is needed.
        early = self._limits.catch_up_jobs > 0
        common = self._storage, self._limits, self._put_from_thread
        self._compactor = Compactor(*common, quarantine=self._quarantine)
        self._catch_up = Compactor(*common, early=early, quarantine=self._quarantine)
        self.validator.start()

    def compact(self, request: CompactRequest) -> None:
        self._compactor.put(request)

    def catch_up(self, request: CatchUpRequest) -> None:
        self._catch_up.put(request)

    async def stop(self) -> None:
        """End them, and what is under way; no log is touched by that."""
        await self.validator.stop()
        await asyncio.to_thread(self._compactor.stop)
        await asyncio.to_thread(self._catch_up.stop)
