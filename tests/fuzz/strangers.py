"""Documents of strangers: what a plain Yjs client can write into a conversation or a library, right in parts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pycrdt

from llmcrdt.document.entry import content_hash
from llmcrdt.document.frame import EMPTY_FRAME, extend_frame_hash
from llmcrdt.ids import EntryId, FrameHash, is_entry_id, new_document_id, new_entry_id, new_session_id
from llmcrdt.prompt import TokenLog
from llmcrdt.testing.templates import tokenizers

_TOKENIZERS = tuple(tokenizers().values())

ROLES = ("system", "user", "assistant", "tool")
TYPES = ("text", "reasoning", "tool_call", "tool_result", "config", "blob", "openai_chat/message",
         "openai_chat/content", "openai_chat/tool_call", "other")  # fmt: skip


class Raw(str):
    """A piece of JSON text that no value stands for."""

    __slots__ = ()


def dump(value: Any) -> str:
    """JSON text of a value that may hold ``Raw`` pieces, also as keys."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{k if isinstance(k, Raw) else json.dumps(k)}:{dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


_ODD = (
    *map(Raw, (
        r'"\ud83d"', r'"a\ude00b"', r'"\ud83d\ude00"', r'"\u0000"', '"\\u0000x\\u001b[2J"', '""', '"x"', '"é😀"',
        '"<|im_end|>"', "1e400", "-1e400", "1e-400", "-0", "-0.0", "3.0", "0.1", "9007199254740993", "1" * 308,
        "9" * 309, "9" * 4000, "-" + "9" * 5000, "NaN", "Infinity", "-Infinity", "true", "null", "[]", "{}", "[[]]",
        '[""]', "[1]", "[" * 120 + "]" * 120, "[" * 500 + "]" * 500, "[" * 5000,
        '{"a":' * 60 + "1" + "}" * 60, r'{"\ud83d":1,"\ud83e":2}',
        '{"a":1,"a":{"b":2}}', '{"__proto__":1}', "01", "'x'", "undefined", "/**/1", '"\t"', '"\\x"', "", "﻿1",
    )),
    0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 1.5, True, False, None, "", "x" * 3000, "{% x %}", "{{ 1/0 }}", [],
    {}, [None], [[1, "a"]], {"type": "text", "text": "inner"}, {"function": 3}, {"name": None},
)  # fmt: skip


class Stranger:
    """Writes into documents. All it does follows from ``rng``."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.touched: set[str] = set()
        """The entries of others that it changed."""

    def _bytes(self, n: int) -> bytes:
        return self.rng.randbytes(n)

    def _pick(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    # -- values

    def odd(self) -> Any:
        value = self.rng.choice(_ODD)
        while self.rng.random() < 0.2:
            value = self._pick([value], {"a": value}, [value, value], {Raw(r'"\udc00"'): value}, {"text": value})
        return value

    def bend(self, value: Any, chance: float) -> Any:
        """A JSON value with some of its places odd."""
        if self.rng.random() < chance:
            return self.odd()
        if isinstance(value, dict):
            bent = {key: self.bend(item, chance) for key, item in value.items() if self.rng.random() > chance / 2}
            if self.rng.random() < chance:
                bent[self._pick("x", "type", "text", "role", "lamport", "openai_chat", Raw(r'"\ud83d"'), "")] = (
                    self.odd()
                )
            return bent
        if isinstance(value, list):
            return [self.bend(item, chance) for item in value]
        return value

    def shared(self) -> Any:
        """A value of any type that Yjs has."""

        makers: tuple[Callable[[], Any], ...] = (
            lambda: None, lambda: True, lambda: 7, lambda: 1.5, lambda: float("nan"), lambda: "", lambda: "text",
            lambda: "nul\0", lambda: b"", lambda: b"\x00\xff", lambda: b"\x01" + self._bytes(100), lambda: [1, {}],
            lambda: {"a": 1}, lambda: pycrdt.Map({"a": 1}), lambda: pycrdt.Map({}), lambda: pycrdt.Array([1, "x"]),
            lambda: pycrdt.Text("growing"),
            lambda: pycrdt.XmlFragment([pycrdt.XmlText("x")]), lambda: pycrdt.Doc(), lambda: dump(self.odd()),
            lambda: "x" * 70_000,
        )  # fmt: skip
        return self.rng.choice(makers)()

    def name(self) -> str:
        """A name for a field, an act, or an entry."""
        return str(self._pick(
            "", ":", "\0", "x", "head", "version:", "version:x", "live:", "live:0:text", "live:0:reasoning",
            "live:00:text",
            "live:1:tool_call", "live:x:text", "live:٣:text", "live:999999999:text", "live:0:new", "hidden:",
            "hidden:x", "hidden:llmcrdt/tokens", "hidden:\x1b[2J", "erased:", "erased:x", "hidden:" + "é" * 70_000,
            "y" * 70_000, "é😀", "\x1b]0;x\x07", "'; DROP TABLE entries; --",
        ))  # fmt: skip

    def part(self, kind: str) -> dict[str, Any]:
        """A part that is as it should be."""
        match kind:
            case "text" | "reasoning":
                return {"type": kind, "text": self._pick("words", "words of a stranger", "nul \0 nul", "")}
            case "tool_call":
                arguments = self._pick(
                    "{}", '{"a":1e400}', r'{"a":"\ud83d"}', "[" * 3000, "no JSON", '{"a":' * 70 + "1" + "}" * 70
                )
                return {"type": kind, "id": self._pick("c1", "", "c\0"), "name": "f", "arguments": arguments}
            case "tool_result":
                return {"type": kind, "text": "a result", "error": self._pick(True, False)}
            case "config":
                tool = {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}},
                }
                template = {self._pick("enable_thinking", "namespace", "messages"): False}
                return {"type": kind, "tools": [tool], "date": self._pick("2026-01-01", 10**9), "template": template}
            case "blob":
                return {"type": kind, "hash": "a" * 64, "size": 3, "media_type": "image/png", "name": "a.png"}
            case "openai_chat/message":
                return {
                    "type": kind,
                    "role": "developer",
                    "content": "list",
                    "reasoning": "reasoning",
                    "fields": {"name": "n"},
                }
            case "openai_chat/content":
                return {"type": kind, "item": {"type": "text", "text": "item"}}
            case "openai_chat/tool_call":
                return {"type": kind, "call": {"id": "c", "type": "other"}}
            case _:
                return {"type": kind, "a": [1, 2.5, {"b": None}]}

    # -- documents

    def conversation(self, update: bytes, client: int) -> bytes:
        """Its writing into a conversation, as an update."""
        doc = pycrdt.Doc(client_id=client)
        doc.apply_update(update)
        before = doc.get_state()
        entries, acts = doc.get("entries", type=pycrdt.Map), doc.get("acts", type=pycrdt.Map)
        meta = doc.get("meta", type=pycrdt.Map)
        for _ in range(self.rng.randint(1, 6)):
            act = self.rng.random()
            ids = sorted(key for key, value in entries.items() if isinstance(value, pycrdt.Map))
            if act < 0.6:
                self._new_entry(entries, ids)
            elif act < 0.72 and ids:
                self._change_entry(entries, self.rng.choice(ids))
            elif act < 0.76:
                key = self._pick(self.name(), new_entry_id(self._bytes), self.rng.choice(ids) if ids else "")
                self._touch(key)
                entries[key] = self.shared()
            elif act < 0.9:
                self._act(acts, ids)
            else:
                key = self._pick("created_at", "forked_from", "kind", "schema", self.name())
                long = ["9" * 400, "9" * 5000] if key == "created_at" else []
                newer = ["٣", "1700000000000"] if key != "schema" else []
                texts = [*long, *newer, "1.0", "1.999", "0", "-5", "²", "", "x.y", "{}"]
                odd = self.shared()
                meta[key] = self._pick(
                    *texts, dump(self.odd()) if key == "forked_from" else "", odd if key != "schema" else "1"
                )
        return doc.get_update(before)

    def _touch(self, entry: str) -> None:
        self.touched.add(entry)

    def _head(self, entries: Any, ids: list[str]) -> dict[str, Any]:
        heads = {}
        for each in ids:
            try:
                found = json.loads(entries[each].get("head"))
                if isinstance(found["lamport"], int) and 0 < found["lamport"] < 1 << 40:
                    heads[each] = found
            except (TypeError, ValueError, KeyError, RecursionError):
                continue
        known = sorted(heads, key=lambda i: (heads[i]["lamport"], i))
        parents = (
            known[-1:] if self.rng.random() < 0.6 else self.rng.sample(known, min(len(known), self.rng.randint(0, 2)))
        )
        lamport = 1 + max((heads[i]["lamport"] for i in known), default=0)
        head: dict[str, Any] = {
            "role": self.rng.choice(ROLES), "author": self._pick("", "stranger", "\x1b[2J"),
            "session": new_session_id(self._bytes), "parents": parents, "lamport": lamport,
            "created_at": 1_700_000_000_000,
        }  # fmt: skip
        if known and self.rng.random() < 0.2:
            head["alternative_of"] = self.rng.choice(known)
        if known and self.rng.random() < 0.2:
            head["answers"] = [self.rng.choice(known), self._pick("c1", "", r"\ud83d")]
        if known and self.rng.random() < 0.3:
            pinned = self._whole(entries, heads, parents)
            hash_ = EMPTY_FRAME
            for pin in pinned:
                hash_ = FrameHash(extend_frame_hash(hash_, [pin]))
            frame = {
                "base": None,
                "appended": [list(pin) for pin in pinned],
                "hash": hash_,
                "renderer": "r",
                "sent": None,
            }
            head[self._pick("frame", "frame", "covers")] = frame
        if self.rng.random() < 0.2:
            head["model"] = {"name": "m", "sampling": {"seed": 2**60}}
        if known and self.rng.random() < 0.2:
            head["after"] = known[-2:]
        return head

    def _whole(self, entries: Any, heads: dict[str, Any], parents: list[str]) -> list[tuple[str, str]]:
        """All that stands above some entries, each in one of its versions."""
        todo, found = list(parents), set()
        while todo:
            each = todo.pop()
            if each in heads and each not in found:
                found.add(each)
                above = heads[each].get("parents")
                todo += [p for p in above if isinstance(p, str)] if isinstance(above, list) else []
        pins = []
        for each in sorted(found, key=lambda i: (heads[i]["lamport"], i)):
            versions = sorted(name[8:] for name in entries[each] if name.startswith("version:"))
            if versions:
                pins.append((each, versions[0]))
        return pins

    def _version(self, role: str, chance: float) -> tuple[str, str]:
        parts = [self.part(self.rng.choice(TYPES)) for _ in range(self.rng.randint(0, 3))]
        value = {
            "nonce": "n" * 16, "parts": parts, "lamport": 5, "by": new_session_id(self._bytes),
            "status": self._pick("complete", "stopped", "failed"), "usage": {"tokens": 3},
        }  # fmt: skip
        if self.rng.random() < 0.2:
            value = self.bend(value, chance)
        else:  # it can be read, whatever its parts hold
            value["parts"] = [
                {key: self.bend(item, chance) if key != "type" else item for key, item in part.items()}
                for part in parts
            ]
            value["usage"] = {"tokens": self.odd()} if self.rng.random() < chance else {}
        text = dump(value)
        return "version:" + content_hash(role, text), text

    def _chance(self) -> float:
        return float(self._pick(0.0, 0.02, 0.1, 0.3))

    def _new_entry(self, entries: Any, ids: list[str]) -> None:
        head = self._head(entries, ids)
        name, text = self._version(head["role"], self._chance())
        fields: dict[str, Any] = {"head": dump(self.bend(head, self._pick(0.0, 0.0, 0.0, 0.02, 0.1)))}
        if self.rng.random() < 0.85:
            fields[name] = text
        if head["role"] == "assistant" and self.rng.random() < 0.5:
            tokens = [self._pick(0, 65, 255, 256, 260, 2**31 - 1) for _ in range(self.rng.randint(0, 5))]
            binding = {"tokenizer": self.rng.choice(_TOKENIZERS).hash, "version": name.removeprefix("version:")}
            log = TokenLog(
                self._pick(None, *map(EntryId, filter(is_entry_id, ids[-1:]))), tuple(tokens), tuple(tokens[:2])
            )
            fields["hidden:llmcrdt/tokens"] = dump(binding).encode() + b"\0" + log.pack()
        for _ in range(self.rng.randint(0, 2)):
            key, value = self._field(head["role"])
            fields[key] = value
        key = self._pick(*([new_entry_id(self._bytes)] * 8), self.name())
        self._touch(key)
        entries[key] = pycrdt.Map({k: v for k, v in fields.items() if not isinstance(v, pycrdt.Doc)})
        self._grow(entries[key])

    def _field(self, role: str) -> tuple[str, Any]:
        act = self.rng.random()
        if act < 0.2:
            return self._version(role, self._chance())
        if act < 0.4:
            binding = dump(
                self.bend({"provider": "p", "erased": ["x"], "tokenizer": "t", "expires": 1}, self._chance())
            )
            name = self._pick("hidden:p/x", "hidden:llmcrdt/tokens", "hidden:")
            return name, self._pick(b"", b"\x01" * 60) + binding.encode() + b"\0" + self._bytes(self.rng.randint(0, 40))
        if act < 0.5:
            return "erased:" + new_session_id(self._bytes), dump(self.bend({"lamport": 9, "versions": ["a" * 32]}, 0.2))
        return self.name(), self.shared()

    def _change_entry(self, entries: Any, entry: str) -> None:
        self._touch(entry)
        fields, act = entries[entry], self.rng.random()
        if act < 0.1:
            try:
                head = json.loads(fields.get("head"))
            except (TypeError, ValueError, RecursionError):
                head = {}
            fields["head"] = dump(self.bend(head, 0.2))
        elif act < 0.15 and len(fields):
            del fields[self.rng.choice(sorted(fields))]
        else:
            key, value = self._field(self.rng.choice(ROLES))
            fields[key] = value
        self._grow(fields)

    def _grow(self, fields: Any) -> None:
        """Formats and embeds in what streams there."""
        for name in sorted(fields):
            value = fields[name]
            if isinstance(value, pycrdt.Text) and self.rng.random() < 0.7:
                text = self._pick("more", "😀", "\0")
                end = len(text.encode())  # inside of a character the core would write what no core reads
                value.insert(0, text)
                value.format(0, end, {"bold": self._pick(True, None, {"a": 1})})
                value.insert_embed(end, self._pick({"image": "x"}, b"\x00", 5))

    def _act(self, acts: Any, ids: list[str]) -> None:
        entry = self._pick(*(ids or ["x"]), "?")
        key = (
            self._pick("select", "select", "stop", "claim", "other")
            + f":{entry}:{self._pick(new_session_id(self._bytes), 'x')}"
        )
        value = {"lamport": self._pick(3, 30, 300), "entry": entry, "after": ids[:2]}
        value["abandoned"] = [[new_session_id(self._bytes), 3], [self._pick("x", 5), self._pick(3, 0, 3.0)], 7]
        acts[self._pick(key, key, key, self.name())] = self._pick(dump(self.bend(value, self._chance())), self.shared())

    def library(self, update: bytes, client: int, conversations: list[str]) -> bytes:
        """Its writing into a library, as an update."""
        doc = pycrdt.Doc(client_id=client)
        doc.apply_update(update)
        before = doc.get_state()
        shelf = doc.get("shelf", type=pycrdt.Map)
        for _ in range(self.rng.randint(1, 6)):
            id_ = self._pick(*conversations, new_document_id(self._bytes), self.name())
            fact = self._pick("title", "title", "created_at", "archived", "other", "")
            key = self._pick(f"{id_}:{fact}:{new_session_id(self._bytes)}", self.name())
            value = {
                "lamport": self._pick(5, 50, 2**40),
                "value": self._pick("a title", 1.7e9, True, self.odd(), self.odd()),
            }
            shelf[key] = self._pick(dump(self.bend(value, 0.05)), dump(self.bend(value, 0.3)), self.shared())
        return doc.get_update(before)
