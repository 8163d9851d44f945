"""The reading that the rules give a document's bytes, found by other means than the library's.

The bytes are read with the bare CRDT and json, the hashes are taken with hashlib, and the order comes from
``order_model.py``, the executable statement of O1-O6. Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "document"))
import order_model as model

REACH = 1 << 32  # how far a lamport may lie above those that it refers to
_RANK = {"complete": 0, "stopped": 1, "failed": 2}
Pins = tuple[tuple[str, str], ...]


def tagged(tag: str, *pieces: str) -> str:
    data = b"".join(len(p).to_bytes(8, "big") + p for p in (s.encode() for s in (tag, *pieces)))
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()[:24]).decode()


def chain(pins: Pins, start: str | None = None) -> str:
    found = tagged("llmcrdt/frame/1") if start is None else start
    for entry, version in pins:
        found = tagged("llmcrdt/frame/1", found, entry, version)
    return found


@dataclass
class Pinned(model.Document):
    """The model, with frames that name versions: generations on other versions are another turn."""

    pins: dict[str, Pins] = field(default_factory=dict)
    covers: dict[str, set[str]] = field(default_factory=dict)

    def sound(self) -> dict[str, model.Entry]:
        """As the model has it; a summary also follows all that it covers."""
        good: dict[str, model.Entry] = {}
        for i in self.by_age(self.entries):
            e = self.entries[i]
            refs = {*e.parents, *(e.frame or ()), *self.covers.get(i, ())} | ({e.alternative_of, e.answers} - {None})
            if all(r in good and good[r].lamport < e.lamport for r in refs):
                above = self._ancestors_of(e, good)
                if e.alternative_of not in above and above >= self.covers.get(i, set()):
                    good[i] = e
        return good

    def group(self, i: str) -> str:
        e = self.entries[i]
        while e.frame is None and e.alternative_of:
            e = self.entries[e.alternative_of]
        if e.frame is None:
            return e.id
        if e.turn and not any(self.group(j) == e.turn for j in e.frame):
            return e.turn
        return tagged("llmcrdt/group/1", chain(self.pins[e.id]), *e.parents)


@dataclass
class Said:
    """A document's content, read without the library: the order by the model, and each entry's sound versions."""

    order: Pinned
    versions: dict[str, dict[str, Any]]
    erased: dict[str, set[str]]  # the hashes that an erased entry had

    def shown(self, entry: str, pinned: dict[str, str]) -> str:
        """The hash of the version that a transcript shows; "" while there is none."""
        if entry in self.erased:
            return pinned.get(entry) or min(self.erased[entry], default=tagged("llmcrdt/erased/1", entry))
        here = self.versions[entry]
        if pinned.get(entry) in here:
            return pinned[entry]
        return min(here, key=lambda h: (_RANK[here[h].get("status", "complete")], here[h]["lamport"], h), default="")

    def transcript(self) -> tuple[Pins, str]:
        """The entries in order, each with the version shown, and the hash of the list. A frame's version counts as
        pinned in the hash, also while it has not arrived and another one stands in for it."""
        ids = self.order.transcript()
        generated = [i for i in ids if self.order.entries[i].frame is not None]
        latest = max(generated, key=lambda i: (self.order.entries[i].lamport, i), default=None)
        pinned = dict(self.order.pins[latest]) if latest else {}
        shown = tuple((i, self.shown(i, pinned)) for i in ids)
        return shown, chain(tuple((i, pinned.get(i, version)) for i, version in shown))


def read(plain: Mapping[str, Mapping[str, Any]], ignore: set[str]) -> Said:
    """Read a whole document. ``ignore``: entries that a stranger made wrong in ways the model doesn't know."""
    heads: dict[str, dict[str, Any]] = {}
    versions: dict[str, dict[str, Any]] = {}
    erased: dict[str, set[str]] = {}
    marks: dict[tuple[str, str], tuple[int, frozenset[str] | None]] = {}
    for entry, found in plain["entries"].items():
        if entry in ignore:
            continue
        if "head" not in found:
            continue  # it has not arrived
        head = json.loads(found["head"])
        texts = {n.partition(":")[2]: text for n, text in found.items() if n.startswith("version:")}
        sealed = {h: json.loads(t) for h, t in texts.items() if tagged("llmcrdt/content/1", head["role"], t) == h}
        if not sealed and not any(name.startswith(("live:", "erased:")) for name in found):
            continue  # its content has not arrived; a stranger's is none
        heads[entry], versions[entry] = head, sealed
        for name, text in found.items():
            if name.startswith("erased:"):
                said = json.loads(text)
                erased.setdefault(entry, set()).update(said["versions"])
                marks[entry, name[7:]] = (said["lamport"], frozenset(said["seen"]))
    order = Pinned(erased=marks)
    for entry in sorted(heads, key=lambda i: (heads[i]["lamport"], i)):
        _put(order, entry, heads[entry])
    for key, value in plain["acts"].items():
        kind, _, rest = key.partition(":")
        group, _, session = rest.partition(":")
        if kind == "select" and isinstance(value, str) and value.startswith("{"):
            act = json.loads(value)
            if act["entry"] in heads and 0 < act["lamport"] <= heads[act["entry"]]["lamport"] + REACH:
                order.selection[group, session] = (act["lamport"], act["entry"])
        elif kind == "keep":
            order.kept.add(group)
    return Said(order, versions, erased)


def _list(order: Pinned, frame: dict[str, Any]) -> Pins:
    """frame(base), base, appended. A base that isn't here leaves a reference that is found missing."""
    base, own = frame.get("base"), tuple((entry, version) for entry, version in frame["appended"])
    return (*order.pins.get(base[0], ()), (base[0], base[1]), *own) if base else own


def _put(order: Pinned, entry: str, head: dict[str, Any]) -> None:
    frame: tuple[str, ...] | None = None
    if head.get("frame") is not None:
        order.pins[entry] = _list(order, head["frame"])
        frame = tuple(pin[0] for pin in order.pins[entry])
    if head.get("covers") is not None:
        order.covers[entry] = {pin[0] for pin in _list(order, head["covers"])}
    order.entries[entry] = model.Entry(
        entry,
        head["role"],
        tuple(head["parents"]),
        head["lamport"],
        head.get("alternative_of"),
        frame,
        head["answers"][0] if head.get("answers") else None,
        head["session"],
        frozenset(head.get("saw_erased", ())),
        head.get("turn"),
    )
