"""Frozen bytes: chunk keys and chunk files. Write them anew (after a change of version) with

python tests/kvcache/test_kv_vectors.py
"""

import json
from pathlib import Path

import pytest

from llmcrdt.kvcache import Chunk, chunk_keys
from llmcrdt.kvcache.chunk_file import decode, encode

VECTORS = Path(__file__).parents[1] / "vectors"
COMMAND = "python tests/kvcache/test_kv_vectors.py"
CASES = [
    ("one chunk of one token", bytes(32), [0], 1),
    ("counting, two chunks and a rest", bytes(range(32)), list(range(10)), 4),
    ("equal chunks have different keys", b"\xff" * 32, [7, 7, 7, 7], 2),
    ("large and negative ids", bytes(32), [2**31 - 1, -(2**31), -1, 1], 4),
    ("nothing whole", bytes(32), [1, 2, 3], 4),
]


def _keys() -> dict:
    cases = [
        {
            "name": name,
            "fingerprint": fingerprint.hex(),
            "ids": ids,
            "chunk": chunk,
            "keys": [key.hex() for key in chunk_keys(fingerprint, ids, chunk)],
        }
        for name, fingerprint, ids, chunk in CASES
    ]
    return {"command": COMMAND, "cases": cases}


def _files() -> dict:
    first = Chunk.after(bytes(range(32)), 0, (1, 2, 3, 4), b"first payload")
    second = Chunk.after(first.key, 4, (5, -6, 7, 2**31 - 1), bytes(range(64)))
    empty = Chunk.after(bytes(32), 0, (0,), b"", work=0)
    alone = Chunk.state(bytes(range(32)), (1, 2, 3, 4, 5, -6, 7, 2**31 - 1), b"state", link=4, rests=False, work=10**12)
    rests = Chunk.state(bytes(range(32)), first.ids, b"", link=4, rests=True)
    fields = [
        {
            "key": chunk.key.hex(),
            "parent": chunk.parent.hex(),
            "position": chunk.position,
            "ids": list(chunk.ids),
            "payload": chunk.payload.hex(),
            "work": chunk.work,
            "link": chunk.link,
            "rests": chunk.rests,
            "file": encode(chunk).hex(),
        }
        for chunk in (first, second, empty, alone, rests)
    ]
    return {"command": COMMAND, "cases": fields}


@pytest.mark.parametrize(("name", "now"), [("chunk_hash", _keys), ("chunk_file", _files)])
def test_bytes_are_as_frozen(name, now):
    assert json.loads((VECTORS / f"{name}.json").read_text()) == now()


def test_frozen_files_are_read():
    for case in json.loads((VECTORS / "chunk_file.json").read_text())["cases"]:
        chunk = decode(bytes.fromhex(case["file"]))
        assert chunk.key.hex() == case["key"]
        assert chunk.parent.hex() == case["parent"]
        assert (chunk.position, list(chunk.ids)) == (case["position"], case["ids"])
        assert chunk.payload.hex() == case["payload"]
        assert (chunk.work, chunk.link, chunk.rests) == (case["work"], case["link"], case["rests"])


if __name__ == "__main__":
    for name, value in (("chunk_hash", _keys()), ("chunk_file", _files())):
        (VECTORS / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
