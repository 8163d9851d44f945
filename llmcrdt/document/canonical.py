"""Canonical JSON: the text that hashes are taken over, and the only form in which structured values enter a document.

Keys sorted by code point, no white space, no escapes beyond those JSON needs, numbers as Python writes them: ``1`` and
``1.0`` differ, and so do 2**53 + 1 and its neighbours. A reader never re-encodes: it hashes the stored text.
(CRDT backends turn 5 into 5.0 and fail on 2**64; text they leave alone.)
"""

from __future__ import annotations

import json
from typing import Any

from ..exceptions import InvalidContent

JSON = Any
"""None, bool, int, float, str, list or dict with str keys, nested."""


def canonical_json(value: JSON) -> str:
    """The canonical text of ``value``. Raises InvalidContent for what JSON or UTF-8 can't hold."""
    try:
        text = _ENCODER.encode(value)
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidContent(
            "The text holds half of a surrogate pair, which UTF-8 can't store.",
            hint="Decode the bytes it came from again, or replace the character.",
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidContent(f"The value can't be stored as JSON: {error}.") from None
    return text


def parse_json(text: object) -> JSON:
    """The value of a JSON text. Raises InvalidContent for anything else, NaN and Infinity included."""
    if not isinstance(text, str):
        raise InvalidContent(f"Expected JSON text, got {type(text).__name__}.")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidContent(f"The text is not JSON: {error}.") from None


def _refuse(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


# json.dumps and json.loads would make one for each text
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse)
