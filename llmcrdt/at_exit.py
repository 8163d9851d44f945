"""Ends what runs on threads of its own before the interpreter is taken down.

A daemon thread that is inside C at that moment can take the process with it: llama.cpp goes on computing while the C
library frees what it computes with, and Rust (pycrdt) aborts when Python ends a thread inside one of its calls. So an
exit handler ends such threads while everything still works. Exit handlers that a program registered after it imported
this module run before it, with everything still open; threads that are no daemons have ended by then.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

PATIENCE = 20.0
"""Seconds that the end of the process waits for all of it together."""

_LOG = logging.getLogger("llmcrdt")
_Owner = TypeVar("_Owner")


class _Ending(NamedTuple):
    stop: Callable[[Any], object]
    finish: Callable[[Any, float], object]
    forked: Callable[[Any], object]


_lock = threading.Lock()
_alive: WeakKeyDictionary[Any, _Ending] = WeakKeyDictionary()
_over = False


def _nothing(owner: object) -> None:
    pass


def end_at_exit(
    owner: _Owner,
    *,
    finish: Callable[[_Owner, float], object],
    stop: Callable[[_Owner], object] = _nothing,
    forked: Callable[[_Owner], object] = _nothing,
) -> bool:
    """When the process ends, every ``stop(owner)`` is called, then every ``finish(owner, seconds)``, the newest owner
    first: ``stop`` asks a thread to end, ``finish`` waits for its end. The last call for an owner counts.

    ``forked(owner)`` is called in a child process after a fork: the thread is not there, locks may be held for ever.
    The owner is not kept alive. False, and nothing is noted, where the process has ended its threads already.
    """
    with _lock:
        if not _over:
            _alive.pop(owner, None)
            _alive[owner] = _Ending(stop, finish, forked)
        return not _over


def _end_all() -> None:
    global _over
    with _lock:
        _over = True
        found = list(_alive.items())[::-1]
    deadline = time.monotonic() + PATIENCE
    for owner, ending in found:
        _guarded(lambda owner=owner, ending=ending: ending.stop(owner))  # type: ignore[misc]
    for owner, ending in found:
        left = max(0.0, deadline - time.monotonic())
        _guarded(lambda owner=owner, ending=ending, left=left: ending.finish(owner, left))  # type: ignore[misc]


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        _LOG.exception("something could not be closed before the end of the process")


def _in_child() -> None:
    """Threads are not inherited. Only the thread that forked is here, so nothing needs a lock."""
    global _lock, _alive
    _lock = threading.Lock()
    found, _alive = list(_alive.items()), WeakKeyDictionary()
    for owner, ending in found:
        _guarded(lambda owner=owner, ending=ending: ending.forked(owner))  # type: ignore[misc]


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
