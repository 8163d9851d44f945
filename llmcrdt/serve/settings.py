"""The settings of an ask, as options of ``generate``. A stranger may have written them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..document.canonical import JSON
from ..document.checks import whole_number
from ..exceptions import InvalidContent
from ..prompt.tool_calls import TOOL_FORMATS


def _whole(value: JSON) -> int | None:
    return whole_number(value)


def _number(value: JSON) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: JSON) -> tuple[str, ...] | None:
    some = [value] if isinstance(value, str) else value
    if not isinstance(some, list):
        return None
    texts = tuple(each for each in some if isinstance(each, str) and each)
    return texts if len(texts) == len(some) else None


def _schema(value: JSON) -> JSON:
    return value if isinstance(value, (dict, str)) else None


def _tools(value: JSON) -> str | None:
    return value if isinstance(value, str) and value in ("auto", "off", *TOOL_FORMATS) else None


_OPTIONS: Mapping[str, Callable[[JSON], Any]] = {
    "max_tokens": _whole,
    "temperature": _number,
    "top_k": _whole,
    "top_p": _number,
    "min_p": _number,
    "repeat_penalty": _number,
    "repeat_last_n": _whole,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "grammar": _text,
    "json_schema": _schema,
    "tools": _tools,
    "seed": _whole,
    "stop": _texts,
}


def options_of(settings: Mapping[str, JSON], *, most_tokens: int) -> dict[str, Any]:
    """The options of ``generate`` that an ask's settings say, with ``max_tokens`` at most ``most_tokens``. Raises
    InvalidContent for what is no option, or not of its type."""
    options: dict[str, Any] = {}
    for name, value in settings.items():
        read = _OPTIONS.get(name)
        found = read(value) if read is not None else None
        if found is None:
            known = f"It is one of {', '.join(_OPTIONS)}." if read is None else "Its value is of another type."
            raise InvalidContent(f"The setting {name[:60]!r} can't be followed.", hint=known)
        options[name] = found
    if options.get("max_tokens", 1) < 1:
        raise InvalidContent("max_tokens is below 1.", hint="Ask for one token at least.")
    if "max_tokens" in options:
        options["max_tokens"] = min(options["max_tokens"], most_tokens)
    return options
