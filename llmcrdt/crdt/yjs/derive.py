"""Updates whose writer identity is a hash of what they write: made twice, by two replicas, they are one.

Each group of nodes, and each field that is added to a node later, is written by a client of its own. Its structs have
no neighbours, so their bytes depend on nothing else in the document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ...varint import read_uint, write_uint
from ..backend import NewField, NewNode, Scalar, check_value

_BEYOND_RANDOM = 1 << 52
"""Derived clients lie above it: Yjs in JavaScript draws its own from 32 bits, so none of those is ever met."""
_IN_ROOT_MAP = b"\x27\x01"  # an item in a root, under a key: a shared type
_IN_NODE = b"\x28\x00"  # an item in another item, under a key: a value
_LONGEST = 4  # bytes of the length of a key
_ONE_STRING, _ONE_BUFFER = b"\x01\x77", b"\x01\x74"


def derive_update(groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField]) -> bytes:
    """``Backend.derive``."""
    sections: dict[int, bytes] = {}
    for nodes in groups:
        places, items = zip(*map(_encoded, nodes), strict=True)
        client = _client(_group_name(places, items))
        own = _IN_NODE + write_uint(client)
        structs: list[bytes] = []
        for place, values in zip(places, items, strict=True):
            within = own + write_uint(len(structs))
            structs.append(_IN_ROOT_MAP + place + b"\x01")
            structs += [within + value for value in values]
        sections[client] = write_uint(len(structs)) + write_uint(client) + b"\x00" + b"".join(structs)
    for field in fields:
        place, values = _encoded(field.node)
        made_by = write_uint(_client(_group_name([place], [values])))
        check_value(field.value)
        value = _field(field.name, field.value)
        client = _client(made_by + value)
        struct = _IN_NODE + made_by + b"\x00" + value
        sections[client] = b"\x01" + write_uint(client) + b"\x00" + struct
    # Yjs writes the greatest client first.
    return write_uint(len(sections)) + b"".join(sections[client] for client in sorted(sections, reverse=True)) + b"\x00"


def locate_nodes(piece: bytes, root: str) -> dict[str, int]:
    """``Backend.locate``."""
    found: dict[str, int] = {}
    sign = _IN_ROOT_MAP + _text(root)
    begins, *rest = piece.split(sign)
    at = len(begins)
    for after in rest:
        with suppress(IndexError, ValueError):
            size, begin = read_uint(after, 0, _LONGEST)
            found[after[begin : begin + size].decode()] = at
        at += len(sign) + len(after)
    return found


def _encoded(node: NewNode) -> tuple[bytes, list[bytes]]:
    """A node's root and key, and its fields."""
    for value in () if node.copied else node.fields.values():
        check_value(value)
    return _text(node.root) + _text(node.key), [_field(name, value) for name, value in sorted(node.fields.items())]


def _group_name(places: Sequence[bytes], items: Sequence[Sequence[bytes]]) -> bytes:
    """All that a group says."""
    nodes = zip(places, items, strict=True)
    return b"".join(part for place, values in nodes for part in (place, write_uint(len(values)), *values))


def _client(name: bytes) -> int:
    digest = hashlib.sha256(b"llmcrdt/client/1" + name).digest()
    return int.from_bytes(digest[:8], "big") >> 12 | _BEYOND_RANDOM


def _field(name: str, value: Scalar) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return _text(name) + (_ONE_BUFFER if isinstance(value, bytes) else _ONE_STRING) + write_uint(len(data)) + data


def _text(text: str) -> bytes:
    data = text.encode()
    return write_uint(len(data)) + data
