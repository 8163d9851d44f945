"""Messages for templates that refuse them as they are.

Templates raise on what their model never saw: two user turns in a row, a system message in the middle, or none
allowed at all, long call ids, the tool role. Each level of ``adapt`` gives up a little more form to keep all the words;
the first that the template takes is used. The levels are part of ``RENDERER``'s version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from enum import IntEnum

from .messages import Message

GO_ON = "Go on."
NO_ANSWER = "No answer was recorded."
_GAP = "\n\n"
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Level(IntEnum):
    PLAIN = 0  # as they are
    ALTERNATE = 1  # user and assistant take turns, one system message at the start, call ids of nine characters
    NO_SYSTEM = 2  # and the system message stands in the first user message
    NO_TOOLS = 3  # and calls and results are told in words


def adapt(messages: Sequence[Message], level: Level, *, generating: bool) -> list[Message]:
    """``messages`` in the form of ``level``. ``generating``: an answer is asked for after the last one."""
    if level == Level.PLAIN:
        return list(messages)
    told = [_in_words(message) for message in messages] if level >= Level.NO_TOOLS else messages
    system, rest = _one_system(told)
    out = _alternate([_short_ids(message) for message in rest], generating)
    if not system:
        return out
    if level == Level.ALTERNATE:
        return [{"role": "system", "content": system}, *out]
    if out and out[0]["role"] == "user":
        return [{**out[0], "content": system + _GAP + out[0]["content"]}, *out[1:]]
    return [{"role": "user", "content": system}, *out]


def _one_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The text of the leading system messages, and the rest, where later system messages speak as the user."""
    lead = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    system = _GAP.join(message["content"] for message in messages[:lead])
    return system, [{**m, "role": "user"} if m["role"] == "system" else m for m in messages[lead:]]


def _alternate(messages: Sequence[Message], generating: bool) -> list[Message]:
    out: list[Message] = []
    for message in messages:
        role, before = message["role"], out[-1]["role"] if out else None
        if role == "user" and before == "user":
            out[-1] = {**out[-1], "content": out[-1]["content"] + _GAP + message["content"]}
            continue
        if role == "user" and before == "tool":
            out.append({"role": "assistant", "content": NO_ANSWER})
        elif role == "assistant" and before in (None, "assistant"):
            out.append({"role": "user", "content": GO_ON})
        out.append(message)
    if generating and (not out or out[-1]["role"] == "assistant"):
        out.append({"role": "user", "content": GO_ON})
    return out


def _short_ids(message: Message) -> Message:
    if "tool_call_id" in message:
        return {**message, "tool_call_id": _short_id(message["tool_call_id"])}
    if "tool_calls" in message:
        return {**message, "tool_calls": [{**call, "id": _short_id(call["id"])} for call in message["tool_calls"]]}
    return message


def _short_id(name: str) -> str:
    if _SHORT_ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])


def _in_words(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result of {message['name']}: {message['content']}"}
    if "tool_calls" not in message:
        return message
    calls = [
        f"Call {call['function']['name']}: {_as_text(call['function']['arguments'])}" for call in message["tool_calls"]
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join([message["content"], *calls] if message["content"] else calls)}


def _as_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
