"""Reads the metadata at the head of a GGUF file as raw bytes: enough to name a tokenizer. Pure; trusts nothing."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from ...exceptions import NotAModel

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FIRST_READ, _MOST_READ = 1 << 22, 1 << 29
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class _Short(Exception):
    """The bytes end before the metadata does."""


class _Damaged(Exception):
    pass


def check_model_file(path: Path) -> None:
    """Raise NotAModel unless ``path`` is a file that begins as a GGUF."""
    hint = "Pass the path of a .gguf file."
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise NotAModel(f"There is no file {path}.", hint=hint) from None
    except OSError as error:
        raise NotAModel(f"{path} can't be read: {error.strerror}.", hint=hint) from None
    if magic != _MAGIC:
        raise NotAModel(f"{path} is not a GGUF file: it begins with {magic!r}.", hint=hint)


def tokenizer_hash(path: Path) -> str:
    """Names vocabulary, merges and chat template, as hex; not the weights. Raises NotAModel for broken metadata."""
    want = _FIRST_READ
    while True:
        with open(path, "rb") as file:
            data = file.read(want)
        try:
            return _hash_fields(data)
        except _Short:
            if len(data) == want < _MOST_READ:
                want *= 4
                continue
        except _Damaged:
            pass
        raise NotAModel(f"{path} is damaged: its metadata can't be read.", hint="Download the file again.")


def _hash_fields(data: bytes) -> str:
    """A hash over the raw bytes of every ``tokenizer.`` field, in the order of their names."""
    if data[:4] != _MAGIC:
        raise _Damaged
    count, at = _read(_U64, data, 16), 24
    fields: dict[bytes, bytes] = {}
    for _ in range(count):
        start, end = _string(data, at)
        after = _value_end(data, end + 4, _read(_U32, data, end))
        fields[data[start:end]] = data[end:after]
        at = after
    h = hashlib.sha256(b"llmcrdt/tokenizer/1\0")
    for name in sorted(name for name in fields if name.startswith(b"tokenizer.")):
        for piece in (name, fields[name]):
            h.update(_U64.pack(len(piece)))
            h.update(piece)
    return h.hexdigest()


def _value_end(data: bytes, at: int, kind: int) -> int:
    if kind in _SIZES:
        end = at + _SIZES[kind]
    elif kind == _STRING:
        end = _string(data, at)[1]
    elif kind == _ARRAY:
        end = _array_end(data, at)
    else:
        raise _Damaged
    if end > len(data):
        raise _Short
    return end


def _array_end(data: bytes, at: int) -> int:
    item, count = _read(_U32, data, at), _read(_U64, data, at + 4)
    at += 12
    if item in _SIZES:
        return at + count * _SIZES[item]
    if item != _STRING:
        raise _Damaged  # arrays of arrays exist on paper only
    for _ in range(count):
        at = _string(data, at)[1]
    return at


def _string(data: bytes, at: int) -> tuple[int, int]:
    start = at + 8
    end = start + _read(_U64, data, at)
    if end > len(data):
        raise _Short
    return start, end


def _read(layout: struct.Struct, data: bytes, at: int) -> int:
    if at + layout.size > len(data):
        raise _Short
    return int(layout.unpack_from(data, at)[0])
