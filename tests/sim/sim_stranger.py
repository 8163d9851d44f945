"""A stranger: a client that knows the document's shape and keeps none of its rules."""

from __future__ import annotations

import json
import random
from typing import Any

from sim_kinds import Client, Letters
from sim_oracle import chain

SESSION = "S" * 22


def vandalize(client: Client, rng: random.Random, new_id: str) -> tuple[bytes, set[str], set[str]]:
    """Write something wrong into a document. Returns the update, the entries that are wrong from the start, and the
    sound entries that got a wrong field."""
    entries = client.plain()["entries"]
    sound = sorted(key for key, value in entries.items() if isinstance(value, dict) and _head(value))
    wrong, touched = set(), set()
    act = rng.random()
    if act < 0.7:
        head = _wrong_head(rng, sound, entries)
        fields = {"head": head if isinstance(head, str) else json.dumps(head), "live:0:text": Letters("junk")}
        client.put("entries", new_id, rng.choice([fields, fields, {}, "not a map", 7.5]))
        wrong.add(new_id)
    elif act < 0.85 and sound:
        victim = rng.choice(sound)
        name, value = rng.choice(
            [(f"version:{'x' * 32}", '{"parts":[]}'), ("hidden:stranger", b"no binding"), ("version:", "null")]
        )
        client.put_field("entries", victim, name, value)
        touched.add(victim)
    else:
        group, chosen = rng.choice(sound or ["?"]), rng.choice(sound or ["?"])
        lamport = rng.choice((0, (1 << 53) - 1, 1 << 60))
        key = rng.choice(["", "select:", f"select:{group}:short", f"select:{group}:{SESSION}"])
        text = rng.choice(["", "[]", json.dumps({"lamport": lamport, "entry": chosen})])
        if rng.random() < 0.3:
            asked = [key.split(":")[1] for key in client.plain()["acts"] if key.startswith("ask:")]
            key = f"{rng.choice(('ask', 'reply'))}:{rng.choice(asked or [new_id])}:{SESSION}"
            ask = {"lamport": lamport, "after": [chosen], "frame": "", "valid_while": "always"}
            text = rng.choice([text, json.dumps(ask)])
        client.put("acts", key, text)
    return client.news(), wrong, touched


def _head(fields: Any) -> bool:
    return isinstance(fields.get("head"), str) and fields["head"].startswith('{"')


def _wrong_head(rng: random.Random, sound: list[str], entries: Any) -> dict[str, Any] | str:
    """A head with one thing wrong."""
    head: dict[str, Any] = {
        "role": "user", "author": "stranger", "session": SESSION, "parents": [], "lamport": 1 << 20, "created_at": 1,
    }  # fmt: skip
    some = rng.choice(sound) if sound else "N" * 16
    lamport = json.loads(entries[some]["head"])["lamport"] if sound else 1
    pin = [some, "V" * 32]
    wrong: list[dict[str, Any]] = [
        {"parents": ["N" * 16]},
        {"parents": [some], "lamport": lamport},
        {"parents": [some], "alternative_of": some},
        {"alternative_of": "N" * 16},
        {"answers": ["N" * 16, "call"]},
        {"frame": {"appended": [pin], "hash": chain((tuple(pin),))}},  # type: ignore[arg-type]  # it doesn't follow it
        {"parents": [some], "frame": {"appended": [pin], "hash": "W" * 32}},
        {"parents": [some], "frame": {"appended": [pin, pin], "hash": chain((tuple(pin),) * 2)}},  # type: ignore[arg-type]
        {"role": "wizard"},
        {"lamport": -1},
        {"lamport": 1 << 53},
        {"lamport": (1 << 53) - 1},
        {"lamport": 1.5},
        {"lamport": True},
        {"session": "short"},
        {"parents": "no list"},
        {"created_at": None},
    ]
    if not sound:
        wrong = wrong[:1] + wrong[3:5] + wrong[8:]
    return rng.choice([{**head, **change} for change in wrong] + ["no JSON", "[]", "[" * 5000])  # type: ignore[list-item]
