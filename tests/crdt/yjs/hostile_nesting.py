"""Updates made by hand, as no Yjs client makes them: any item in or beside any other, under any id."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pycrdt

from llmcrdt.crdt.yjs.update import Id
from llmcrdt.varint import write_uint

MAP, ARRAY = b"\x01", b"\x00"


def item(
    content: bytes,
    *,
    root: str = "",
    inside: Id | None = None,
    left: Id | None = None,
    right: Id | None = None,
    key: str = "",
) -> bytes:
    """One item: a type (MAP, ARRAY), or a text as a value."""
    kind, body = (7, content) if content in (MAP, ARRAY) else (8, b"\x01\x77" + _text(content))
    info = kind | 0x80 * (left is not None) | 0x40 * (right is not None)
    place = b"".join(_id(id_) for id_ in (left, right) if id_ is not None)
    if not place:
        info |= 0x20 * bool(key)
        place = b"\x00" + _id(inside) if inside is not None else b"\x01" + _text(root.encode())
        place += _text(key.encode()) if key else b""
    return bytes((info,)) + place + body


def update(*lines: tuple[int, int, Sequence[bytes]], deletes: Iterable[tuple[int, int, int]] = ()) -> bytes:
    """``lines``: client, first clock and items; ``deletes``: client, clock and length."""
    out = [write_uint(len(lines))]
    for client, clock, items in lines:
        out += (write_uint(len(items)), write_uint(client), write_uint(clock), *items)
    gone = list(deletes)
    out.append(write_uint(len(gone)))
    for client, clock, length in gone:
        out += (write_uint(client), b"\x01", write_uint(clock), write_uint(length))
    return b"".join(out)


def deep(levels: int, client: int = 1) -> bytes:
    """So many maps inside each other, in the root "entries"."""
    first, second = item(MAP, root="entries", key="k"), item(MAP, inside=(client, 0), key="k")
    at = 2 + len(write_uint(client))  # where the clock stands, in which alone they differ
    before, after = second[:at], second[at + 1 :]
    return update((client, 0, [first, *(before + write_uint(n) + after for n in range(levels - 1))]))


def deeper(level: int, client: int = 1) -> bytes:
    """One level of ``deep``, as an update of its own."""
    place = {"inside": (client, level - 1)} if level else {"root": "entries"}
    return update((client, level, [item(MAP, key="k", **place)]))  # type: ignore[arg-type]


def delete_all(client: int = 1) -> bytes:
    """Delete the first of ``deep``."""
    return update(deletes=[(client, 0, 1)])


def depth_of(whole: bytes, roots: Iterable[str] = ("entries", "list")) -> int:
    """How many types lie inside each other in a document: asked of the core itself."""
    doc: Any = pycrdt.Doc()
    tops = [doc.get(root, type=pycrdt.Array if root == "list" else pycrdt.Map) for root in roots]
    doc.apply_update(whole)
    return max(_depth(top) for top in tops) - 1


def _depth(shared: Any) -> int:
    children = shared.values() if isinstance(shared, pycrdt.Map) else shared
    return 1 + max((_depth(child) for child in children if isinstance(child, (pycrdt.Map, pycrdt.Array))), default=0)


def any_update(rng: random.Random, clients: int, reach: int) -> bytes:
    """Some items of a few clients at clocks below ``reach``, anywhere."""

    def some_id() -> Id:
        return rng.randrange(1, clients + 1), rng.randrange(reach)

    def some_item() -> bytes:
        content = rng.choice((MAP, MAP, ARRAY, b"text"))
        key = rng.choice(("", "k"))
        match rng.randrange(5):
            case 0:
                root, key = rng.choice((("entries", "k"), ("list", "")))
                return item(content, root=root, key=key)
            case 1 | 2:
                return item(content, inside=some_id(), key=key)
            case 3:
                return item(content, left=some_id(), right=some_id() if rng.random() < 0.3 else None)
        return item(content, right=some_id())

    lines = [
        (client, rng.randrange(reach), [some_item() for _ in range(rng.randrange(1, 4))])
        for client in rng.sample(range(1, clients + 1), rng.randrange(1, min(3, clients) + 1))
    ]
    gone = [(*some_id(), rng.randrange(1, 4))] if rng.random() < 0.2 else []
    return update(*lines, deletes=gone)


def _id(id_: Id) -> bytes:
    return write_uint(id_[0]) + write_uint(id_[1])


def _text(data: bytes) -> bytes:
    return write_uint(len(data)) + data
