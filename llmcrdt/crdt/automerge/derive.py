"""Changes that are the same wherever they are made: those that make the root maps, and those whose actor is a hash of
what they write. Their bytes are written here, for the core may one day write the same change in another way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from ...varint import write_uint
from ..backend import NewField, NewNode, Scalar, check_value
from .chunks import CHANGE, MAGIC, MAP, SET, Change, ObjectId, write_chunk
from .columns import write_bools, write_column

_ROOT_ACTOR = b"root"
_TEXT, _BYTES = 6, 7


class _Write(NamedTuple):
    """An operation under a key that is new. ``value`` None: it makes a map."""

    inside: ObjectId | None
    key: str
    value: Scalar | None


@lru_cache(maxsize=64)
def root_change(root: str) -> Change:
    """The change that makes a root map: the first one of an actor of its own, after nothing. So all replicas have the
    same map under that name, and none hides another's."""
    actor = _ROOT_ACTOR + hashlib.sha256(b"llmcrdt/root/1" + root.encode()).digest()[:12]
    return _make_change(actor, 1, (), [_Write(None, root, None)])


def root_object(root: str) -> ObjectId:
    return root_change(root).actor, 1


def is_root_actor(actor: bytes) -> bool:
    """Whether an actor may be one of those that make root maps."""
    return actor.startswith(_ROOT_ACTOR)


def is_root_change(change: Change) -> bool:
    if not is_root_actor(change.actor) or change.deps or change.count != 1:
        return False
    [operation] = change.operations()
    return operation.key is not None and root_change(operation.key).hash == change.hash


def derive_update(groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField]) -> bytes:
    """``Backend.derive``."""
    made: dict[bytes, Change] = {}
    for nodes in groups:
        _add_group(made, nodes)
    for field in fields:
        check_value(field.value)
        group = _add_group({}, [field.node])
        _add(made, [_Write((group.actor, 2), field.name, field.value)], [group])
    return b"".join(change.raw for change in made.values())


def _add_group(made: dict[bytes, Change], nodes: Sequence[NewNode]) -> Change:
    writes: list[_Write] = []
    for node in nodes:
        for value in () if node.copied else node.fields.values():
            check_value(value)
        writes.append(_Write(root_object(node.root), node.key, None))
        own = b"", len(writes) + 1
        writes += [_Write(own, name, value) for name, value in sorted(node.fields.items())]
    roots = [root_change(root) for root in sorted({node.root for node in nodes})]
    made.update((change.hash, change) for change in roots)
    return _add(made, writes, roots)


def _add(made: dict[bytes, Change], writes: Sequence[_Write], after: Sequence[Change]) -> Change:
    """The first change of an actor that is named after all that it says. ``b""`` as an actor is its own."""
    start = max(change.last for change in after) + 1 if after else 1
    nameless = _make_change(b"\x00" * 16, start, after, writes)
    actor = hashlib.sha256(b"llmcrdt/actor/1" + nameless.raw).digest()[:16]
    change = _make_change(actor, start, after, writes)
    made[change.hash] = change
    return change


def _make_change(actor: bytes, start: int, after: Sequence[Change], writes: Sequence[_Write]) -> Change:
    others = sorted({write.inside[0] for write in writes if write.inside is not None and write.inside[0]})
    places = {b"": 0, actor: 0} | {other: n for n, other in enumerate(others, 1)}
    inside = [write.inside and (places[write.inside[0]], write.inside[1]) for write in writes]
    values = [b"" if write.value is None else _encoded(write.value) for write in writes]
    columns = {
        0x01: write_column(place and write_uint(place[0]) for place in inside),
        0x02: write_column(place and write_uint(place[1]) for place in inside),
        0x15: write_column(_text(write.key) for write in writes),
        0x34: write_bools(False for _ in writes),
        0x42: write_column(write_uint(MAP if write.value is None else SET) for write in writes),
        0x56: write_column(map(_value_meta, writes, values)),
        0x57: b"".join(values),
        0x70: write_column(b"\x00" for _ in writes),
    }
    told = {spec: column for spec, column in columns.items() if column}
    body = b"".join(
        (
            write_uint(len(after)), *sorted(change.hash for change in after),
            _prefixed(actor), b"\x01", write_uint(start), b"\x00", b"\x00",  # at no time, without a message
            write_uint(len(others)), *map(_prefixed, others),
            write_uint(len(told)), *(write_uint(spec) + write_uint(len(column)) for spec, column in told.items()),
            *told.values(),
        )
    )  # fmt: skip
    raw = write_chunk(body)
    return Change(hashlib.sha256(bytes((CHANGE,)) + raw[len(MAGIC) + 5 :]).digest(), raw, body)


def _encoded(value: Scalar) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _value_meta(write: _Write, value: bytes) -> bytes:
    if write.value is None:
        return b"\x00"
    return write_uint(len(value) << 4 | (_BYTES if isinstance(write.value, bytes) else _TEXT))


def _text(text: str) -> bytes:
    return _prefixed(text.encode())


def _prefixed(data: bytes) -> bytes:
    return write_uint(len(data)) + data
