"""Encrypted hidden fields: XChaCha20-Poly1305 under a conversation's key. The only import of PyNaCl.

An encrypted value is one byte 0x02, the key id (24 bytes), the nonce (24 bytes), then the ciphertext with its tag. What
is encrypted is 24 random bytes, the binding as JSON, a zero byte, and the data. The tag also covers where the field
stands: conversation, entry, name and key id. So a field that somebody moved or renamed does not open, and a relay reads
neither content nor binding.

The entry's version vouches for an encrypted field by the digest of what is encrypted. The random bytes keep that from
being guessed; and the digest stays when the field is encrypted anew, for a fork.

Values of before begin with 0x01: their binding stands in clear between nonce and ciphertext, and the tag covers it.
They are read, and no longer written.

A replica without the key, or without PyNaCl, carries encrypted fields untouched.

The library's own hidden field, the token log (``llmcrdt/tokens``), stays clear. Its token ids spell the entry's text
and the prompt's, so it is as secret as the visible text beside it, and no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple, Protocol

from ..exceptions import CannotOpen, InvalidContent, KeyMissing, KeyringUnusable, SealingMissing
from ..ids import ContentHash, DocumentId, EntryId, KeyId, Random, key_bytes, tagged_digest, tagged_hash, text_of
from .canonical import JSON, canonical_json, parse_json
from .entry import HiddenField, Refusal

_OPEN_BINDING, _SEALED_BINDING = 1, 2
"""The first byte of an encrypted value. A clear one begins with JSON text, so never with these."""

SEALED_DIGEST = "sealed:"
"""Begins the digest of an encrypted field."""

_ID = 24
_NONCE = 24
_TAG = 16
_BLIND = 24
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


class _Opened(NamedTuple):
    binding: Mapping[str, JSON]
    data: bytes
    plain: bytes | None  # all that was encrypted; None for a value of before


class EncryptedField(HiddenField):
    """An encrypted field as it stands in a document. It is opened when something of it is asked for, not before.

    ``binding`` is empty where it is locked, but for a field of before, whose binding is readable to everybody.
    """

    stored: bytes
    key: KeyId
    _address: FieldAddress
    _open_binding: Mapping[str, JSON] | None
    _vouched: Mapping[str, tuple[ContentHash, ...]]
    _silent: tuple[ContentHash, ...]

    def __init__(
        self,
        stored: bytes,
        key: KeyId,
        address: FieldAddress,
        open_binding: Mapping[str, JSON] | None,
        vouched: Mapping[str, tuple[ContentHash, ...]] | None = None,
    ) -> None:
        object.__setattr__(self, "stored", stored)
        object.__setattr__(self, "sealed", True)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "_address", address)
        object.__setattr__(self, "_open_binding", open_binding)
        object.__setattr__(self, "_vouched", vouched or {})
        object.__setattr__(self, "_silent", ())

    def vouched_by(self, digests: Mapping[str, tuple[ContentHash, ...]]) -> EncryptedField:
        """The same field, held against the digests that versions of its entry have for it."""
        return EncryptedField(self.stored, self.key, self._address, self._open_binding, digests)

    def of_versions(self, versions: tuple[ContentHash, ...]) -> EncryptedField:
        """The same field, which belongs to versions that say nothing of what came with them."""
        field = EncryptedField(self.stored, self.key, self._address, self._open_binding)
        object.__setattr__(field, "_silent", versions)
        return field

    @property
    def data(self) -> bytes:
        """The content. Raises KeyMissing, CannotOpen, SealingMissing, KeyringUnusable."""
        return self._read().data

    @property
    def binding(self) -> Mapping[str, JSON]:
        if self._open_binding is not None:
            return self._open_binding
        try:
            return self._read().binding
        except _LOCKED:
            return {}

    @property
    def versions(self) -> tuple[ContentHash, ...]:
        if not self._vouched:
            return self._silent
        try:
            return self._vouched.get(self._digest(self._read()), ())
        except _LOCKED:
            return ()

    @property
    def locked(self) -> bool:
        try:
            self._read()
        except _LOCKED:
            return True
        return False

    @property
    def refused(self) -> Refusal:
        try:
            self._read()
        except (KeyMissing, SealingMissing, KeyringUnusable):
            return ""
        except CannotOpen:
            return "replaced"
        return ""

    def encrypted_for(self, address: FieldAddress, random: Random = os.urandom) -> bytes:
        """The same field for another address, with the same digest. Raises what ``data`` does."""
        opened = self._read()
        if opened.plain is None:
            return encrypt_field(HiddenField(opened.data, opened.binding, sealed=True), address, random)
        return _encrypt(opened.plain, address, random)

    def encrypted_alike(self, address: FieldAddress) -> bytes:
        """The same, with all that is random derived from the key, the address and the content: everybody who has the
        key writes the same."""
        opened, number = self._read(), count()
        secret = address.keys.newest(address.conversation).data if address.keys is not None else b""
        content = opened.plain or canonical_json(dict(opened.binding)).encode("utf-8") + b"\0" + opened.data
        pieces = [secret, address.conversation.encode(), address.entry.encode(), address.name.encode(), content]

        def derived(size: int) -> bytes:
            return tagged_digest("llmcrdt/nonce/1", *pieces, str(next(number)).encode())[:size]

        return self.encrypted_for(address, derived)

    def _read(self) -> _Opened:
        opened = _open(self.stored, self.key, self._address, self._open_binding)
        if self._vouched and self._digest(opened) not in self._vouched:
            raise CannotOpen(
                f"The hidden field {self._address.name!r} of entry {self._address.entry} is not the one that its entry"
                " was sealed with.",
                hint="It stays as it is, and is sent to nobody; nothing else is affected.",
            )
        return opened

    def _digest(self, opened: _Opened) -> str:
        return "" if opened.plain is None else _digest(self._address.name, opened.plain)

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
        return f"<encrypted hidden field under key {self.key}>"


_LOCKED = (CannotOpen, SealingMissing, KeyringUnusable)


def is_encrypted(value: object) -> bool:
    """Whether a hidden field's bytes are encrypted."""
    return isinstance(value, bytes) and value[:1] in (b"\x01", b"\x02")


def encrypt_field(field: HiddenField, address: FieldAddress, random: Random = os.urandom) -> bytes:
    """The encrypted value of ``field`` for this address, under the conversation's newest key.

    Raises SealingMissing without PyNaCl, KeyMissing where nothing keeps keys, InvalidContent for a bad binding, and
    what ``field.data`` raises where the field was itself read encrypted.
    """
    aead()
    plain = canonical_json(dict(field.binding)).encode("utf-8") + b"\0" + bytes(field.data)
    return _encrypt(random(_BLIND) + plain, address, random)


def check_encrypts(conversation: DocumentId, keys: Keys | None) -> EncryptionKey:
    """The key to encrypt with. Raises SealingMissing without PyNaCl, KeyMissing where nothing keeps keys,
    KeyringUnusable."""
    aead()
    if keys is None:
        raise KeyMissing("There is no keyring here to encrypt with.", hint="Append through a repo's conversation.")
    return keys.newest(conversation)


def _encrypt(plain: bytes, address: FieldAddress, random: Random) -> bytes:
    key, nonce = check_encrypts(address.conversation, address.keys), random(_NONCE)
    encrypt = aead().crypto_aead_xchacha20poly1305_ietf_encrypt
    ciphertext = encrypt(plain, _bound_to(address, key.id, None), nonce, key.data)
    return bytes((_SEALED_BINDING,)) + key_bytes(key.id) + nonce + bytes(ciphertext)


def encrypted_digest(value: bytes, address: FieldAddress) -> str:
    """The digest of an encrypted value that was just made for ``address``."""
    plain = _open(value, _key_of(value), address, None).plain
    assert plain is not None
    return _digest(address.name, plain)


def _digest(name: str, plain: bytes) -> str:
    return SEALED_DIGEST + tagged_hash("llmcrdt/field/2", name.encode("utf-8", "surrogatepass"), plain)


def read_encrypted(value: bytes, address: FieldAddress) -> EncryptedField:
    """The field that an encrypted value stands for, unopened. Raises InvalidContent for bytes that can't be one."""
    if not is_encrypted(value) or len(value) < _HEADER + _TAG:
        raise InvalidContent("encrypted hidden field is cut short")
    if value[0] == _SEALED_BINDING:
        return EncryptedField(value, _key_of(value), address, None)
    binding, zero, ciphertext = value[_HEADER:].partition(b"\0")
    if not zero or len(ciphertext) < _TAG:
        raise InvalidContent("encrypted hidden field is cut short")
    return EncryptedField(value, _key_of(value), address, _read_binding(binding))


def _read_binding(data: bytes) -> Mapping[str, JSON]:
    try:
        parsed = parse_json(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent("encrypted hidden field's binding is not UTF-8") from None
    if not isinstance(parsed, dict):
        raise InvalidContent("encrypted hidden field's binding is not an object")
    return parsed


def _key_of(value: bytes) -> KeyId:
    return KeyId(text_of(value[1 : 1 + _ID]))


def _open(value: bytes, id_: KeyId, address: FieldAddress, open_binding: Mapping[str, JSON] | None) -> _Opened:
    decrypt = aead().crypto_aead_xchacha20poly1305_ietf_decrypt
    key = address.keys.find(address.conversation, id_) if address.keys is not None else None
    if key is None:
        raise KeyMissing(
            f"The key {id_} of conversation {address.conversation} is not here.",
            hint="Export it where the field was written (repo.keyring.export), and add it here (repo.keyring.add).",
        )
    nonce, rest = value[1 + _ID : _HEADER], value[_HEADER:]
    try:
        if open_binding is not None:
            clear, _, rest = rest.partition(b"\0")
            data = decrypt(rest, _bound_to(address, id_, clear.decode("utf-8")), nonce, key.data)
            return _Opened(open_binding, bytes(data), None)
        plain = bytes(decrypt(rest, _bound_to(address, id_, None), nonce, key.data))
        binding, _, data = plain[_BLIND:].partition(b"\0")
        return _Opened(_read_binding(binding), data, plain)
    except (crypto_error(), InvalidContent):
        raise CannotOpen(
            f"The hidden field {address.name!r} of entry {address.entry} does not open: it was changed, or moved here"
            " from another place.",
            hint="It stays as it is; nothing else is affected.",
        ) from None


def _bound_to(address: FieldAddress, id_: KeyId, binding: str | None) -> bytes:
    """The data that the tag covers beside the content; ``binding``: of a value of before. JSON keeps ("ab", "c") and
    ("a", "bc") apart."""
    place: list[JSON] = [address.conversation, address.entry, address.name, id_]
    text = ["llmcrdt/hidden/2", *place] if binding is None else ["llmcrdt/hidden/1", *place, binding]
    return canonical_json(text).encode("utf-8")


def aead() -> Any:
    """PyNaCl's bindings. Raises SealingMissing."""
    try:
        from nacl import bindings
    except ImportError:
        raise SealingMissing(
            "Encrypted hidden fields need PyNaCl, which is not installed.", hint='Run: pip install "llmcrdt[seal]".'
        ) from None
    return bindings


def crypto_error() -> type[Exception]:
    """The error of what does not open."""
    from nacl.exceptions import CryptoError

    error: type[Exception] = CryptoError
    return error
