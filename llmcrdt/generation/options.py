"""The settings of a generation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from ..document.ask import Ask
from ..document.canonical import JSON, canonical_json
from ..document.entry import Entry
from ..document.transcript import Transcript
from ..engine.base import Sampling
from ..exceptions import InvalidContent
from ..ids import EntryId
from ..prompt.tool_calls import TOOL_FORMATS, ToolFormat

DEFAULT_MAX_TOKENS = 512
Busy = Literal["enqueue", "restart", "branch"]
_COMMON = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed")
_INFINITY = float("inf")


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
"""Stands for a keyword of ``generate`` that was not passed."""


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """The settings of ``generate``; its docstring explains each. None: as usual. With an engine that is
    ``max_tokens`` 512, ``temperature`` 0.8, ``top_k`` 40, ``top_p`` 0.95, ``min_p`` 0.05, no penalties, and a ``seed``
    that is drawn. Raises InvalidContent for a value that means nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    grammar: str = ""
    json_schema: Mapping[str, JSON] | str = ""
    top_logprobs: int = 0
    tools: ToolFormat | Literal["auto", "off"] = "auto"
    seed: int | None = None
    stop: Sequence[str] = ()
    instead_of: Entry | EntryId | None = None
    author: str | None = None
    interval: float | None = None
    busy: Busy = "enqueue"
    warm: bool = True
    token_log: bool = True
    ask: Ask | None = None
    on: Transcript | None = None

    def __post_init__(self) -> None:
        _check_tools(self.tools)
        _check_number("max_tokens", self.max_tokens, 1, whole=True)
        _check_number("temperature", self.temperature, 0)
        _check_number("top_k", self.top_k, -_INFINITY, whole=True)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repeat_penalty", self.repeat_penalty, 0)
        _check_number("repeat_last_n", self.repeat_last_n, -1, whole=True)
        _check_number("presence_penalty", self.presence_penalty, -_INFINITY)
        _check_number("frequency_penalty", self.frequency_penalty, -_INFINITY)
        _check_number("top_logprobs", self.top_logprobs, 0, whole=True, needed=True)
        _check_number("seed", self.seed, -_INFINITY, whole=True)
        _check_number("interval", self.interval, 0)
        _check_kind("logit_bias", self.logit_bias, Mapping, "Map token ids to numbers.", optional=True)
        for token, bias in (self.logit_bias or {}).items():
            _check_number("logit_bias: a token id", token, 0, whole=True, needed=True)
            if not isinstance(bias, (int, float)) or math.isnan(bias):
                raise _odd("logit_bias", bias, "Map token ids to numbers.")
        _check_kind("grammar", self.grammar, str, "Pass GBNF as text.")
        _check_kind("json_schema", self.json_schema, (Mapping, str), "Pass a JSON Schema, as an object or its text.")
        if isinstance(self.stop, (str, bytes)) or not isinstance(self.stop, Sequence):
            raise _odd("stop", self.stop, 'Pass a list of texts: stop=["..."].')
        for text in self.stop:
            _check_kind("stop", text, str, 'Pass a list of texts: stop=["..."].')
        _check_kind("instead_of", self.instead_of, (Entry, str), "Pass an answer, or its id.", optional=True)
        _check_kind("author", self.author, str, "Pass a name.", optional=True)
        _check_kind("on", self.on, Transcript, "Pass a transcript of the conversation.", optional=True)
        _check_kind("ask", self.ask, Ask, "Pass one of conversation.asks().", optional=True)
        if self.busy not in get_args(Busy):
            raise _odd("busy", self.busy, f"Use {', '.join(get_args(Busy))}.")
        for name in ("warm", "token_log"):
            _check_kind(name, getattr(self, name), bool, "Pass True or False.")

    def with_changes(self, **changes: Any) -> GenerationOptions:
        """These options, but for the changes that are not ``UNSET``. Raises InvalidContent."""
        return replace(self, **{name: value for name, value in changes.items() if value is not UNSET})

    def given(self) -> dict[str, Any]:
        """The options that are not as usual."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name in usual if (value := getattr(self, name)) != usual[name]}

    def sampling(self, seed: int) -> Sampling:
        """The settings of an engine's sampler; ``seed`` is taken where none was given."""
        schema = self.json_schema if isinstance(self.json_schema, str) else canonical_json(dict(self.json_schema))
        named = {name: getattr(self, name) for name in (*_COMMON, "presence_penalty", "frequency_penalty")}
        chosen = {name: value for name, value in named.items() if value is not None}
        return Sampling(
            **{"seed": seed, **chosen},
            logit_bias=dict(self.logit_bias or {}),
            grammar=self.grammar,
            json_schema=schema,
            top_logprobs=self.top_logprobs,
        )


def _check_tools(tools: object) -> None:
    """Raises InvalidContent for what is no format of tool calls."""
    if not isinstance(tools, str) or tools not in ("auto", "off", *TOOL_FORMATS):
        raise InvalidContent(
            f"{tools!r} is no format of tool calls.",
            hint=f"Use auto, off, or one of {', '.join(TOOL_FORMATS)}. Tools themselves travel in the conversation:"
            ' append("system", ..., tools=[...]).',
        )


def _check_number(
    name: str, value: object, least: float, most: float = _INFINITY, *, whole: bool = False, needed: bool = False
) -> None:
    if value is None and not needed:
        return
    kind = "a whole number" if whole else "a number"
    usable = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not usable or not least <= value <= most or (isinstance(value, float) and not math.isfinite(value)):  # type: ignore[operator]
        span = f" from {least:g} to {most:g}" if most < _INFINITY else f" of {least:g} or more" if least >= -1 else ""
        raise _odd(name, value, f"Pass {kind}{span}.")


def _check_kind(name: str, value: object, kind: type | tuple[type, ...], hint: str, *, optional: bool = False) -> None:
    if not (optional and value is None) and not isinstance(value, kind):
        raise _odd(name, value, hint)


def _odd(name: str, value: object, hint: str) -> InvalidContent:
    said = repr(value)
    return InvalidContent(f"generate can't use {name}={said if len(said) < 80 else said[:79] + '…'}.", hint=hint)


def recorded(sampling: Sampling) -> dict[str, JSON]:
    """The settings that decided the answer, for the record: the common ones, and others where they are not as usual."""
    usual = Sampling()
    chosen = {
        name: value for name, value in asdict(sampling).items() if name in _COMMON or value != getattr(usual, name)
    }
    if sampling.logit_bias:
        chosen["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return {name: value for name, value in chosen.items() if name != "top_logprobs"}
