"""Waiting for what other threads and processes bring about, without asking for a pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0
"""Seconds; a busy machine is slow, and a hung one must end."""


def eventually(ask: Callable[[], Any], wanted: Callable[[Any], object] = bool) -> Any:
    """The answer of ``ask`` as soon as it is what is wanted."""
    end = time.monotonic() + PATIENCE
    while not wanted(answer := ask()):
        assert time.monotonic() < end, f"still {str(answer)[:500]}"
        time.sleep(0.01)
    return answer
