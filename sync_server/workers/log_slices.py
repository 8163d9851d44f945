"""Logs are read slice by slice, while a worker has something else in hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from llmcrdt.exceptions import LLMCRDTError

logger = logging.getLogger(__name__)

_SLICE = 64 << 10
"""Bytes of a log that are loaded in one batch, unless one record has more."""


@dataclass(slots=True, eq=False)
class Slice:
    """A part of a document's log for the worker. ``data`` is None while it is read."""

    document: bytes
    log: Iterator[bytes]
    data: list[bytes] | None = None
    last: bool = False


def read_slice(log: Iterator[bytes]) -> tuple[list[bytes], bool] | None:
    """The next slice of a log, and whether it is the last. None where it can't be read."""
    data: list[bytes] = []
    size, last = 0, True
    try:
        for update in log:
            data.append(update)
            size += len(update)
            if size >= _SLICE:
                last = False
                break
    except LLMCRDTError as e:
        logger.error("the log can't be read: %s", e)
        return None
    return data, last


def close_log(log: Iterator[bytes]) -> None:
    with suppress(LLMCRDTError):
        log.close()  # type: ignore[attr-defined]
