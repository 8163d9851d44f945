"""Derived updates are those that Yjs itself would write under the same client id, and never change."""

from __future__ import annotations

import hashlib

import pycrdt

from llmcrdt.crdt.backend import NewField, NewNode
from llmcrdt.crdt.yjs.derive import derive_update
from llmcrdt.crdt.yjs.update import read_structs

NODES = [NewNode("entries", "a", {"head": "é😀" * 100, "version:x": ""}), NewNode("acts", "b", {"hidden:y": b"\0\xff"})]
ALONE = NewNode("entries", "c", {"head": "h"})


def test_yjs_would_write_the_same() -> None:
    derived = derive_update([NODES], [])
    client = read_structs(derived)[0][0].client
    assert 1 << 52 <= client < 1 << 53, "no client that Yjs draws, and one that JavaScript can hold"
    doc: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc(client_id=client)
    maps = {root: doc.get(root, type=pycrdt.Map) for root in ("entries", "acts")}
    with doc.transaction():
        for node in NODES:
            maps[node.root][node.key] = pycrdt.Map()
            for name, value in sorted(node.fields.items()):
                maps[node.root][node.key][name] = value
    assert doc.get_update() == derived


def test_the_bytes_are_frozen() -> None:
    """Devices of two versions make the same client of the same content: they must write the same under it."""
    update = derive_update([NODES, [ALONE]], [NewField(ALONE, "hidden:z", b"1"), NewField(ALONE, "hidden:z", b"2")])
    assert hashlib.sha256(update).hexdigest() == "28ffe82a52f392b16a9c70bfd008022485c9fa59bcb24cd19ed82bef73537927"


def test_differing_content_has_differing_clients() -> None:
    fields = ({"head": "h"}, {"head": "i"}, {"heae": "h"}, {"head": b"h"}, {}, {"head": "h", "more": ""})
    groups = [[NewNode("entries", "a", f)] for f in fields]
    groups += [[NewNode("entries", "aa", {"head": "h"})], [NewNode("acts", "a", {"head": "h"})]]
    groups += [[*groups[0], *groups[6]], [*groups[6], *groups[0]]]
    clients = {struct.client for struct in read_structs(derive_update(groups, []))[0]}
    assert len(clients) == len(groups)
