"""Invites: all that a new device needs, in one string: the relay, a token for it, the library, and the keys of sealed
fields. Its owner has all of that.

::

    invite   = "llmcrdt-invite-" version "-" base64url(body ‖ checksum), without padding; version is 1
    body     = length ‖ library ‖ relay length ‖ token length ‖ relay ‖ token ‖ key*
    key      = conversation ‖ created ‖ secret
    checksum = the first 4 bytes of SHA-256("llmcrdt-invite-1" ‖ body)

``length``: 4 bytes, of body and checksum together; library and conversation: 16 bytes; the lengths of relay and token:
2 bytes each, of UTF-8; no token is one of length 0; created: 8 bytes, milliseconds since 1970; secret: 32 bytes.
Numbers are big endian. White space anywhere in the string is ignored, so it may be wrapped.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass, field

from ..exceptions import InvalidInvite, LLMCRDTError
from ..ids import DocumentId, document_bytes, document_id, text_of
from ..sync.address import relay_address

_NAME = "llmcrdt-invite-"
_VERSION = 1
_HEAD = struct.Struct(">I16sHH")
_KEY = struct.Struct(">16sQ32s")
_CHECKSUM = 4
_MAX = 8 << 20
"""Characters of an invite; about 100,000 keys."""
_WHOLE = "Copy the whole of it, or ask for a new one."


@dataclass(frozen=True)
class Invite:
    """``keys``: (conversation, milliseconds since 1970, secret). ``repr`` shows no secrets."""

    relay: str
    library: DocumentId
    token: str | None = field(default=None, repr=False)
    keys: tuple[tuple[DocumentId, int, bytes], ...] = field(default=(), repr=False)


def write_invite(invite: Invite) -> str:
    """The invite as one string. Raises InvalidInvite where it is too large, RelayUnreachable for a bad address."""
    relay_address(invite.relay)
    relay, token = invite.relay.encode(), (invite.token or "").encode()
    keys = b"".join(_KEY.pack(document_bytes(i), created, secret) for i, created, secret in invite.keys)
    size = _HEAD.size + len(relay) + len(token) + len(keys) + _CHECKSUM
    if max(len(relay), len(token)) > 0xFFFF or size > _MAX // 2:
        raise InvalidInvite("This is too much for one invite.", hint="Leave out the keys, and hand them over by file.")
    body = _HEAD.pack(size, document_bytes(invite.library), len(relay), len(token)) + relay + token + keys
    return f"{_NAME}{_VERSION}-{text_of(body + _checksum(body))}"


def read_invite(text: str) -> Invite:
    """The content of an invite. Raises InvalidInvite, whose message tells nothing of what is in it."""
    if not isinstance(text, str):
        raise InvalidInvite(f"An invite is a str, not {type(text).__name__}.", hint="Decode bytes as ASCII first.")
    text = "".join(text.split()) if len(text) <= _MAX else ""
    found = re.fullmatch(rf"{_NAME}([1-9][0-9]{{0,3}})-([A-Za-z0-9_-]*)[^ ]*", text)
    if not found:
        raise InvalidInvite("This is not an invite.", hint=f"One begins with {_NAME}{_VERSION}-. {_WHOLE}")
    if int(found[1]) != _VERSION:
        hint = "Update llmcrdt on this device, or make the invite with an older one."
        raise InvalidInvite(f"This invite is of version {found[1]}; this program reads {_VERSION}.", hint=hint)
    code = text[len(_NAME) + len(found[1]) + 1 :]
    try:
        data = base64.b64decode(code[: len(code) // 4 * 4] + _padded(code[len(code) // 4 * 4 :]), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _damaged() from None
    if len(data) < 4 or len(data) < int.from_bytes(data[:4], "big") <= _MAX:
        raise InvalidInvite("The end of this invite is missing.", hint=_WHOLE)
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if checksum != _checksum(body) or text_of(data) != code:
        raise _damaged()
    try:
        return _read_body(body)
    except (struct.error, ValueError, LLMCRDTError):
        raise _damaged() from None


def _read_body(body: bytes) -> Invite:
    size, library, relay_size, token_size = _HEAD.unpack_from(body)
    at, end = _HEAD.size, _HEAD.size + relay_size
    relay, token = body[at:end].decode(), body[end : end + token_size].decode()
    rest = body[end + token_size :]
    if size != len(body) + _CHECKSUM or end + token_size > len(body):
        raise ValueError("lengths do not fit")
    relay_address(relay)
    keys = tuple((document_id(i), created, secret) for i, created, secret in _KEY.iter_unpack(rest))
    if any(created >= 1 << 53 for _, created, _ in keys):
        raise ValueError("a key has no time")
    return Invite(relay, document_id(library), token or None, keys)


def _damaged() -> InvalidInvite:
    return InvalidInvite("This invite is damaged: a character is wrong, missing or too many.", hint=_WHOLE)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(f"{_NAME}{_VERSION}".encode() + body).digest()[:_CHECKSUM]


def _padded(code: str) -> str:
    """The last characters, as far as they make whole bytes: of a truncated invite one may be left over."""
    return code.ljust(4, "=") if len(code) > 1 else ""
