"""Encrypted hidden fields: XChaCha20-Poly1305 under a conversation's key. The only import of PyNaCl.

An encrypted value is one byte 0x01, the key id (24 bytes), the nonce (24 bytes), the binding as JSON, a zero byte, then
the ciphertext with its tag. The tag also covers where the field stands: conversation, entry, name, key id and binding.
So a field that somebody moved, renamed or bound to something else does not open. The binding itself stays readable: a
renderer without the key can tell whether the field would hold.

A replica without the key, or without PyNaCl, carries encrypted fields untouched.

The library's own hidden field, the token log (``llmcrdt/tokens``), stays clear. Its token ids spell the entry's text
and the prompt's, so it is as secret as the visible text beside it, and no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..exceptions import CannotOpen, InvalidContent, KeyMissing, KeyringUnusable, SealingMissing
from ..ids import DocumentId, EntryId, KeyId, Random, key_bytes, tagged_digest, text_of
from .canonical import JSON, canonical_json, parse_json
from .entry import HiddenField

MARK = b"\x01"
"""The first byte of an encrypted value. A clear one begins with JSON text, so never with this."""

_ID = 24
_NONCE = 24
_TAG = 16
_HEADER = 1 + _ID + _NONCE


class EncryptionKey(Protocol):
    @property
    def id(self) -> KeyId: ...

    @property
    def data(self) -> bytes:
        """32 secret bytes."""
        ...


class Keys(Protocol):
    """Keeps the keys of conversations."""

    def newest(self, conversation: DocumentId) -> EncryptionKey:
        """The key to encrypt with; made where there is none yet."""
        ...

    def find(self, conversation: DocumentId, id: KeyId) -> EncryptionKey | None:
        """The key with this id, if it is here."""
        ...

    def rotate(self, conversation: DocumentId) -> EncryptionKey:
        """Make a new newest key."""
        ...


class FieldAddress(NamedTuple):
    """The address of a hidden field, and the keys at hand there."""

    conversation: DocumentId
    entry: EntryId
    name: str
    keys: Keys | None


NOWHERE = FieldAddress(DocumentId(""), EntryId(""), "", None)
"""For readers that only look at the form of a value: nothing opens there."""


class EncryptedField(HiddenField):
    """An encrypted field as it stands in a document. It is opened when ``data`` is asked for, not before."""

    stored: bytes
    key: KeyId
    _address: FieldAddress

    def __init__(self, stored: bytes, binding: Mapping[str, JSON], key: KeyId, address: FieldAddress) -> None:
        object.__setattr__(self, "stored", stored)
        object.__setattr__(self, "binding", binding)
        object.__setattr__(self, "sealed", True)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "_address", address)

    @property
    def data(self) -> bytes:
        """The content. Raises KeyMissing, CannotOpen, SealingMissing, KeyringUnusable."""
        return _open(self.stored, self.key, self._address)

    @property
    def locked(self) -> bool:
        try:
            _ = self.data
        except (CannotOpen, SealingMissing, KeyringUnusable):
            return True
        return False

    def __deepcopy__(self, memo: object) -> EncryptedField:
        return self

    def __getstate__(self) -> dict[str, object]:
        """No keys go along; the copy stays locked."""
        return {**self.__dict__, "_address": self._address._replace(keys=None)}

    def __eq__(self, other: object) -> bool:
        """Same bytes in the document; asks for no key."""
        return self.stored == other.stored if isinstance(other, EncryptedField) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.stored)

    def __repr__(self) -> str:
        return f"<encrypted hidden field under key {self.key}, binding {dict(self.binding)!r}>"


def encrypt_field(field: HiddenField, address: FieldAddress, random: Random = os.urandom) -> bytes:
    """The encrypted value of ``field`` for this address, under the conversation's newest key.

    Raises SealingMissing without PyNaCl, KeyMissing where nothing keeps keys, InvalidContent for a bad binding, and
    what ``field.data`` raises where the field was itself read encrypted.
    """
    encrypt = _aead().crypto_aead_xchacha20poly1305_ietf_encrypt
    data, binding = field.data, canonical_json(dict(field.binding))
    if address.keys is None:
        raise KeyMissing("There is no keyring here to encrypt with.", hint="Append through a repo's conversation.")
    key, nonce = address.keys.newest(address.conversation), random(_NONCE)
    ciphertext = encrypt(bytes(data), _bound_to(address, key.id, binding), nonce, key.data)
    return MARK + key_bytes(key.id) + nonce + binding.encode("utf-8") + b"\0" + bytes(ciphertext)


def encrypt_alike(field: HiddenField, address: FieldAddress) -> bytes:
    """The same, with a nonce that is derived from the key, the address and the content: whoever has the key writes the
    same. Raises what ``encrypt_field`` does."""
    data, binding = bytes(field.data), canonical_json(dict(field.binding))
    secret = address.keys.newest(address.conversation).data if address.keys is not None else b""
    pieces = [secret, address.entry.encode(), address.name.encode(), binding.encode(), data]
    nonce = tagged_digest("llmcrdt/nonce/1", address.conversation.encode(), *pieces)
    return encrypt_field(field, address, lambda size: nonce[:size])


def read_encrypted(value: bytes, address: FieldAddress) -> EncryptedField:
    """The field that an encrypted value stands for, unopened. Raises InvalidContent for bytes that can't be one."""
    binding, zero, ciphertext = value[_HEADER:].partition(b"\0")
    if value[:1] != MARK or not zero or len(ciphertext) < _TAG:
        raise InvalidContent("encrypted hidden field is cut short")
    try:
        parsed = parse_json(binding.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent("encrypted hidden field's binding is not UTF-8") from None
    if not isinstance(parsed, dict):
        raise InvalidContent("encrypted hidden field's binding is not an object")
    return EncryptedField(value, parsed, KeyId(text_of(value[1 : 1 + _ID])), address)


def _open(value: bytes, id_: KeyId, address: FieldAddress) -> bytes:
    decrypt = _aead().crypto_aead_xchacha20poly1305_ietf_decrypt
    key = address.keys.find(address.conversation, id_) if address.keys is not None else None
    if key is None:
        raise KeyMissing(
            f"The key {id_} of conversation {address.conversation} is not here.",
            hint="Export it where the field was written (repo.keyring.export), and add it here (repo.keyring.add).",
        )
    binding, _, ciphertext = value[_HEADER:].partition(b"\0")
    nonce = value[1 + _ID : _HEADER]
    try:
        bound = _bound_to(address, id_, binding.decode("utf-8"))
        return bytes(decrypt(ciphertext, bound, nonce, key.data))
    except (_crypto_error(), InvalidContent):
        raise CannotOpen(
            f"The hidden field {address.name!r} of entry {address.entry} does not open: it was changed, or moved here"
            " from another place.",
            hint="It stays as it is; nothing else is affected.",
        ) from None


def _bound_to(address: FieldAddress, id_: KeyId, binding: str) -> bytes:
    """The data that the tag covers beside the content. JSON keeps ("ab", "c") and ("a", "bc") apart."""
    text = canonical_json(["llmcrdt/hidden/1", address.conversation, address.entry, address.name, id_, binding])
    return text.encode("utf-8")


def _aead() -> Any:
    try:
        from nacl import bindings
    except ImportError:
        raise SealingMissing(
            "Encrypted hidden fields need PyNaCl, which is not installed.", hint='Run: pip install "llmcrdt[seal]".'
        ) from None
    return bindings


def _crypto_error() -> type[Exception]:
    from nacl.exceptions import CryptoError

    error: type[Exception] = CryptoError
    return error
