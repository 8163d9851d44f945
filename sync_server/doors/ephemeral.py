"""Ephemeral messages of automerge-repo as presence, and presence as ephemeral messages.

Presence is one state for each who is there, of which the newest counts; ephemeral messages are many, of any CBOR. So a
sender's last messages together are its state, ``{"automerge": {"peer", "session", "messages": [[count, text], ...]}}``;
the texts are base64, and each client passes over those that it has had. Messages of automerge-repo's own class Presence
are read, too: their words are the state's other keys, for clients of other doors. The states of those reach an
Automerge client as messages of that class.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync.messages import MAX_STATE, Announcement
from llmcrdt.varint import MAX_UINT

from . import cbor

KEY, MARKER = "automerge", "__presence"
_MESSAGES = 8
"""Last messages of a sender that are told together."""
_ROOM = 2_800
"""Letters of these, in base64."""
_SENDERS = 64
_ITEMS, _DEPTH = 512, 16


@dataclass(slots=True)
class _Sender:
    messages: list[tuple[int, str]] = field(default_factory=list)
    state: dict[str, object] = field(default_factory=dict)


class Ephemeral:
    """The last ephemeral messages of one connection."""

    def __init__(self) -> None:
        self._senders: dict[tuple[bytes, str, str], _Sender] = {}

    def take(self, document: bytes, peer: str, session: str, count: int, data: bytes) -> Announcement | None:
        """The announcement that a message becomes; None where it is too large."""
        text = base64.b64encode(data).decode() if len(data) <= _ROOM else ""
        if not 0 < len(text) <= _ROOM:
            return None
        key = document, peer, session
        sender = self._senders.pop(key, None) or _Sender()
        self._senders[key] = sender
        if len(self._senders) > _SENDERS:
            del self._senders[next(iter(self._senders))]
        sender.messages.append((count, text))
        while len(sender.messages) > _MESSAGES or sum(len(text) for _, text in sender.messages) > _ROOM:
            del sender.messages[0]
        _note_presence(sender.state, data)
        own = {"peer": peer, "session": session, "messages": sender.messages}
        for state in ({**sender.state, KEY: own}, {KEY: own}):
            try:
                told = json.dumps(state, allow_nan=False, ensure_ascii=False)
                size = len(told.encode())
            except (ValueError, TypeError, RecursionError):
                continue
            if size <= MAX_STATE:
                return Announcement(_number(peer, session), count, told)
        return None


def announced_messages(entry: Announcement) -> Iterator[dict[str, object]]:
    """The fields of the ephemeral messages that an announcement becomes."""
    try:
        state = json.loads(entry.state) if entry.state else {}
        own = state.get(KEY)
        if isinstance(own, Mapping):
            yield from [
                {"senderId": own["peer"], "sessionId": own["session"], "count": int(count), "data": _data(text)}
                for count, text in own["messages"]
            ]
            return
        said = {"type": "snapshot", "state": state} if entry.state else {"type": "goodbye"}
        data = cbor.write({MARKER: said})
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return  # somebody calls his own state so
    name = f"llmcrdt-{entry.client}"
    count = min(2 * entry.clock + (not entry.state), MAX_UINT)
    yield {"senderId": name, "sessionId": name, "count": count, "data": data}


def _data(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if not data:
        raise binascii.Error("nothing")
    return data


def _note_presence(state: dict[str, object], data: bytes) -> None:
    """Keep what a message of the class Presence says."""
    try:
        message: Any = cbor.read(data, _ITEMS, _DEPTH)
    except MalformedFrame:
        return
    said = message.get(MARKER) if isinstance(message, dict) else None
    match said:
        case {"type": "snapshot", "state": dict(whole)} if all(isinstance(key, str) for key in whole):
            state.clear()
            state.update(whole)
        case {"type": "update", "channel": str(channel), "value": value}:
            state[channel] = value
        case {"type": "goodbye"}:
            state.clear()


def _number(peer: str, session: str) -> int:
    """The client number of a sender: 53 bits."""
    digest = hashlib.sha256(f"{peer}\0{session}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") >> 3
