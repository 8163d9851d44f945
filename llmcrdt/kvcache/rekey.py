"""Moving chunks from one fingerprint to another, where it is known only later whose state they are."""

from __future__ import annotations

from .base import ChunkCache
from .chunk_file import Chunk
from .chunk_hash import ChunkKey
from .memory import MemoryCache


def rename(source: MemoryCache, old: bytes, new: bytes, target: ChunkCache) -> int:
    """Move every chunk and state in ``source`` that descends from fingerprint ``old`` to ``target``, under ``new``,
    with its owners. ``source`` is empty afterwards. Returns how many ``target`` took."""
    found, owners = source.drain()
    names: dict[bytes, bytes] = {old: new}
    moved: list[Chunk] = []
    for each in sorted(found, key=lambda each: (each.link, each.position)):  # chunks, parents first; then states
        parent = names.get(each.parent)
        if parent is None:
            continue
        if each.link:
            now = Chunk.state(parent, each.ids, each.payload, link=each.link, rests=each.rests, work=each.work)
            names.update(zip(each.made_from, now.made_from, strict=True))  # which are claimed, and need not be here
        else:
            now = Chunk.after(parent, each.position, each.ids, each.payload, each.work)
        names[each.key] = now.key
        moved.append(now)
    refused = set()
    for owner, keys in owners.items():
        claimed = [ChunkKey(names[key]) for key in keys if key in names]
        if not target.owners.claim(owner, claimed):
            refused.update(claimed)
    return sum(target.put(each) for each in moved if each.key not in refused)
